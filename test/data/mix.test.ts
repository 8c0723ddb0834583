// Sources mixed by weight.

import { describe, expect, expectTypeOf, test } from 'vitest';
import { mix } from '../../src/data/mix.js';
import { parquet } from '../../src/data/parquet.js';
import { messageOf } from '../../src/errors.js';
import type { Source } from '../../src/flow/types.js';
import { type Part, make, part, withLeaf } from '../../src/parts.js';
import { EASY_VQA, readAll, readValues, sourceOf } from './helpers.js';

const letters = (letter: string, count: number) =>
  sourceOf(Array.from({ length: count }, (_, i) => `${letter}${i}`));
const from = (values: readonly string[], letter: string) =>
  values.filter((value) => value.startsWith(letter));
const inOrder = (letter: string, count: number) => Array.from({ length: count }, (_, i) => `${letter}${i}`);

describe('mix', () => {
  test("'all' gives each item once, each source in its own order, whatever the weights", async () => {
    const source = mix([{ source: letters('a', 50), weight: 10 }, { source: letters('b', 30) }]);
    const values = await readValues(source);
    expect(values).toHaveLength(80);
    expect(from(values, 'a')).toEqual(inOrder('a', 50));
    expect(from(values, 'b')).toEqual(inOrder('b', 30));
    expect(values.slice(0, 50)).not.toEqual(inOrder('a', 50));
    expect(source.counts()).toEqual([
      { name: 'test', weight: 10, items: 50, rounds: 1 },
      { name: 'test', weight: 1, items: 30, rounds: 1 },
    ]);
  });

  test("'first' ends with the first source that has no more when it is drawn", async () => {
    const source = mix([{ source: letters('a', 10), weight: 5 }, { source: letters('b', 1000) }], {
      stop: 'first',
    });
    const values = await readValues(source);
    expect(from(values, 'a')).toEqual(inOrder('a', 10));
    expect(from(values, 'b').length).toBeLessThan(20);
    expect(source.counts().map(({ rounds }) => rounds)).toEqual([1, 0]);
  });

  test("'longest' starts sources over until all have been through", async () => {
    const source = mix([{ source: letters('a', 7) }, { source: letters('b', 100) }], { stop: 'longest' });
    const values = await readValues(source);
    const [a, b] = source.counts();
    expect(from(values, 'b')).toEqual(inOrder('b', 100));
    expect(from(values, 'a')).toEqual(Array.from({ length: a!.items }, (_, i) => `a${i % 7}`));
    expect(a!.items).toBeGreaterThan(60);
    expect(a!.rounds).toBe(Math.floor((a!.items - 1) / 7));
    expect(b!.rounds).toBe(1);
  });

  test('draws by weight: the realised shares are close to those asked for', async () => {
    const source = mix(
      [
        { source: letters('a', 10), weight: 1 },
        { source: letters('b', 10), weight: 2.5 },
        { source: letters('c', 6000), weight: 6.5 },
      ],
      { stop: 'longest', seed: 3 },
    );
    const { length } = await readAll(source);
    const shares = source.counts().map(({ items }) => items / length);
    for (const [i, share] of [0.1, 0.25, 0.65].entries()) expect(shares[i]).toBeCloseTo(share, 1);
    expect(source.counts().reduce((sum, { items }) => sum + items, 0)).toBe(length);
  });

  test('the seed determines the order', async () => {
    const values = (seed: number) =>
      readValues(mix([{ source: letters('a', 40) }, { source: letters('b', 40) }], { seed }));
    expect(await values(1)).toEqual(await values(1));
    expect(await values(1)).not.toEqual(await values(2));
  });

  test('passes faults through, and counts them', async () => {
    const broken = new Error('broken');
    const source = mix([{ source: sourceOf<string>(['a', broken]) }]);
    const items = await readAll(source);
    expect(items.map((item) => ('error' in item ? item.error : item.value))).toEqual(['a', broken]);
    expect(source.counts()[0]!.items).toBe(2);
  });

  test('a source without items is an error that names it, not an endless loop', async () => {
    const read = readAll(mix([{ source: letters('a', 3) }, { source: sourceOf([]) }], { stop: 'longest' }));
    await expect(read.catch((error: unknown) => Promise.reject(new Error(messageOf(error))))).rejects.toThrow(
      'mix: source 1 (test): expected at least one item, received none; leave it out, or check what it reads',
    );
  });

  test('an error of a source ends the mix with it, and closes the others', async () => {
    let closed = 0;
    const endless: Source<string> = {
      name: 'endless',
      async *open() {
        try {
          for (;;) yield { value: 'a', bytes: 1, origin: { file: 'x', rowGroup: 0, row: 0 } };
        } finally {
          closed++;
        }
      },
    };
    const failing: Source<string> = {
      name: 'failing',

      async *open() {
        throw new Error('no disk');
      },
    };
    await expect(readAll(mix([{ source: endless }, { source: failing }]))).rejects.toThrow('no disk');
    expect(closed).toBe(1);
  });

  test('pulls an item only when one is wanted, and closes the sources when nobody reads on', async () => {
    const [a, b] = [letters('a', 100), letters('b', 100)];
    const iterator = mix([{ source: a }, { source: b }])
      .open(new AbortController().signal)
      [Symbol.asyncIterator]();
    for (let i = 0; i < 5; i++) await iterator.next();
    expect(a.pulled + b.pulled).toBe(5);
    await iterator.return?.();
    expect((await iterator.next()).done).toBe(true);
  });

  test('can be read again, from the start', async () => {
    const source = mix([{ source: letters('a', 5) }, { source: letters('b', 5) }]);
    expect(await readValues(source)).toEqual(await readValues(source));
    expect(source.counts().map(({ items }) => items)).toEqual([5, 5]);
  });

  test('mixes mixes, and knows the types of what comes', async () => {
    const numbers = sourceOf([1, 2, 3]);
    const inner = mix([{ source: letters('a', 3) }, { source: numbers, weight: 2 }]);
    expectTypeOf(inner).toExtend<Source<string | number>>();
    expect(await readValues(mix([{ source: inner }, { source: letters('b', 4) }]))).toHaveLength(10);
  });

  test('is a part of a pipeline file: checked with its sources, and overridden leaf by leaf', async () => {
    const given = mix([{ source: parquet(`${EASY_VQA}/test.parquet`) }, { source: letters('a', 20) }]);
    const changed = withLeaf(withLeaf(given, 'sources.1.weight', 4), 'stop', 'first') as Part<'source'>;
    const made = make(part('source').parse(changed) as Part<'source', undefined, typeof given>, undefined);
    const items = await readAll(made);
    expect(items.length).toBeLessThan(60);
    expect(made.counts().map(({ weight }) => weight)).toEqual([1, 4]);
    expect(made.summary()).toBe(`mixed ${items.length - 20} of source 0 (parquet), 20 of source 1 (test)`);
    const wrong = part('source').safeParse(
      mix([{ source: parquet('x.parquet', { epochs: 0 }), weight: -1 }, { source: 3 as never }]),
    );
    expect(wrong.error?.issues.map(({ path }) => path.join('.')).sort()).toEqual([
      'sources.0.source.epochs',
      'sources.0.weight',
      'sources.1.source',
    ]);
  });

  test('checks its files before a run, and declares the heaviest item where all sources do', async () => {
    await expect(mix([{ source: parquet('nowhere.parquet') }]).plan()).rejects.toThrow('nowhere.parquet');
    const weighed = (maxItemBytes?: number) => ({
      ...letters('a', 1),
      ...(maxItemBytes ? { maxItemBytes } : {}),
    });
    const most = (...bytes: (number | undefined)[]) => {
      const source = mix(bytes.map((each) => ({ source: weighed(each) })));
      return make(part('source').parse(source) as Part<'source', undefined, Source<string>>, undefined)
        .maxItemBytes;
    };
    expect(most(10, 30)).toBe(30);
    expect(most(10, undefined)).toBeUndefined();
  });
});
