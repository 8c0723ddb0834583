// The same rows, written by pyarrow in the ways that Parquet allows (fixtures/parquet/make.py), are read alike.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parquet } from '../../src/data/parquet.js';
import { readAll, readValues } from './helpers.js';

const VARIANTS = [
  ...['plain', 'snappy', 'gzip-checksums', 'zstd-v2', 'brotli', 'lz4-v2', 'plain-v2', 'small-pages'],
  ...['small-pages-v2', 'delta', 'delta-v2'],
];

function revive(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if ('$int64' in value) return BigInt(value.$int64 as string);
  if ('$bytes' in value) return new Uint8Array(Buffer.from(value.$bytes as string, 'hex'));
  if ('$date' in value) return new Date(value.$date as string);
  return value;
}

const rows = JSON.parse(readFileSync('fixtures/parquet/rows.json', 'utf8'), revive) as Record<
  string,
  unknown
>[];

describe('all types', () => {
  test.each(VARIANTS)('%s.parquet holds the rows that were written', async (variant) => {
    const read = await readValues(parquet(`fixtures/parquet/${variant}.parquet`));
    expect(read.length).toBe(rows.length);
    for (const [i, row] of read.entries()) expect(row, `row ${i}`).toEqual(rows[i]);
  });

  test('values have the types that the documentation names', async () => {
    const [row] = await readValues(parquet('fixtures/parquet/snappy.parquet'));
    expect(typeof row!.id).toBe('bigint');
    expect(typeof row!.int).toBe('number');
    expect(typeof row!.text).toBe('string');
    expect(row!.bytes).toBeInstanceOf(Uint8Array);
    expect(row!.time).toBeInstanceOf(Date);
    expect(Array.isArray(row!.numbers)).toBe(true);
  });

  test('a null cell is null, never undefined, at any depth', async () => {
    const visit = (value: unknown): void => {
      expect(value).not.toBe(undefined);
      if (Array.isArray(value)) value.forEach(visit);
      else if (typeof value === 'object' && value !== null && !(value instanceof Uint8Array)) {
        Object.values(value).forEach(visit);
      }
    };
    (await readValues(parquet('fixtures/parquet/small-pages.parquet'))).forEach(visit);
  });

  test('only the chosen columns are read', async () => {
    const source = parquet('fixtures/parquet/snappy.parquet', { columns: ['turns', 'id'] });
    expect((await readValues(source)).map((row) => Object.keys(row).sort())).toEqual(
      rows.map(() => ['id', 'turns']),
    );
    expect((await source.plan()).bytes).toBeLessThan(
      (await parquet('fixtures/parquet/snappy.parquet').plan()).bytes / 3,
    );
  });

  test('a row names its file, row group and number in the file', async () => {
    const items = await readAll(parquet('fixtures/parquet/snappy.parquet'));
    expect(items.map(({ origin }) => origin.row)).toEqual(rows.map((_, i) => i));
    expect(items.map(({ origin }) => origin.rowGroup)).toEqual(rows.map((_, i) => Math.floor(i / 16)));
    expect(new Set(items.map(({ origin }) => origin.file))).toEqual(
      new Set(['fixtures/parquet/snappy.parquet']),
    );
  });
});
