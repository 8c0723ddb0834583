// What people read when a file is not what it should be.

import { chmodSync, copyFileSync, readFileSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parquetMetadata } from 'hyparquet';
import { parquetWriteFile } from 'hyparquet-writer';
import { beforeEach, describe, expect, test } from 'vitest';
import { ParquetFile } from '../../src/data/parquet-file.js';
import { parquet, type ParquetOptions } from '../../src/data/parquet.js';
import { DataError } from '../../src/errors.js';
import { EASY_VQA, messageFrom, readAll, temporaryFolder, writeRows, type IdRow } from './helpers.js';

const TRAIN = `${EASY_VQA}/train.parquet`;
let folder: string;
let file: string;

beforeEach(() => {
  folder = temporaryFolder();
  file = join(folder, 'rows.parquet');
});

const read = (options?: ParquetOptions, path = file) => messageFrom(readAll(parquet(path, options)));

describe('a file that cannot be opened', () => {
  test('is missing', async () => {
    expect(await read()).toBe(
      `DataError: file "${file}": expected an existing file, received none of that name; correct the path, which leads to ${file}`,
    );
  });

  test('went missing after it was found', async () => {
    expect(await messageFrom(ParquetFile.open(file))).toBe(
      `DataError: ${file}: expected a readable Parquet file, received no such file; correct the path`,
    );
  });

  test('is a folder', async () => {
    expect(await messageFrom(ParquetFile.open(folder))).toBe(
      `DataError: ${folder}: expected a readable Parquet file, received a folder; name the files in it`,
    );
  });

  test('may not be read', async (context) => {
    if (process.getuid?.() === 0) context.skip('root may read every file');
    writeRows(file, { numRows: 3, rowGroupSize: 3 });
    chmodSync(file, 0);
    expect(await read()).toBe(
      `DataError: ${file}: expected a readable Parquet file, received permission denied; make it readable: chmod a+r ${file}`,
    );
  });
});

describe('a file that is not Parquet', () => {
  test.each([
    [
      'text',
      'id,answer\n1,yes\n',
      '16 bytes that begin with "id,a"',
      'name Parquet files only, or convert this one',
    ],
    ['nothing', '', 'an empty file', 'name Parquet files only, or convert this one'],
    ['one byte', 'P', '1 bytes that begin with "P"', 'name Parquet files only, or convert this one'],
    [
      'a git-lfs pointer',
      'version https://git-lfs.github.com/spec/v1\n',
      '43 bytes that begin with "vers"',
      'fetch it with git lfs pull',
    ],
  ])('holds %s', async (_, content, received, remedy) => {
    writeFileSync(file, content);
    expect(await read()).toBe(
      `DataError: ${file}: expected a Parquet file, which begins with "PAR1", received ${received}; ${remedy}`,
    );
  });

  test('is encrypted', async () => {
    writeFileSync(file, 'PAR1........PARE');
    expect(await read()).toBe(
      `DataError: ${file}: expected a Parquet file in the clear, received an encrypted one; ` +
        'decrypt it first; encrypted Parquet is not supported',
    );
  });

  test.each([4, 7, 11, 12, 100, 1_000_000, 1_448_955])('is truncated to %i bytes', async (size) => {
    copyFileSync(TRAIN, file);
    truncateSync(file, size);
    expect(await read()).toMatch(
      /^DataError: .*: expected a footer and "PAR1" at its end, received .*; it is truncated: fetch or write it again$/,
    );
  });

  test('has a footer that claims to be longer than the file', async () => {
    const bytes = readFileSync(TRAIN);
    bytes.writeUInt32LE(0xffffffff, bytes.length - 8);
    writeFileSync(file, bytes);
    expect(await read()).toBe(
      `DataError: ${file}: expected a footer and "PAR1" at its end, received a footer longer than its 1448956 bytes; ` +
        'it is truncated: fetch or write it again',
    );
  });

  test('has a footer of zeros', async () => {
    const bytes = readFileSync(TRAIN);
    bytes.fill(0, bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8), bytes.length - 8);
    writeFileSync(file, bytes);
    expect(await read()).toBe(
      `DataError: ${file}: expected a footer that can be read, received fields that contradict each other; ` +
        'the file is damaged: fetch or write it again',
    );
  });
});

describe('columns', () => {
  test('that are missing are named, beside those that exist', async () => {
    expect(await read({ columns: ['images', 'question', 'answer'] }, TRAIN)).toBe(
      `DataError: ${TRAIN}: expected columns question, answer, received columns ` +
        'images: list<struct<bytes: binary, path: string>>; texts: list<struct<user: string, assistant: string>>; ' +
        'choose among those that exist',
    );
  });

  test('of another type say which they have', async () => {
    const columns = { images: 'list<struct<bytes: string>>' };
    expect(await read({ columns }, TRAIN)).toBe(
      `DataError: ${TRAIN}, column images: expected list<struct<bytes: string>>, ` +
        'received list<struct<bytes: binary, path: string>>; correct the expected type, or the data',
    );
  });

  test('of the expected types are read', async () => {
    const columns = { images: 'list<struct<bytes: binary>>', texts: 'list<struct<assistant, user: string>>' };
    expect((await readAll(parquet(TRAIN, { columns }))).length).toBe(4000);
  });

  test('that differ between files are refused before the run', async () => {
    writeRows(file, { numRows: 3, rowGroupSize: 3 });
    const other = join(folder, 'z.parquet');
    parquetWriteFile({ filename: other, columnData: [{ name: 'id', data: ['a'], type: 'STRING' }] });
    expect(await read({ columns: ['id'] }, join(folder, '*'))).toBe(
      `DataError: ${other}, column id: expected int32, as in ${file}, received string; ` +
        'read files of one kind, or choose the columns that all of them have',
    );
    expect(await read({}, join(folder, '*'))).toContain(`${other}, column id: expected int32`);
  });
});

describe('a data set', () => {
  test('without rows is an error', async () => {
    parquetWriteFile({ filename: file, columnData: [{ name: 'id', data: [], type: 'INT32' }] });
    expect(await read()).toBe(
      `DataError: ${file}: expected at least one row, received none; name files that hold data`,
    );
  });

  test('may have empty files beside full ones', async () => {
    parquetWriteFile({
      filename: join(folder, 'empty.parquet'),
      columnData: [{ name: 'id', data: [], type: 'INT32' }],
    });
    writeRows(file, { numRows: 3, rowGroupSize: 3 });
    expect((await readAll(parquet(join(folder, '*'), { columns: ['id'] }))).length).toBe(3);
  });

  test('with a row group beyond the limit is refused before the run', async () => {
    writeRows(file, { numRows: 4, rowGroupSize: 2, blobBytes: 1000 });
    expect(await read({ maxRowGroupBytes: 500 })).toMatch(
      /rows\.parquet, row group 0: expected at most 500 bytes when decoded \(maxRowGroupBytes\), received \d+; choose fewer columns, raise the limit, or write the file with smaller row groups$/,
    );
  });

  test('that is written to while it is read stops the run', async () => {
    writeRows(file, { numRows: 30, rowGroupSize: 2 });
    const iterator = parquet(file).open(new AbortController().signal)[Symbol.asyncIterator]();
    await iterator.next();
    utimesSync(file, 0, 0);
    const rest = async () => {
      while (!(await iterator.next()).done);
    };
    expect(await messageFrom(rest())).toMatch(
      /^DataError: .*rows\.parquet: expected the file that the run began with, of \d+ bytes, received one of \d+ bytes, written since; leave data files alone while a run reads them, and start it again$/,
    );
  });
});

describe('damage inside a file', () => {
  /** Overwrites the beginning of the blobs' page in one of four row groups of ten rows. */
  function damage(group: number): void {
    writeRows(file, { numRows: 40, rowGroupSize: 10, blobBytes: 50 });
    const bytes = readFileSync(file);
    const { row_groups } = parquetMetadata(bytes);
    const { dictionary_page_offset, data_page_offset } = row_groups[group]!.columns[1]!.meta_data!;
    const start = Number(dictionary_page_offset ?? data_page_offset);
    writeFileSync(file, bytes.fill(0xff, start, start + 8));
  }

  test('faults the rows of that row group, each with file, row and reason; the rest is read', async () => {
    damage(2);
    const items = await readAll(parquet<IdRow>(file));
    expect(items.length).toBe(40);
    const faults = items.filter((item) => 'error' in item);
    expect(faults.map(({ origin }) => origin.row)).toEqual([20, 21, 22, 23, 24, 25, 26, 27, 28, 29]);
    expect(faults.map(({ origin }) => origin.rowGroup)).toEqual(Array(10).fill(2));
    for (const { error } of faults) {
      expect(error).toBeInstanceOf(DataError);
      expect((error as Error).message).toMatch(
        /rows\.parquet, row group 2, column blob: expected pages that can be decoded, received page \d: .*; the file is damaged here: fetch or write it again$/,
      );
    }
    const good = items.flatMap((item) => ('value' in item ? [item.value.id] : []));
    expect(good).toEqual([...Array(40).keys()].filter((id) => id < 20 || id >= 30));
  });

  test('is mixed in like other rows when shuffled, and comes once an epoch', async () => {
    damage(1);
    const items = await readAll(parquet<IdRow>(file, { shuffle: { seed: 1 }, epochs: 2 }));
    expect(items.filter((item) => 'error' in item).length).toBe(20);
    expect(items.length).toBe(80);
  });

  test('in a column that is not chosen does not matter', async () => {
    damage(1);
    const items = await readAll(parquet<IdRow>(file, { columns: ['id'] }));
    expect(items.filter((item) => 'error' in item)).toEqual([]);
  });

  test('is found by a page checksum', async () => {
    const bytes = readFileSync('fixtures/parquet/gzip-checksums.parquet');
    bytes[200]! ^= 1;
    writeFileSync(file, bytes);
    const [fault] = (await readAll(parquet(file))).filter((item) => 'error' in item);
    expect((fault!.error as Error).message).toContain(
      'received page 0: its checksum is wrong: the bytes have changed since they were written',
    );
  });

  test('of one string faults its row alone', async () => {
    const data = ['good', 'bad!', 'fine'];
    parquetWriteFile({
      filename: file,
      codec: 'UNCOMPRESSED',
      statistics: false,
      columnData: [{ name: 'text', data, type: 'STRING' }],
    });
    const bytes = readFileSync(file);
    bytes[bytes.indexOf('bad!')] = 0xff;
    writeFileSync(file, bytes);
    const items = await readAll(parquet(file));
    expect(items.map((item) => ('error' in item ? (item.error as Error).message : item.value))).toEqual([
      { text: 'good' },
      `${file}, row 1, text: expected a readable value, received a string that is not UTF-8; ` +
        'the row is left out; mend it in the file to have it',
      { text: 'fine' },
    ]);
  });

  test('a row heavier than maxItemBytes is a fault', async () => {
    writeRows(file, { numRows: 2, rowGroupSize: 2, blobBytes: 100 });
    const [item] = await readAll(parquet(file, { maxItemBytes: 50 }));
    expect('error' in item! && (item.error as Error).message).toBe(
      `${file}, row 0: expected at most 50 bytes (maxItemBytes), received 124; ` +
        'the row is left out; raise the limit to have it',
    );
  });
});
