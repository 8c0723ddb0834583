// Buckets of similar length: as exactly ordered as anything else, and little padded.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { bucketed } from '../../src/data/bucket.js';
import { mix } from '../../src/data/mix.js';
import { parquet } from '../../src/data/parquet.js';
import { permutation, random } from '../../src/data/random.js';
import { rows } from '../../src/data/rows-of.js';
import { messageFrom, readAll, readValues, writeRows, type IdRow } from './helpers.js';
import { describeSource } from './source-contract.js';

/** Long ones are rare, as in most sets of text: from 10 to some 3000. */
function lengthsOf(count: number): number[] {
  const generator = random(5);
  return Array.from({ length: count }, () =>
    Math.round(10 * Math.exp(6 * (generator.below(1000) / 1000) ** 2)),
  );
}

/** The share of a batch's places that hold nothing. */
function padding(lengths: readonly number[], size: number): number {
  let [places, used] = [0, 0];
  for (let at = 0; at < lengths.length; at += size) {
    const batch = lengths.slice(at, at + size);
    places += Math.max(...batch) * batch.length;
    used += batch.reduce((sum, length) => sum + length, 0);
  }
  return 1 - used / places;
}

const idLength = ({ id }: IdRow): number => (id * 37) % 101;

describe('as a source', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bucket-'));
  const file = join(folder, 'rows.parquet');
  writeRows(file, { numRows: 30, rowGroupSize: 6, blobBytes: 100 });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  describeSource(
    30,
    1500,
    (options) => {
      const { shuffle } = options;
      // Without shuffle the contract asks for the order of the file, which buckets of one item keep where lengths do.
      const bucket = shuffle ? { by: idLength, size: 4 } : undefined;
      return parquet(file, { ...options, ...(bucket ? { bucket } : {}) } as never);
    },
    (item) => ('value' in item ? (item.value as IdRow).id : -1),
  );
});

describe('order', () => {
  test('of any lengths, sizes and phases it is a permutation', () => {
    const generator = random(1);
    for (let draw = 0; draw < 200; draw++) {
      const count = generator.below(300);
      const lengths = Float64Array.from({ length: count }, () =>
        generator.below(9) ? generator.below(50) : NaN,
      );
      const size = 1 + generator.below(20);
      const options = { size, phase: generator.below(100), keys: [draw] };
      const order = bucketed(permutation(count, random(draw, 1)), lengths, options);
      expect([...order].sort((a, b) => a - b)).toEqual([...Array(count).keys()]);
    }
  });

  test('a widely varying set is padded a fraction as much, in one window and in small ones', async () => {
    const lengths = lengthsOf(4000);
    const given = lengths.map((length) => ({ length }));
    const by = ({ length }: { length: number }): number => length;
    const read = async (options: object): Promise<number[]> =>
      (await readValues(rows(given, { shuffle: { seed: 1 }, ...options }))).map(by);
    const plain = padding(await read({}), 16);
    const grouped = await read({ bucket: { by, size: 16 } });
    expect(plain).toBeGreaterThan(0.6);
    expect(padding(grouped, 16)).toBeLessThan(0.1);
    expect([...grouped].sort((a, b) => a - b)).toEqual([...lengths].sort((a, b) => a - b));
    // Long and short runs come mixed: no curriculum.
    const halves = [grouped.slice(0, 2000), grouped.slice(2000)].map((half) =>
      half.reduce((a, b) => a + b, 0),
    );
    expect(Math.max(...halves) / Math.min(...halves)).toBeLessThan(1.5);

    let phase = 0;
    const windows: number[] = [];
    for (let from = 0, window = 0; from < lengths.length; from += 203, window++) {
      const part = Float64Array.from(lengths.slice(from, from + 203));
      for (const place of bucketed(part.keys(), part, { size: 16, phase, keys: [window] }))
        windows.push(part[place]!);
      phase += part.length;
    }
    // 203 items are some twelve runs, of which six are sorted together.
    expect(padding(windows, 16)).toBeLessThan(0.55);
  });

  test('epochs have other runs, and each row once', async () => {
    const given = lengthsOf(400).map((length, id) => ({ id, length }));
    const bucket = { by: ({ length }: { length: number }) => length, size: 8 };
    const read = (await readValues(rows(given, { shuffle: { seed: 2 }, epochs: 2, bucket }))).map(
      ({ id }) => id,
    );
    const [first, second] = [read.slice(0, 400), read.slice(400)];
    expect(new Set(first).size).toBe(400);
    expect(new Set(second).size).toBe(400);
    const runs = (ids: number[]): Set<string> =>
      new Set(
        Array.from({ length: 50 }, (_, i) => String(ids.slice(8 * i, 8 * i + 8).sort((a, b) => a - b))),
      );
    expect([...runs(second)].filter((run) => runs(first).has(run)).length).toBeLessThan(10);
  });

  test('mixed bucketed sources keep each its order', async () => {
    const make = (first: number) =>
      rows(
        lengthsOf(64).map((length, i) => ({ id: first + i, length })),
        {
          name: `from ${first}`,
          shuffle: { seed: 1 },
          bucket: { by: (row: { length: number }) => row.length, size: 4 },
        },
      );
    const mixed = (await readValues(mix([{ source: make(0) }, { source: make(1000) }]))).map(({ id }) => id);
    expect(mixed.filter((id) => id < 1000)).toEqual((await readValues(make(0))).map(({ id }) => id));
    expect(mixed.filter((id) => id >= 1000)).toEqual((await readValues(make(1000))).map(({ id }) => id));
  });
});

describe('faults', () => {
  test('a row without a finite length is left out by name, and the others keep their runs', async () => {
    const given = Array.from({ length: 20 }, (_, id) => ({ id }));
    const by = ({ id }: { id: number }): number => {
      if (id === 7) throw new Error('no text');
      return id === 3 ? NaN : id;
    };
    const items = await readAll(rows(given, { bucket: { by, size: 6 }, shuffle: { seed: 1 } }));
    const faults = items.filter((item) => 'error' in item);
    expect(faults.map(({ origin }) => origin.row).sort()).toEqual([3, 7]);
    expect(faults.map(({ error }) => String(error)).sort()).toEqual([
      'DataError: rows, row 3: expected a finite number from bucket.by, received NaN; the row is left out; let bucket.by give a length for every row',
      'Error: no text',
    ]);
    const ids = items.flatMap((item) => ('value' in item ? [item.value.id] : []));
    expect(ids.length).toBe(18);
    for (let at = 0; at < 18; at += 6) {
      const run = ids.slice(at, at + 6);
      expect(Math.max(...run) - Math.min(...run)).toBeLessThan(9);
    }
  });

  test('rows that come one by one have no buckets', async () => {
    const source = rows(
      function* () {
        yield 1;
      },
      { bucket: { by: () => 1, size: 2 } },
    );
    expect(await messageFrom(readAll(source))).toContain('bucket: expected no bucket but of an array');
  });
});
