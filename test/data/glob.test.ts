import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { expandGlobs } from '../../src/data/glob.js';
import { messageFrom, temporaryFolder } from './helpers.js';

let folder: string;

beforeEach(() => {
  folder = temporaryFolder();
  for (const file of [
    'b-1.parquet',
    'b-0.parquet',
    'b-10.parquet',
    'a.txt',
    '.hidden.parquet',
    'x/c.parquet',
  ]) {
    mkdirSync(join(folder, file, '..'), { recursive: true });
    writeFileSync(join(folder, file), '');
  }
  mkdirSync(join(folder, 'x/y'));
  writeFileSync(join(folder, 'x/y/d.parquet'), '');
  writeFileSync(join(folder, 'odd[1].parquet'), '');
});

async function expand(...patterns: string[]): Promise<string[]> {
  const found = await expandGlobs(patterns.map((pattern) => join(folder, pattern)));
  return found.map((file) => relative(folder, file));
}

describe('expandGlobs', () => {
  test.each([
    ['b-?.parquet', ['b-0.parquet', 'b-1.parquet']],
    ['b-*.parquet', ['b-0.parquet', 'b-1.parquet', 'b-10.parquet']],
    ['b-[1-9].parquet', ['b-1.parquet']],
    ['b-[!1].parquet', ['b-0.parquet']],
    ['{a.txt,b-0.*}', ['a.txt', 'b-0.parquet']],
    ['b-{1,10}.parquet', ['b-1.parquet', 'b-10.parquet']],
    ['*/*.parquet', ['x/c.parquet']],
    ['x/**/*.parquet', ['x/c.parquet', 'x/y/d.parquet']],
    ['x/**', ['x/c.parquet', 'x/y/d.parquet']],
    ['**/d.parquet', ['x/y/d.parquet']],
    ['.hidden*', ['.hidden.parquet']],
    ['odd[1].parquet', ['odd[1].parquet']],
  ])('%s finds %j', async (pattern, files) => {
    expect(await expand(pattern)).toEqual(files);
  });

  test('files come in code-unit order within a pattern, patterns in their own order, each file once', async () => {
    expect(await expand('x/c.parquet', 'b-*.parquet', 'b-0.parquet')).toEqual([
      ...['x/c.parquet', 'b-0.parquet', 'b-1.parquet', 'b-10.parquet'],
    ]);
  });

  test('a relative pattern gives relative paths', async () => {
    expect(await expandGlobs('fixtures/easy-vqa/*.parquet')).toEqual([
      'fixtures/easy-vqa/test.parquet',
      'fixtures/easy-vqa/train.parquet',
    ]);
  });

  test('a link to a file is a file; ** does not follow links to folders', async () => {
    symlinkSync(join(folder, 'a.txt'), join(folder, 'link.txt'));
    symlinkSync(folder, join(folder, 'x/loop'));
    expect(await expand('link.*')).toEqual(['link.txt']);
    expect(await expand('**/c.parquet')).toEqual(['x/c.parquet']);
  });

  test('a missing file says where its path leads', async () => {
    expect(await messageFrom(expandGlobs('data/none.parquet'))).toBe(
      `DataError: file "data/none.parquet": expected an existing file, received none of that name; ` +
        `correct the path, which leads to ${join(process.cwd(), 'data/none.parquet')}`,
    );
  });

  test('a pattern without match says what the folder holds', async () => {
    const pattern = join(folder, 'x/train-*.parquet');
    expect(await messageFrom(expandGlobs(pattern))).toBe(
      `DataError: files "${pattern}": expected at least one file to match, received none among the 2 entries of ` +
        `${join(folder, 'x')} (c.parquet, y); correct the pattern, or put the files there; it is sought from ${process.cwd()}`,
    );
    expect(await messageFrom(expandGlobs(join(folder, 'nowhere/*.parquet')))).toContain(
      `received none: there is no folder ${join(folder, 'nowhere')} to read`,
    );
  });

  test('a folder asks for the files in it', async () => {
    expect(await messageFrom(expandGlobs(folder))).toBe(
      `DataError: files "${folder}": expected a file or a pattern, received a folder; ` +
        `name the files in it, such as "${join(folder, '*.parquet')}"`,
    );
  });
});
