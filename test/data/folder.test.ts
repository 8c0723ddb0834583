// Folders of pictures and clips: what every source owes, captions, labels, metadata, links.

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { folder, type FolderRow } from '../../src/data/folder.js';
import { messageFrom, readAll, readValues, temporaryFolder } from './helpers.js';
import { describeSource } from './source-contract.js';

function fill(dir: string, files: Record<string, string | Uint8Array>): string {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), content);
  }
  return dir;
}

const folderOf = (files: Record<string, string | Uint8Array>): string => fill(temporaryFolder(), files);

/** Rows without their bytes; the message of a fault. */
const told = async (dir: string, options = {}): Promise<unknown[]> =>
  (await readAll(folder(dir, options))).map((item) => {
    if ('error' in item) return (item.error as Error).message;
    const { image, audio, ...rest } = item.value;
    return { path: (image ?? audio)!.path, ...rest };
  });

const MANY = mkdtempSync(join(tmpdir(), 'sluice-folder-'));
afterAll(() => rmSync(MANY, { recursive: true }));
fill(
  MANY,
  Object.fromEntries(Array.from({ length: 21 }, (_, i) => [`${String(i).padStart(2, '0')}.jpg`, `${i}`])),
);
const idOf = (item: object): number => {
  const { image } = (item as { value: FolderRow }).value;
  return Number(Buffer.from(image!.bytes).toString());
};

describe('of pictures', () => {
  // Without `explode` only the list is held, and one chunk holds 64 rows.
  describeSource(21, undefined, (options) => folder(MANY, options), idOf);
});

describe('exploded', () => {
  const twice = (options: object) =>
    folder(MANY, {
      ...options,
      explode: ({ image }: FolderRow) => [0, 1].map((half) => ({ image, half })),
    });
  describeSource(42, undefined, twice, (item) => {
    const { half } = (item as { value: { half: number } }).value;
    return 2 * idOf(item) + half;
  });
});

describe('rows', () => {
  test('come in the order of paths, with caption and label', async () => {
    const dir = folderOf({
      'b.png': 'B',
      'a.JPG': 'A',
      'a.txt': 'a caption\n',
      'dog/1.webp': 'D',
      'cat/old/2.wav': 'W',
      'cat/old/2.txt': 'meow, größer',
      'notes.md': '',
      'lonely.txt': '',
      '.hidden.png': '',
      '.git/x.png': '',
    });
    expect(await told(dir)).toEqual([
      { path: 'a.JPG', text: 'a caption' },
      { path: 'b.png' },
      { path: 'cat/old/2.wav', text: 'meow, größer', label: 'old' },
      { path: 'dog/1.webp', label: 'dog' },
    ]);
    const [first, , third] = await readValues(folder(dir));
    expect(first!.image!.bytes).toEqual(Uint8Array.from(Buffer.from('A')));
    expect(third!.audio!.bytes).toEqual(Uint8Array.from(Buffer.from('W')));
    expect(await told(dir, { media: 'audio' })).toHaveLength(1);
    expect(await folder(dir).plan()).toMatchObject({
      numRows: 4,
      bytes: 4,
      ignored: ['lonely.txt', 'notes.md'],
    });
    const [item] = await readAll(folder(dir));
    expect(item!.origin).toEqual({ file: join(dir, 'a.JPG'), rowGroup: 0, row: 0 });
  });

  test('have the columns of metadata.jsonl, one a line, and faults where a line or its file is missing', async () => {
    const dir = folderOf({
      'x/1.png': '1',
      'x/2.png': '2',
      'x/3.png': '3',
      'x/metadata.jsonl': [
        '{"file_name":"2.png","text":"two","boxes":[1]}',
        '{"file_name":"./1.png","text":"one"}',
        '{"file_name":"2.png","text":"two again"}',
        '{"file_name":"gone.png","text":"none"}',
        '{"file_name":',
        '{"file_name":"../../out.png"}',
        '{"text":"of what?"}',
        '{"file_name":"3.png","image":"mine"}',
      ].join('\n'),
    });
    const metadata = join(dir, 'x/metadata.jsonl');
    expect(await told(dir)).toEqual([
      { path: 'x/1.png', text: 'one', label: 'x' },
      { path: 'x/2.png', text: 'two', boxes: [1], label: 'x' },
      { path: 'x/2.png', text: 'two again', label: 'x' },
      { path: 'x/3.png', label: 'x' },
      expect.stringContaining(
        `${metadata}, row 3: expected a picture or clip at ${join(dir, 'x/gone.png')}, received none`,
      ),
      expect.stringContaining(`${metadata}, line 5: expected a JSON object`),
      expect.stringContaining('line 6: expected a file_name in the folder, received "../../out.png"'),
      expect.stringContaining('line 7: expected a file_name in the folder, received null'),
      expect.stringContaining(
        'line 8: expected no column of the name that the media have, received a column image',
      ),
    ]);
  });

  test('have the columns of metadata.csv as text', async () => {
    const dir = folderOf({
      'a.mp3': 'A',
      'b.mp3': 'B',
      'b.txt': 'replaced',
      'metadata.csv':
        '\ufefffile_name,text,n\r\na.mp3,"said ""no"",\nthen left",1\r\nb.mp3,,2\r\nc.mp3,x\r\n',
    });
    expect(await told(dir)).toEqual([
      { path: 'a.mp3', text: 'said "no",\nthen left', n: '1' },
      { path: 'b.mp3', text: '', n: '2' },
      expect.stringContaining('metadata.csv, line 5: expected 3 cells, as the first line has, received 2'),
    ]);
    const bad = folderOf({ 'a.png': '', 'metadata.csv': 'name\na.png' });
    expect(await messageFrom(folder(bad).plan())).toContain(
      'expected a column file_name, received columns name',
    );
    const quotes = folderOf({ 'a.png': '', 'metadata.csv': 'file_name,t\na.png,a "b" c' });
    expect(await messageFrom(folder(quotes).plan())).toContain('metadata.csv, line 2: expected a comma');
  });

  test('are faults where they are too heavy, changed, gone, or their caption is no UTF-8', async () => {
    const dir = folderOf({
      'a.png': 'A',
      'b.png': 'x'.repeat(5000),
      'c.png': 'C',
      'c.txt': Uint8Array.of(0xff),
      'd.png': 'D',
      'e.png': 'E',
      'f.png': 'F',
    });
    const items = [];
    for await (const item of folder(dir, { maxItemBytes: 1000 }).open(new AbortController().signal)) {
      items.push('error' in item ? (item.error as Error).message : 'row');
      if (items.length > 1) continue;
      writeFileSync(join(dir, 'd.png'), 'longer');
      unlinkSync(join(dir, 'e.png'));
    }
    expect(items).toEqual([
      'row',
      expect.stringContaining('b.png: expected at most 1000 bytes (maxItemBytes), received 5000'),
      expect.stringContaining('c.txt: expected a caption in UTF-8'),
      expect.stringContaining('d.png: expected the file that the run began with'),
      expect.stringContaining('e.png: expected a readable file, received no such file'),
      'row',
    ]);
  });
});

describe('folders', () => {
  test('with links that lead out of them, or nowhere, are refused; links inside are followed to files', async () => {
    const outside = folderOf({ 'secret.png': 'S' });
    const dir = folderOf({ 'real/a.png': 'A' });
    mkdirSync(join(dir, 'also'));
    symlinkSync(join(dir, 'real/a.png'), join(dir, 'also/b.png'));
    symlinkSync(dir, join(dir, 'loop'));
    expect(await told(dir)).toEqual([
      { path: 'also/b.png', label: 'also' },
      { path: 'real/a.png', label: 'real' },
    ]);
    symlinkSync(join(outside, 'secret.png'), join(dir, 'c.png'));
    expect(await messageFrom(readAll(folder(dir)))).toMatch(
      /c.png: expected a link that stays in the folder/,
    );
    unlinkSync(join(dir, 'c.png'));
    symlinkSync(outside, join(dir, 'd'));
    expect(await messageFrom(folder(dir).plan())).toMatch(/d: expected a link that stays in the folder/);
    unlinkSync(join(dir, 'd'));
    symlinkSync(join(dir, 'nowhere.png'), join(dir, 'e.png'));
    expect(await messageFrom(folder(dir).plan())).toMatch(/e.png: .* received one that leads nowhere/);
  });

  test('that are missing, files, or without media are refused', async () => {
    const dir = folderOf({ 'a.md': '' });
    expect(await messageFrom(folder('nowhere').plan())).toContain(
      'expected a folder, received nothing of that name',
    );
    expect(await messageFrom(folder(join(dir, 'a.md')).plan())).toContain(
      'expected a folder, received a file',
    );
    expect(await messageFrom(folder(dir).plan())).toContain(
      'expected at least one picture or clip, received files such as a.md',
    );
    expect(await messageFrom(folder(folderOf({})).plan())).toContain('received no files');
  });

  test('have fingerprints of their files, captions and metadata', async () => {
    const files = { 'a.png': 'A', 'a.txt': 'cat', 'metadata.jsonl': '{"file_name":"a.png","n":1}' };
    const of = async (changed: Partial<Record<string, string>>) =>
      folder(folderOf({ ...files, ...changed })).fingerprint();
    const original = await of({});
    expect(await of({})).toBe(original);
    for (const changed of [
      { 'a.txt': 'dog' },
      { 'b.png': 'B' },
      { 'metadata.jsonl': '{"file_name":"a.png","n":2}' },
    ]) {
      expect(await of(changed)).not.toBe(original);
    }
  });

  test('of which only metadata.parquet tells are refused rather than misread', async () => {
    const dir = folderOf({ 'a.png': 'A', 'metadata.parquet': 'PAR1' });
    expect(await messageFrom(folder(dir).plan())).toContain('received metadata.parquet');
  });
});
