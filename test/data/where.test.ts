// Predicates: what is asked of rows, what statistics may leave unread, and what is refused.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ColumnMetaData, SchemaTree, Statistics } from 'hyparquet';
import { parquetWriteFile } from 'hyparquet-writer';
import { describe, expect, test } from 'vitest';
import { arrow } from '../../src/data/arrow.js';
import { jsonl } from '../../src/data/jsonl.js';
import { boundsOf } from '../../src/data/parquet-bounds.js';
import { parquet } from '../../src/data/parquet.js';
import { random } from '../../src/data/random.js';
import { rows } from '../../src/data/rows-of.js';
import { mayMatch, satisfiesWhere, type Where } from '../../src/data/where.js';

import { messageFrom, readAll, readValues, temporaryFolder } from './helpers.js';
import { RangeServer } from './range-server.js';

interface Scored {
  readonly id: number;
  readonly split?: string;
  readonly score?: number | null;
  readonly big?: bigint;
}

/** 100 rows in groups of ten: `id` ascends, `split` changes at 50, `score` is null in one group and now and then. */
function write(): string {
  const file = join(temporaryFolder(), 'rows.parquet');
  const ids = Array.from({ length: 100 }, (_, i) => i);
  parquetWriteFile({
    filename: file,
    rowGroupSize: 10,
    columnData: [
      { name: 'id', data: ids, type: 'INT32' },
      { name: 'split', data: ids.map((id) => (id < 50 ? 'train' : 'été')), type: 'STRING' },
      {
        name: 'score',
        data: ids.map((id) => (id % 7 === 0 || (id >= 30 && id < 40) ? null : id / 100)),
        type: 'DOUBLE',
      },
      { name: 'big', data: ids.map((id) => 2n ** 60n + BigInt(id)), type: 'INT64' },
      { name: 'blob', data: ids.map((id) => new Uint8Array(5000).fill(id)), type: 'BYTE_ARRAY' },
    ],
  });
  return file;
}

const idsOf = (read: readonly Scored[]): number[] => read.map(({ id }) => id);

describe('rows', () => {
  test.each<[Where, (row: Scored) => boolean]>([
    [{ split: 'train' }, ({ id }) => id < 50],
    [{ split: { in: ['été', 'none'] } }, ({ id }) => id >= 50],
    [{ split: { gt: 'train' } }, ({ id }) => id >= 50], // é is behind every letter of ASCII
    [{ id: { gte: 20, lt: 31 } }, ({ id }) => id >= 20 && id < 31],
    [
      { id: { ne: 3 }, score: { lte: 0.05 } },
      ({ id, score }) => id !== 3 && score !== null && score! <= 0.05,
    ],
    [{ score: null }, ({ score }) => score === null],
    [{ score: { notNull: true } }, ({ score }) => score !== null],
    [{ score: { ne: 0.5 } }, ({ score }) => score !== null && score !== 0.5],
    [{ big: { gt: 2n ** 60n + 97n } }, ({ id }) => id > 97],
    [{ big: { lt: 2 ** 60 } }, () => false],
  ])('condition %# gives the rows that satisfy it, whatever the source', async (where, expected) => {
    const file = write();
    const all = await readValues(parquet<Scored>(file, { columns: ['id', 'split', 'score', 'big'] }));
    const wanted = idsOf(all.filter(expected));
    const source = parquet<Scored>(file, { where, columns: ['id'] });
    if (wanted.length > 0) {
      expect(await readValues(source)).toEqual(wanted.map((id) => ({ id })));
    } else {
      expect(await messageFrom(readAll(source))).toContain('rows that may satisfy where');
    }
    expect(idsOf(await readValues(rows(all, { where })))).toEqual(wanted);
    expect(idsOf(await readValues(rows(() => all, { where })))).toEqual(wanted);
    if ('big' in where) return;
    const lines = join(temporaryFolder(), 'rows.jsonl');
    writeFileSync(lines, all.map(({ big: _big, ...row }) => JSON.stringify(row)).join('\n'));
    expect(await readValues(jsonl(lines, { where, columns: ['id'] }))).toEqual(wanted.map((id) => ({ id })));
  });

  test('they are none of the stream: shuffled, sharded and resumed as if only they were there', async () => {
    const file = write();
    const options = {
      where: { id: { gte: 15, lt: 78 } },
      shuffle: { seed: 1, windowBytes: 60_000 },
      epochs: 2,
    };
    const whole = await readAll(parquet<Scored>(file, options));
    expect(whole.length).toBe(2 * 63);
    const shards = await Promise.all(
      [0, 1, 2].map((shardIndex) => readAll(parquet<Scored>(file, { ...options, shardIndex, numShards: 3 }))),
    );
    expect(whole.map((_, i) => shards[i % 3]![Math.floor(i / 3)]!.origin)).toEqual(
      whole.map(({ origin }) => origin),
    );
    for (const i of [0, 17, 80, 125]) {
      const rest: unknown[] = [];
      for await (const item of parquet(file, options).open(new AbortController().signal, whole[i]!.cursor)) {
        rest.push(item.origin);
      }
      expect(rest).toEqual(whole.slice(i).map(({ origin }) => origin));
    }
  });

  test('of Arrow files too, also by a column that is not chosen', async () => {
    const file = 'fixtures/arrow/many.arrow';
    const all = await readValues(arrow<Record<string, unknown>>(file));
    const [[column, value]] = Object.entries(all[7]!).filter(([, cell]) =>
      ['string', 'number', 'bigint'].includes(typeof cell),
    ) as [[string, string]];
    const wanted = all.filter((row) => row[column] === value);
    expect(await readValues(arrow(file, { where: { [column]: value } }))).toEqual(wanted);
    expect(await messageFrom(arrow(file, { where: { none: 1 } }).plan())).toMatch(
      /ConfigError.*where\.none/s,
    );
  });
});

describe('row groups', () => {
  test('those that cannot match are neither planned nor fetched', async () => {
    const server = await RangeServer.start();
    const file = readFileSync(write());
    server.files.set('/rows.parquet', file);
    const source = parquet<Scored>(`${server.url}/rows.parquet`, { where: { id: { gte: 42, lt: 58 } } });
    expect(await source.plan()).toMatchObject({ numRowGroups: 2, numRowGroupsSkipped: 8, numRows: 20 });
    server.reset();
    expect(idsOf(await readValues(source))).toEqual(Array.from({ length: 16 }, (_, i) => 42 + i));
    expect(server.calls.length).toBe(2);
    expect(server.sent).toBeLessThan(0.25 * file.length);

    const nulls = parquet(`${server.url}/rows.parquet`, { where: { score: { gte: 0 } } });
    expect(await nulls.plan()).toMatchObject({ numRowGroupsSkipped: 1 }); // the one of nulls alone
    const strings = parquet(`${server.url}/rows.parquet`, { where: { split: 'train' } });
    expect(await strings.plan()).toMatchObject({ numRowGroups: 5 });
  });

  test('of random values and conditions, none is left unread that holds a row', () => {
    const generator = random(9);
    const value = (): number => generator.below(12) - 6;
    for (let draw = 0; draw < 3000; draw++) {
      const cells = Array.from({ length: generator.below(5) }, () => (generator.below(4) ? value() : null));
      const present = cells.filter((cell) => cell !== null);
      const keys = ['eq', 'ne', 'gt', 'gte', 'lt', 'lte'] as const;
      const asked = Object.fromEntries(
        keys.filter(() => generator.below(4) === 0).map((key) => [key, value()]),
      ) as Record<string, unknown>;
      if (generator.below(5) === 0) asked['in'] = [value(), value()];
      if (generator.below(5) === 0) asked['notNull'] = generator.below(2) === 0;
      const where = { x: asked };
      const known = generator.below(4) > 0 && present.length > 0;
      const bounds = {
        numRows: cells.length,
        ...(generator.below(4) > 0 ? { numNulls: cells.length - present.length } : {}),
        // Bounds may be wider than the values.
        ...(known
          ? { min: Math.min(...present) - generator.below(2), max: Math.max(...present) + generator.below(2) }
          : {}),
      };
      const any = cells.some((cell) => satisfiesWhere(where, () => cell));
      if (any) expect(mayMatch(where, () => bounds)).toBe(true);
    }
  });

  const bounds = (element: Partial<SchemaTree['element']>, statistics: Statistics) =>
    boundsOf(
      { element: { name: 'x', ...element }, children: [], count: 1, path: ['x'] },
      { statistics } as ColumnMetaData,
      10,
    );

  test('statistics that are missing, NaN, or of an undefined order are not believed', () => {
    const none = { min: undefined, max: undefined };
    expect(boundsOf(undefined, undefined, 10)).toEqual({ numRows: 10 });
    expect(bounds({ type: 'DOUBLE' }, { min_value: NaN, max_value: 3 })).not.toHaveProperty('min');
    expect(bounds({ type: 'DOUBLE' }, { min_value: 1, max_value: 3 })).toMatchObject({ min: 1, max: 3 });
    expect(bounds({ type: 'INT32' }, { min: 1, max: 3 })).toMatchObject({ min: 1, max: 3 });
    const uint = { type: 'INT32', converted_type: 'UINT_32' } as const;
    expect(bounds(uint, { min: 4294967295, max: 3 })).toMatchObject(none);
    expect(bounds(uint, { min_value: 3, max_value: 4294967295 })).toMatchObject({ min: 3, max: 4294967295 });
    const text = { type: 'BYTE_ARRAY', converted_type: 'UTF8' } as const;
    expect(bounds(text, { min: 'z', max: 'a' })).toMatchObject(none);
    expect(
      bounds({ type: 'BYTE_ARRAY', converted_type: 'DECIMAL' }, { min_value: 'a', max_value: 'b' }),
    ).toMatchObject(none);
    expect(bounds({ type: 'INT96' }, { min_value: 1, max_value: 2 })).toMatchObject(none);
    expect(
      bounds({ type: 'INT32', logical_type: { type: 'DATE' } }, { min_value: 1, max_value: 2 }),
    ).toMatchObject(none);
  });

  test('bounds of text that were cut inside a character still bound it, by bytes', () => {
    const cut = (text: string, length: number): Uint8Array =>
      new Uint8Array(Buffer.from(text)).slice(0, length);
    const limits = { min: cut('été', 1), max: new Uint8Array([0xc3, 0xaa]), numRows: 5 };
    const may = (eq: string): boolean => mayMatch({ x: { eq } }, () => limits);
    expect(may('été')).toBe(true);
    expect(may('zebra')).toBe(false);
    expect(may('ü')).toBe(false);
    // In UTF-16 the emoji's units lie below U+FFFD; in bytes it lies above.
    expect(mayMatch({ x: { gt: '\ufffd' } }, () => ({ min: '😀', max: '😀', numRows: 1 }))).toBe(true);
    expect(satisfiesWhere({ x: { gt: '\ufffd' } }, () => '😀')).toBe(true);
  });
});

describe('refused before the run', () => {
  test.each<[unknown, RegExp]>([
    [
      { splot: 'train' },
      /where\.splot: expected a column of the file, received none of that name; choose among id, split/,
    ],
    [{ split: 5 }, /where\.split: expected text, as the column is \(string\), received 5 \(a number\)/],
    [
      { score: { in: [1, 'a'] } },
      /where\.score: expected a number, as the column is \(float64\), received "a"/,
    ],
    [{ blob: 'a' }, /where\.blob: expected notNull alone for a column of type binary/],
    [{ id: { above: 3 } }, /where\.id/],
    [{ id: {} }, /where\.id/],
    [{ id: NaN }, /where\.id/],
    [{}, /where: expected a condition of at least one column/],
  ])('wrong condition %# is named', async (where, message) => {
    const said = await messageFrom(parquet(write(), { where: where as Where }).plan());
    expect(said).toMatch(/^ConfigError/);
    expect(said).toMatch(message);
  });
});
