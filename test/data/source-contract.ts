// What every source of rows owes, whatever it reads.

import { describe, expect, test } from 'vitest';
import type { Source, SourceFault, SourceItem } from '../../src/flow/types.js';
import { readAll } from './helpers.js';

interface Options {
  shuffle?: { seed: number; windowBytes?: number };
  epochs?: number;
  shardIndex?: number;
  numShards?: number;
}

type Read = SourceItem<unknown> | SourceFault;

/** Tests order, epochs, shards, resuming and aborting.
 *  @param make a source of `numRows` items of several chunks, with `windowBytes` of shuffles such that there are
 *    several windows
 *  @param idOf an item's number in the order without shuffle */
export function describeSource(
  numRows: number,
  windowBytes: number | undefined,
  make: (options: Options) => Source<unknown>,
  idOf: (item: Read) => number,
): void {
  const windows = windowBytes === undefined ? {} : { windowBytes };
  const ids = async (options: Options): Promise<number[]> => (await readAll(make(options))).map(idOf);
  const all = [...Array(numRows).keys()];
  const sorted = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);
  const orders: Record<string, Options> = {
    'in order': { epochs: 2 },
    shuffled: { epochs: 2, shuffle: { seed: 42 } },
    'shuffled in windows': { epochs: 2, shuffle: { seed: 7, ...windows } },
  };

  test('without shuffle rows come in their order', async () => {
    expect(await ids({})).toEqual(all);
  });

  test('shuffled, each comes once an epoch, in an order that seed and epoch decide', async () => {
    for (const shuffle of [{ seed: 42 }, { seed: 42, ...windows }]) {
      const read = await ids({ shuffle, epochs: 2 });
      const [first, second] = [read.slice(0, numRows), read.slice(numRows)];
      expect(sorted(first)).toEqual(all);
      expect(sorted(second)).toEqual(all);
      expect(first).not.toEqual(all);
      expect(second).not.toEqual(first);
      expect(await ids({ shuffle, epochs: 2 })).toEqual(read);
      expect(await ids({ shuffle: { ...shuffle, seed: 43 } })).not.toEqual(first);
    }
  });

  describe.each(Object.entries(orders))('%s', (_, options) => {
    test('one, two and four shards read the same order between them', async () => {
      const whole = await ids(options);
      for (const numShards of [2, 4]) {
        const shards: number[][] = [];
        for (let shardIndex = 0; shardIndex < numShards; shardIndex++) {
          shards.push(await ids({ ...options, shardIndex, numShards }));
        }
        const joined = whole.map((_, i) => shards[i % numShards]!.shift());
        expect(joined).toEqual(whole);
        expect(shards.flat()).toEqual([]);
      }
    });

    test('opened at any item it gives that one and the rest', async () => {
      for (const shard of [{}, { shardIndex: 1, numShards: 2 }]) {
        const source = (): Source<unknown> => make({ ...options, ...shard });
        const whole = await readAll(source());
        for (const [i, { cursor }] of whole.entries()) {
          expect(cursor).toBeDefined();
          const from: unknown = JSON.parse(JSON.stringify(cursor));
          const rest: Read[] = [];
          for await (const item of source().open(new AbortController().signal, from)) {
            rest.push(item);
            if (i % 5 > 0 && rest.length === 6) break; // to the end from every fifth
          }
          expect(rest.map(idOf)).toEqual(whole.slice(i, i + rest.length).map(idOf));
          expect(rest.map((item) => item.cursor)).toEqual(
            whole.slice(i, i + rest.length).map((w) => w.cursor),
          );
          if (i % 5 === 0) expect(rest.length).toBe(whole.length - i);
        }
      }
    });
  });

  test('an abort ends the reading with its reason', async () => {
    const controller = new AbortController();
    const read: Read[] = [];
    const reading = (async () => {
      for await (const item of make({}).open(controller.signal)) {
        read.push(item);
        if (read.length === 2) controller.abort(new Error('enough'));
      }
    })();
    await expect(reading).rejects.toThrow('enough');
    expect(read.length).toBe(2);
    await expect(readAll(make({}), AbortSignal.abort(new Error('at once')))).rejects.toThrow('at once');
  });

  test('wrong options are refused, all at once', () => {
    const bad = { shardIndex: 3, numShards: 2, epochs: 0, shufle: 1 } as Options;
    expect(() => make(bad).open(new AbortController().signal)).toThrow(/epochs[^]*shufle|shufle[^]*epochs/);
  });
}
