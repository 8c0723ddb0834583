// The source of JSON lines: what every source owes, and lines of all kinds.

import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { jsonl } from '../../src/data/jsonl.js';
import { messageFrom, readAll, readValues, temporaryFolder } from './helpers.js';
import { describeSource } from './source-contract.js';

interface IdRow {
  readonly id: number;
}

const linesOf = (from: number, to: number): string =>
  Array.from(
    { length: to - from },
    (_, i) => `${JSON.stringify({ id: from + i, text: `zeile ${i} ö` })}\n`,
  ).join('');

const FOLDER = mkdtempSync(join(tmpdir(), 'sluice-jsonl-'));
afterAll(() => rmSync(FOLDER, { recursive: true }));

/** Two files of 13 and 10 rows, ids 0 to 22. */
function files(suffix: string, pack: (text: string) => string | Uint8Array): string {
  writeFileSync(join(FOLDER, `a.jsonl${suffix}`), pack(linesOf(0, 13)));
  writeFileSync(join(FOLDER, `b.jsonl${suffix}`), pack(linesOf(13, 23).trimEnd()));
  return join(FOLDER, `*.jsonl${suffix}`);
}

const PLAIN = files('', (text) => text);
const GZIPPED = files('.gz', gzipSync);

function fileOf(text: string | Uint8Array, name = 'rows.jsonl'): string {
  const file = join(temporaryFolder(), name);
  writeFileSync(file, text);
  return file;
}

const idOf = (item: object): number => (item as { value: IdRow }).value.id;

describe('of files', () => {
  describeSource(23, 1500, (options) => jsonl(PLAIN, { chunkLines: 3, ...options }), idOf);
});

describe('of compressed files', () => {
  const make = (options: object) => jsonl(GZIPPED, { chunkLines: 3, ...options });
  describeSource(23, 1500, make, idOf);

  test('gzip and Zstandard give the same rows, members one after another too', async () => {
    const plain = await readValues(jsonl(PLAIN));
    expect(await readValues(jsonl(GZIPPED))).toEqual(plain);
    const twice = Buffer.concat([gzipSync(linesOf(0, 13)), gzipSync(linesOf(13, 23))]);
    expect(await readValues<IdRow>(jsonl(fileOf(twice)))).toHaveLength(23);
    const zstd = readFileSync('fixtures/jsonl/rows.jsonl.zst');
    const read = await readValues<IdRow>(jsonl('fixtures/jsonl/rows.jsonl.zst', { chunkLines: 50 }));
    expect(read.map(({ id }) => id)).toEqual([...Array(2000).keys()]);
    expect(await readValues(jsonl(fileOf(Buffer.concat([zstd, zstd]))))).toHaveLength(4000);
  });

  test('one that is cut is refused before the first row', async () => {
    const file = fileOf(gzipSync(linesOf(0, 500)).subarray(0, 600), 'cut.jsonl.gz');
    expect(await messageFrom(readAll(jsonl(file)))).toMatch(
      /cut.jsonl.gz: expected gzip data .* truncated or damaged/,
    );
    const zstd = fileOf(readFileSync('fixtures/jsonl/rows.jsonl.zst').subarray(0, 900), 'cut.jsonl.zst');
    expect(await messageFrom(readAll(jsonl(zstd)))).toMatch(
      /cut.jsonl.zst: expected zstd data .* truncated or damaged/,
    );
  });
});

describe('lines', () => {
  test('empty ones, Windows ends and a byte order mark are passed over', async () => {
    const source = jsonl(fileOf('\ufeff{"id":0}\r\n\r\n\n{"id":1}\r\n{"id":2}'));
    const items = await readAll(source);
    expect(items.map((item) => 'value' in item && item.value)).toEqual([{ id: 0 }, { id: 1 }, { id: 2 }]);
    expect(items.map(({ origin }) => origin.row)).toEqual([0, 3, 4]);
  });

  test('bad ones are faults that name file and line, and the rest is read', async () => {
    const lines = ['{"id":0}', '{"id":', '[1]', 'null', '7', 'id,text', '{"id":1}'].join('\n');
    const bytes = Buffer.concat([
      Buffer.from(`${lines}\n{"id":"`),
      Buffer.from([0xff]),
      Buffer.from('"}\n{"id":2}\n'),
    ]);
    const file = fileOf(bytes, 'bad.jsonl');
    const items = await readAll(jsonl(file, { chunkLines: 4 }));
    const told = items.map((item) => ('error' in item ? (item.error as Error).message : item.value));
    expect(told.filter((what) => typeof what === 'object')).toEqual([{ id: 0 }, { id: 1 }, { id: 2 }]);
    expect(told[1]).toContain(`${file}, line 2: expected a JSON object`);
    expect(told[2]).toContain('line 3: expected a JSON object, received an array');
    expect(told[3]).toContain('line 4: expected a JSON object, received null');
    expect(told[4]).toContain('line 5: expected a JSON object, received 7');
    expect(told[7]).toContain('line 8: expected UTF-8 text');
    expect(items[7]!.origin).toEqual({ file, rowGroup: 1, row: 7 });
  });

  test('longer ones than the bound are faults, and are not read', async () => {
    const long = `{"id":1,"text":"${'x'.repeat(3_000_000)}"}`;
    const file = fileOf(`{"id":0}\n${long}\n{"id":2}\n`);
    const items = await readAll(jsonl(file, { maxLineBytes: 1000 }));
    expect(items.map((item) => ('error' in item ? (item.error as Error).message : item.value))).toEqual([
      { id: 0 },
      expect.stringMatching(/line 2: expected at most 1000 bytes \(maxLineBytes\), received about 3000/),
      { id: 2 },
    ]);
    const { heldBytes } = await jsonl(file, { maxLineBytes: 1000 }).plan();
    expect(heldBytes).toBeLessThan(2000);
  });

  test('fields of any name survive, and columns choose among them', async () => {
    const file = fileOf('{"__proto__":1,"a":{"b":null},"c":"d"}\n{"c":"e"}\n');
    const [row] = await readValues<Record<string, unknown>>(jsonl(file));
    expect(Object.keys(row!)).toEqual(['__proto__', 'a', 'c']);
    expect(await readValues(jsonl(file, { columns: ['c', 'a'] }))).toEqual([
      { c: 'd', a: { b: null } },
      { c: 'e', a: null },
    ]);
  });

  test('explode makes several items of one, and none is a fault', async () => {
    const file = fileOf('{"turns":[1,2]}\n{"turns":[]}\n{"turns":[3]}\n');
    const items = await readAll(jsonl(file, { explode: ({ turns }: { turns: number[] }) => turns }));
    expect(items.map((item) => ('error' in item ? 'fault' : item.value))).toEqual([1, 2, 'fault', 3]);
  });

  test('heavier items than the bound are faults', async () => {
    const source = jsonl(fileOf('{"id":0}\n{"text":"a long one"}\n'), { maxItemBytes: 20 });
    expect(source.maxItemBytes).toBe(20);
    expect((await readAll(source)).map((item) => 'error' in item)).toEqual([false, true]);
  });
});

describe('files', () => {
  test.each([
    ['PAR1....', 'received a Parquet file; read it with parquet(...)'],
    ['ARROW1..', 'received an Arrow file; read it with arrow(...)'],
    ['[{"id":0}]', 'received a JSON array'],
    ['{\n  "id": 0\n}', 'received a JSON object over several lines'],
    ['\xff\xfe{', 'received UTF-16 text'],
    ['abc\0def', 'received bytes that are no text'],
    ['', 'expected at least one row, received none'],
    ['\n\n', 'expected at least one row, received none'],
  ])('that begin with %j are refused', async (text, message) => {
    const file = fileOf(Buffer.from(text, 'latin1'));
    expect(await messageFrom(jsonl(file).plan())).toContain(message);
  });

  test('that are missing are named', async () => {
    expect(await messageFrom(jsonl('nowhere.jsonl').plan())).toContain('nowhere.jsonl');
  });

  test('that change during the run end it', async () => {
    const file = fileOf(linesOf(0, 20));
    const reading = (async () => {
      for await (const { origin } of jsonl(file, { chunkLines: 2 }).open(new AbortController().signal)) {
        if (origin.row === 1) appendFileSync(file, '{"id":99}\n');
      }
    })();
    expect(await messageFrom(reading)).toMatch(/expected the file that the run began with/);
  });

  test('have fingerprints of their text, not of their folder or compression', async () => {
    const [a, b, c] = [fileOf(linesOf(0, 9)), fileOf(linesOf(0, 9)), fileOf(linesOf(0, 9).replace('4', '5'))];
    expect(await jsonl(a).fingerprint()).toBe(await jsonl(b).fingerprint());
    expect(await jsonl(a).fingerprint()).not.toBe(await jsonl(c).fingerprint());
    expect(await jsonl(a).fingerprint()).toBe(await jsonl(fileOf(gzipSync(linesOf(0, 9)))).fingerprint());
  });

  test('have a plan', async () => {
    const plan = await jsonl(PLAIN).plan();
    expect(plan).toMatchObject({ numRows: 23 });
    expect(plan.files).toHaveLength(2);
    expect(plan.heldBytes).toBeGreaterThan(0);
  });
});
