import { expect, it } from 'vitest';
import { mix, type MixOptions } from '../../src/data/mix.js';
import type { Source, SourceItem } from '../../src/flow/types.js';

/** A source of `count` items, which can be opened anywhere where it has cursors. */
function letters(name: string, count: number, cursors = true): Source<string> {
  return {
    name,
    open: async function* (_signal, from) {
      for (let i = (from as number | undefined) ?? 0; i < count; i++) {
        const origin = { file: name, rowGroup: 0, row: i };
        yield { value: `${name}${i}`, bytes: 1, origin, ...(cursors ? { cursor: i } : {}) };
      }
    },
  };
}

async function read(options: MixOptions, from?: unknown, cursors = true): Promise<SourceItem<string>[]> {
  const source = mix(
    [
      { source: letters('a', 9), weight: 3 },
      { source: letters('b', 4, cursors) },
      { source: letters('c', 6), weight: 2 },
    ],
    options,
  );
  const items: SourceItem<string>[] = [];
  for await (const item of source.open(new AbortController().signal, from)) {
    if ('value' in item) items.push(item);
  }
  return items;
}

it.each(['first', 'all', 'longest'] as const)(
  'a mix that stops at the %s goes on at every item as it did before',
  async (stop) => {
    for (let seed = 0; seed < 5; seed++) {
      const whole = await read({ stop, seed });
      expect(whole.length).toBeGreaterThan(4);
      for (const [i, item] of whole.entries()) {
        const cursor: unknown = JSON.parse(JSON.stringify(item.cursor));
        expect(await read({ stop, seed }, cursor)).toEqual(whole.slice(i));
      }
    }
  },
);

it('a mix has no cursors while it gives what a source without cursors gives', async () => {
  const items = await read({ seed: 1, stop: 'longest' }, undefined, false);
  const first = items.findIndex(({ value }) => value.startsWith('b'));
  expect(items.slice(first).every(({ cursor }) => cursor === undefined)).toBe(true);
});

it('a mix changes its fingerprint with those of its sources', async () => {
  const source = (print: string) => mix([{ source: { ...letters('a', 2), fingerprint: async () => print } }]);
  expect(await source('x').fingerprint()).toEqual(['x']);
  expect(await source('y').fingerprint()).not.toEqual(await source('x').fingerprint());
});
