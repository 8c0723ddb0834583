import { describe, expect, test } from 'vitest';
import { flatMapRows, shuffleBuffer } from '../../src/data/rows.js';
import { messageOf } from '../../src/errors.js';
import { readAll, readValues, sourceOf } from './helpers.js';

const numbers = [...Array(100).keys()];

describe('flatMapRows', () => {
  test('makes several items of one, each with its origin and all bytes that it reaches', async () => {
    const image = new Uint8Array(100);
    const items = await readAll(
      flatMapRows(sourceOf([['ab', 'c'], ['d']]), (row) => row.map((text) => ({ image, text }))),
    );
    expect(items).toEqual([
      { value: { image, text: 'ab' }, bytes: 120, origin: { file: 'test', rowGroup: 0, row: 0 } },
      { value: { image, text: 'c' }, bytes: 118, origin: { file: 'test', rowGroup: 0, row: 0 } },
      { value: { image, text: 'd' }, bytes: 118, origin: { file: 'test', rowGroup: 0, row: 1 } },
    ]);
  });

  test('an error, or no item, makes a fault of the row; faults pass through in their place', async () => {
    const broken = new Error('broken');
    const source = flatMapRows(sourceOf<number>([1, 2, broken, 3, 4]), (n) => {
      if (n === 2) throw new Error('two');
      return n === 3 ? [] : [n * 10];
    });
    const items = await readAll(source);
    expect(items.map((item) => ('error' in item ? messageOf(item.error) : item.value))).toEqual([
      10,
      'two',
      'broken',
      'test, row 3: expected at least one item from flatMapRows, received none; ' +
        'make one of each row, and leave items out by a filter in the flow, which counts them',
      40,
    ]);
    expect(items.map(({ origin }) => origin.row)).toEqual([0, 1, 2, 3, 4]);
  });

  test('pulls a row only when an item is wanted', async () => {
    const source = sourceOf(numbers);
    const iterator = flatMapRows(source, (n) => [n, n, n])
      .open(new AbortController().signal)
      [Symbol.asyncIterator]();
    for (let i = 0; i < 4; i++) await iterator.next();
    expect(source.pulled).toBe(2);
    await iterator.return?.();
  });
});

describe('shuffleBuffer', () => {
  const shuffled = (size: number, seed: number) =>
    readValues(shuffleBuffer(sourceOf(numbers), { size, seed }));

  test('gives every item once, in an order that the seed determines', async () => {
    const order = await shuffled(20, 1);
    expect(order).not.toEqual(numbers);
    expect([...order].sort((a, b) => a - b)).toEqual(numbers);
    expect(await shuffled(20, 1)).toEqual(order);
    expect(await shuffled(20, 2)).not.toEqual(order);
  });

  test('no item comes more than size - 1 places before its turn', async () => {
    for (const size of [1, 2, 10, 1000]) {
      const order = await shuffled(size, 3);
      for (const [place, n] of order.entries()) expect(n - place).toBeLessThan(size);
    }
    expect(await shuffled(1, 3)).toEqual(numbers);
  });

  test('as large as the source, it is a uniform permutation', async () => {
    const firsts = new Map<number, number>();
    for (let seed = 0; seed < 1000; seed++) {
      const [first] = await readValues(shuffleBuffer(sourceOf([0, 1, 2, 3]), { size: 4, seed }));
      firsts.set(first!, (firsts.get(first!) ?? 0) + 1);
    }
    for (const count of firsts.values()) expect(Math.abs(count - 250)).toBeLessThan(60);
  });

  test('holds no more items than its size, and no more bytes than it declares', async () => {
    for (const [maxBytes, most] of [
      [1000, 8],
      [35, 3],
    ] as const) {
      const source = sourceOf(numbers, 10);
      const shuffled = shuffleBuffer(source, { size: 8, seed: 1, maxBytes });
      expect(shuffled.maxHeldBytes).toBe(maxBytes);
      let given = 0;
      for await (const item of shuffled.open(new AbortController().signal)) {
        if ('error' in item) throw item.error;
        given++;
        // What was pulled, less what was given out, less the one that made room necessary.
        expect(source.pulled - given).toBeLessThanOrEqual(most);
      }
      expect(given).toBe(100);
    }
  });

  test('an item heavier than the buffer passes through', async () => {
    expect(await readValues(shuffleBuffer(sourceOf(numbers, 10), { size: 8, seed: 1, maxBytes: 9 }))).toEqual(
      numbers,
    );
  });

  test('faults are mixed in like items, and none is lost', async () => {
    const items = await readAll(
      shuffleBuffer(sourceOf<number>([0, new Error('x'), 2, 3]), { size: 3, seed: 1 }),
    );
    expect(items.map(({ origin }) => origin.row).sort()).toEqual([0, 1, 2, 3]);
    expect(items.filter((item) => 'error' in item).length).toBe(1);
  });

  test('an empty source gives nothing, a failing one its error', async () => {
    expect(await readAll(shuffleBuffer(sourceOf([]), { size: 3, seed: 1 }))).toEqual([]);
    const failing = {
      name: 'test',
      async *open(): AsyncGenerator<never> {
        throw new Error('gone');
      },
    };
    await expect(readAll(shuffleBuffer(failing, { size: 3, seed: 1 }))).rejects.toThrow('gone');
  });

  test('wrong options are told all at once', () => {
    expect(() => shuffleBuffer(sourceOf([1]), { size: 0, seed: -1 })).toThrow(
      /shuffleBuffer: size.*\nshuffleBuffer: seed/s,
    );
  });
});
