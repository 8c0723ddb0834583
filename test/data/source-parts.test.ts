// Sources of sources: what they give, where they go on, and how shards share them.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { mix } from '../../src/data/mix.js';
import { parquet } from '../../src/data/parquet.js';
import { rows } from '../../src/data/rows-of.js';
import {
  concat,
  cursorForShards,
  repeat,
  shard,
  skip,
  take,
  type Shard,
} from '../../src/data/source-parts.js';
import type { Source } from '../../src/flow/types.js';
import { make, part, withLeaf, type Part } from '../../src/parts.js';
import { decode, z } from '../../src/schema.js';
import { messageFrom, readAll, readValues, writeRows, type IdRow } from './helpers.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-parts-'));
const file = join(folder, 'rows.parquet');
writeRows(file, { numRows: 23, rowGroupSize: 5, blobBytes: 50 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const signal = new AbortController().signal;
const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
const letters = (name: string, count: number) =>
  rows(
    numbers(0, count).map((i) => `${name}${i}`),
    { name },
  );

describe('what they give', () => {
  test('take, skip, repeat and concat', async () => {
    const source = letters('a', 4);
    expect(await readValues(take(source, 2))).toEqual(['a0', 'a1']);
    expect(await readValues(take(source, 9))).toEqual(['a0', 'a1', 'a2', 'a3']);
    expect(await readValues(take(source, 0))).toEqual([]);
    expect(await readValues(skip(source, 3))).toEqual(['a3']);
    expect(await readValues(skip(source, 9))).toEqual([]);
    expect(await readValues(repeat(take(source, 2), 2))).toEqual(['a0', 'a1', 'a0', 'a1']);
    expect(await readValues(concat(take(source, 1), letters('b', 2)))).toEqual(['a0', 'b0', 'b1']);
  });

  test('each goes on at every item, also inside each other and in a mix', async () => {
    const shuffled = (): Source<IdRow> => parquet<IdRow>(file, { shuffle: { seed: 4 }, epochs: 2 });
    const sources: Record<string, () => Source<unknown>> = {
      take: () => take(shuffled(), 30),
      skip: () => skip(shuffled(), 12),
      repeat: () => repeat(take(shuffled(), 6), 3),
      concat: () => concat<unknown>(skip(shuffled(), 40), letters('b', 3), take(shuffled(), 3)),
      shard: () =>
        shard(mix([{ source: shuffled() }, { source: letters('b', 20) }]), { shardIndex: 1, numShards: 3 }),
      mixed: () => mix([{ source: take(shuffled(), 9) }, { source: repeat(letters('b', 3), 2), weight: 2 }]),
    };
    for (const [name, open] of Object.entries(sources)) {
      const whole = await readAll(open());
      expect(whole.length, name).toBeGreaterThan(8);
      for (const [i, { cursor }] of whole.entries()) {
        const rest: unknown[] = [];
        for await (const item of open().open(signal, JSON.parse(JSON.stringify(cursor)))) rest.push(item);
        expect(rest, name).toEqual(whole.slice(i));
      }
    }
  });

  test('they are parts: decoded, changed leaf by leaf, and wrong ones named', async () => {
    const schema = z.strictObject({ source: part('source') });
    const spec = { source: take(repeat(letters('a', 2), 2), 3) };
    const decoded = decode(schema, withLeaf(spec, 'source.count', 4), 'file');
    const made = make(decoded.source as Part<'source', undefined, Source<string>>, undefined);
    expect(await readValues(made)).toEqual(['a0', 'a1', 'a0', 'a1']);
    expect(() => decode(schema, { source: take(letters('a', 2), -1) }, 'file')).toThrow('source.count');
    expect(() => decode(schema, { source: take({} as never, 1) }, 'file')).toThrow('expected a source');
    expect(await messageFrom(readAll(repeat(letters('a', 1), 0)))).toContain('epochs');
  });

  test('plans, fingerprints and summaries are those of the sources inside', async () => {
    const inner = parquet(file);
    expect(await take(inner, 3).plan()).toEqual([await inner.plan()]);
    expect(await messageFrom(take(parquet(join(folder, 'none.parquet')), 1).plan())).toContain(
      'none.parquet',
    );
    const print = await skip(parquet(file), 3).fingerprint();
    expect(await skip(parquet(file), 4).fingerprint()).toBe(print); // the options are told apart otherwise
    expect(await skip(letters('a', 4), 3).fingerprint()).not.toBe(print);
    const mixed = take(mix([{ source: letters('a', 4) }]), 3);
    await readAll(mixed);
    expect((mixed as { summary?: () => string }).summary!()).toBe('mixed 3 of source 0 (a)');
    expect(take(parquet(file, { maxItemBytes: 500 }), 1).maxItemBytes).toBe(500);
    expect(take(letters('a', 1), 1).maxItemBytes).toBeUndefined();
  });
});

describe('shards', () => {
  const explode = ({ id }: IdRow): string[] => numbers(0, 1 + (id % 3)).map((i) => `${id}.${i}`);
  const bucket = { by: ({ id }: IdRow): number => (id * 7) % 23, size: 8 };
  const sources: Record<string, (share: Shard) => Source<unknown>> = {
    'in order': (share) => parquet(file, { epochs: 3, ...share }),
    'shuffled in windows': (share) =>
      parquet(file, { epochs: 3, shuffle: { seed: 2, windowBytes: 1500 }, ...share }),
    exploded: (share) => parquet(file, { epochs: 2, shuffle: { seed: 2 }, explode, ...share } as never),
    bucketed: (share) =>
      parquet(file, { epochs: 3, shuffle: { seed: 2, windowBytes: 1500 }, bucket, ...share } as never),
    generated: (share) =>
      rows(() => numbers(0, 23)[Symbol.iterator]() as Iterable<number>, { epochs: 3, ...share }),
    'mixed, and shared as a whole': (share) =>
      shard(mix([{ source: parquet(file, { epochs: 2 }) }, { source: letters('b', 17), weight: 2 }]), share),
  };
  const valueOf = (item: object): string => JSON.stringify('value' in item ? plain(item.value) : item);
  const plain = (value: unknown): unknown => (typeof value === 'object' ? (value as IdRow).id : value);

  /** The batches of whole steps: of each, what all shards got, in the stream's order. */
  async function steps(
    open: (share: Shard) => Source<unknown>,
    numShards: number,
    perStep: number,
    from?: unknown,
  ): Promise<{ values: string[]; cursors: unknown[] }[]> {
    const shards = await Promise.all(
      numbers(0, numShards).map(async (shardIndex) => {
        const items: object[] = [];
        for await (const item of open({ shardIndex, numShards }).open(signal, from)) items.push(item);
        return items;
      }),
    );
    const each = perStep / numShards;
    return numbers(0, Math.floor(Math.min(...shards.map(({ length }) => length)) / each)).map((step) => {
      const mine = shards.map((items) => items.slice(step * each, (step + 1) * each));
      return {
        values: numbers(0, perStep).map((i) => valueOf(mine[i % numShards]![Math.floor(i / numShards)]!)),
        cursors: mine.map((items) => (items.at(-1) as { cursor: unknown }).cursor),
      };
    });
  }

  test.each(Object.entries(sources))(
    '%s: the steps are the same at 1, 2 and 4 shards, and after going on with another number',
    async (_, open) => {
      const perStep = 8;
      const values = (made: { values: string[] }[]): string[][] => made.map((step) => step.values);
      const whole = values(await steps(open, 1, perStep));
      expect(whole.length).toBeGreaterThan(4);
      for (const before of [1, 2, 4]) {
        const made = await steps(open, before, perStep);
        expect(values(made)).toEqual(whole);
        for (const now of [1, 2, 4]) {
          for (const step of [0, 2, 3, whole.length - 2]) {
            for (const shardIndex of [0, before - 1]) {
              const saved: unknown = JSON.parse(JSON.stringify(made[step]!.cursors[shardIndex]));
              const from = cursorForShards(saved, { shardIndex, numShards: before });
              expect(values(await steps(open, now, perStep, from))).toEqual(whole.slice(step + 1));
            }
          }
        }
      }
    },
  );

  test('a cursor of another shard is refused', async () => {
    const [first] = await readAll(parquet(file, { shardIndex: 1, numShards: 2 }));
    expect(() => cursorForShards(first!.cursor, { shardIndex: 0, numShards: 2 })).toThrow('shard 0 of 2');
    expect(() => cursorForShards({ taken: 1 }, { shardIndex: 0, numShards: 2 })).toThrow('cursorForShards');
    expect(await messageFrom(readAll(shard(letters('a', 2), { shardIndex: 2, numShards: 2 })))).toContain(
      'less than numShards, 2',
    );
  });
});
