// The program's own values as a source: what every source owes, and what can be iterated once only.

import { Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { rows } from '../../src/data/rows-of.js';
import { isPart, make, part } from '../../src/parts.js';
import { messageFrom, readAll, readValues } from './helpers.js';
import { describeSource } from './source-contract.js';

const VALUES = Array.from({ length: 17 }, (_, id) => ({ id }));
const idOf = (item: object): number => (item as { value: { id: number } }).value.id;
const signal = (): AbortSignal => new AbortController().signal;

async function* generate(): AsyncGenerator<{ id: number }> {
  for (const value of VALUES) yield value;
}

describe('of an array', () => {
  describeSource(17, undefined, (options) => rows(VALUES, options), idOf);

  test('values are passed on as they are, and a promise among them is awaited', async () => {
    const [value] = await readValues(rows([VALUES[0]!]));
    expect(value).toBe(VALUES[0]);
    expect(await readValues(rows([Promise.resolve(1), 2]))).toEqual([1, 2]);
  });

  test('the fingerprint is of the values', async () => {
    const of = async (values: readonly unknown[]) => rows(values).fingerprint();
    expect(await of([1, { a: Uint8Array.of(1) }])).toBe(await of([1, { a: Uint8Array.of(1) }]));
    const all = [
      [1],
      ['1'],
      [1n],
      [[1]],
      [{ a: 1 }],
      [{ a: '1' }],
      [null],
      [Uint8Array.of(1)],
      [new Date(1)],
      [1, 1],
    ];
    expect(new Set(await Promise.all(all.map(of))).size).toBe(all.length);
  });
});

describe('of a function', () => {
  test('orders, shards and cursors hold as for arrays', async () => {
    const explode = ({ id }: { id: number }) => (id % 3 === 2 ? [] : [`${id} a`, `${id} b`]);
    for (const numShards of [1, 2, 4]) {
      for (let shardIndex = 0; shardIndex < numShards; shardIndex++) {
        const options = { epochs: 2, shardIndex, numShards, explode };
        const plain = (items: Awaited<ReturnType<typeof readAll>>) =>
          items.map((item) => [item.origin.row, 'error' in item ? 'fault' : item.value]);
        const whole = await readAll(rows(generate, options));
        expect(plain(whole)).toEqual(plain(await readAll(rows(VALUES, options))));
        for (const [i, { cursor }] of whole.entries()) {
          const rest = [];
          for await (const item of rows(generate, options).open(signal(), cursor)) rest.push(item);
          expect(plain(rest)).toEqual(plain(whole.slice(i)));
          expect(rest.map((item) => item.cursor)).toEqual(whole.slice(i).map((item) => item.cursor));
        }
      }
    }
  });

  test('it is called once an epoch', async () => {
    let calls = 0;
    const source = rows(
      () => {
        calls++;
        return new Set([1, 2]);
      },
      { epochs: 3 },
    );
    expect(await readValues(source)).toEqual([1, 2, 1, 2, 1, 2]);
    expect(calls).toBe(3);
  });

  test('one that gives the same iterator again, or nothing to iterate, is told so', async () => {
    const once = VALUES.values();
    expect(await messageFrom(readAll(rows(() => once, { epochs: 2 })))).toMatch(
      /rows "rows": expected something that can be iterated again .* read before; give rows a function that makes it anew/,
    );
    expect(await messageFrom(readAll(rows((() => 5) as never)))).toMatch(
      /expected a function that makes something/,
    );
  });
});

describe('of what can be iterated once', () => {
  test('it is read once, and cannot be resumed or repeated', async () => {
    for (const of of [generate, () => VALUES.values(), () => Readable.from(VALUES)]) {
      const source = rows(of());
      const items = await readAll(source);
      expect(items.map(idOf)).toEqual(VALUES.map(({ id }) => id));
      expect(await messageFrom(readAll(source))).toMatch(/received an iterator that has been read before/);
      const resuming = (async () => {
        for await (const item of rows(of()).open(signal(), items[3]!.cursor)) return item;
      })();
      expect(await messageFrom(resuming)).toMatch(
        /received an iterator, to go on with where a run had stopped/,
      );
      expect(() => rows(of(), { epochs: 2 }).open(signal())).toThrow(
        /epochs: expected 1 for what can be iterated once/,
      );
    }
  });

  test('rows that were given are not kept', async () => {
    const given: WeakRef<object>[] = [];
    function* values() {
      for (let id = 0; id < 200; id++) {
        const value = { id };
        given.push(new WeakRef(value));
        yield value;
      }
    }
    const { signal } = new AbortController();
    const reading = rows(() => values())
      .open(signal)
      [Symbol.asyncIterator]();
    for (let i = 0; i < 150; i++) await reading.next();
    await new Promise((resolve) => setTimeout(resolve, 5)); // while its job lasts, a WeakRef holds
    gc!();
    expect(given.filter((ref) => ref.deref() !== undefined).length).toBeLessThan(20);
    await reading.return?.();
  });

  test('an abort ends it while it does not answer, and lets it clean up where it does', async () => {
    const controller = new AbortController();
    const reading = readAll(
      rows(async function* () {
        yield 1;
        await new Promise(() => {});
      }),
      controller.signal,
    );
    setTimeout(() => controller.abort(new Error('stop')), 10);
    await expect(reading).rejects.toThrow('stop');

    let closed = false;
    for await (const _ of rows(function* () {
      try {
        yield* VALUES;
      } finally {
        closed = true;
      }
    }).open(signal())) {
      break;
    }
    expect(closed).toBe(true);
  });

  test('what it throws ends the run, with the row', async () => {
    const failing = rows(
      async function* () {
        yield 1;
        throw new Error('connection lost');
      },
      { name: 'database' },
    );
    expect(await messageFrom(readAll(failing))).toBe(
      'DataError: database, row 1: expected the next value, received connection lost; mend what is iterated',
    );
  });
});

describe('options', () => {
  test('shuffle is for arrays, and rows are something to iterate', async () => {
    expect(() => rows(generate, { shuffle: { seed: 1 } }).open(signal())).toThrow(
      /shuffle: expected no shuffle but of an array/,
    );
    for (const wrong of ['text', 5, null, Uint8Array.of(1), {}]) {
      expect(() => rows(wrong as never).open(signal())).toThrow(
        /rows: rows: expected an array, an iterable, or a function/,
      );
    }
    expect(await messageFrom(readAll(rows([])))).toContain('expected at least one row, received none');
    expect(await messageFrom(readAll(rows(() => [])))).toContain('expected at least one row, received none');
    expect(await rows(VALUES).plan()).toEqual({ numRows: 17 });
  });

  test('the source is a part with a name of its own', async () => {
    const source = rows(VALUES, { name: 'questions', maxItemBytes: 16 });
    expect(source.name).toBe('questions');
    expect(isPart(source, 'source')).toBe(true);
    const made = make(part('source').parse(source) as typeof source, undefined);
    expect(made.name).toBe('questions');
    const [item] = await readAll(made);
    expect(item!.origin).toEqual({ file: 'questions', rowGroup: 0, row: 0 });
    const heavy = rows([{ text: 'much too long' }], { maxItemBytes: 16 });
    expect(await readAll(heavy)).toMatchObject([
      { bytes: 0, error: { message: expect.stringContaining('maxItemBytes') as string } },
    ]);
  });
});
