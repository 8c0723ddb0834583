// The source of Arrow files and streams: what every source owes, values of all types, damage.

import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { arrow } from '../../src/data/arrow.js';
import { EASY_VQA, messageFrom, readAll, readValues, temporaryFolder, type IdRow } from './helpers.js';
import { describeSource } from './source-contract.js';

const FIXTURES = 'fixtures/arrow';

const idOf = (item: object): number => (item as { value: IdRow }).value.id;

describe('of streams with changing dictionaries', () => {
  const words = (options: object) =>
    arrow<{ id: number; word: string }>(`${FIXTURES}/words-*.arrow`, options);
  describeSource(23, 100, words, idOf);

  test('each row has the words of its batch, also where batches are shuffled', async () => {
    for (const shuffle of [{ seed: 3, windowBytes: 100 }, { seed: 4 }]) {
      for (const { id, word } of await readValues(words({ shuffle }))) expect(word).toBe(`word ${id}`);
    }
  });
});

describe('of files', () => {
  const numbers = (options: object) => arrow(`${FIXTURES}/many.arrow`, options);
  describeSource(30, 400, numbers, idOf);
});

describe('values', () => {
  const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

  test('are what pyarrow wrote, for each type', async () => {
    const [first, second, third, fourth] = await readValues<Record<string, unknown>>(
      arrow(`${FIXTURES}/values.arrow`),
    );
    expect(first).toEqual({
      id: 0,
      int8: 1,
      uint16: 1,
      int64: 2n ** 53n + 1n,
      uint64: 2n ** 64n - 1n,
      half: 1.5,
      float: 1.5,
      double: 0.1,
      bool: true,
      text: 'a',
      large_text: 'a',
      binary: bytes(0, 1),
      large_binary: bytes(0, 1),
      fixed_binary: bytes(97, 98, 99),
      date32: new Date('1969-12-31'),
      date64: new Date('1969-12-31'),
      seconds: new Date('1969-12-31T23:59:59Z'),
      millis: new Date('1969-12-31T23:59:59.999Z'),
      micros: new Date('1969-12-31T23:59:59.999Z'),
      nanos: new Date('1969-12-31T23:59:59.999Z'),
      time32: 1,
      time64: 1n,
      duration: 1n,
      decimal: 1.25,
      list: [1, 2],
      large_list: ['a'],
      fixed_list: [1, 2],
      struct: { bytes: bytes(1), path: 'a.png' },
      nested: [{ user: 'q', turns: [1n] }],
      map: { a: 1 },
      dictionary: 'cat',
      null: null,
    });
    for (const [name, value] of Object.entries(second!))
      expect([name, value]).toEqual([name, name === 'id' ? 1 : null]);
    expect(third).toMatchObject({
      int64: -(2n ** 63n),
      half: -2,
      decimal: -1.25,
      duration: -2n,
      list: [],
      map: {},
    });
    expect(third).toMatchObject({ text: '', binary: bytes(), struct: { bytes: null, path: 'c' } });
    expect(fourth).toMatchObject({
      text: 'größer 😀',
      list: [null, 4],
      decimal: 123456789012.01,
      int64: 2n ** 63n - 1n,
    });
  });

  test.each(['values-stream', 'values-lz4', 'values-zstd-stream'])(
    'are the same in %s.arrow',
    async (name) => {
      const expected = await readValues(arrow(`${FIXTURES}/values.arrow`));
      expect(await readValues(arrow(`${FIXTURES}/${name}.arrow`))).toEqual(expected);
    },
  );

  test('own their bytes', async () => {
    const [row] = await readValues<{ binary: Uint8Array }>(arrow(`${FIXTURES}/values.arrow`));
    expect(row!.binary.buffer.byteLength).toBe(2);
  });

  test('of views and unions are read; text that is no UTF-8 costs its row', async () => {
    expect(await readValues(arrow(`${FIXTURES}/views.arrow`))).toEqual([
      { text: 'short', binary: bytes(0) },
      { text: null, binary: null },
      { text: 'longer than twelve bytes', binary: new Uint8Array(40).fill(120) },
      { text: 'größer', binary: bytes() },
    ]);
    const items = await readAll(arrow(`${FIXTURES}/union-broken-text.arrow`));
    expect(items.map((item) => ('error' in item ? (item.error as Error).message : item.value))).toEqual([
      { either: 7, text: 'ok' },
      expect.stringMatching(/row 1, text: expected a readable value, received text that is not UTF-8/),
      { either: 8, text: 'ok' },
    ]);
  });

  test('of dictionaries that grow, or are replaced in a stream, are those of their batch', async () => {
    const labels = async (name: string, options = {}) =>
      (await readValues<{ id: number; label: string }>(arrow(`${FIXTURES}/${name}`, options)))
        .sort((a, b) => a.id - b.id)
        .map(({ label }) => label)
        .join('');
    expect(await labels('deltas.arrow')).toBe('abca');
    expect(await labels('replaced-stream.arrow')).toBe('abcaxyyy');
    expect(await labels('replaced-stream.arrow', { shuffle: { seed: 2 } })).toBe('abcaxyyy');
  });
});

describe('columns', () => {
  test('are chosen, and their types checked before the run', async () => {
    const file = `${FIXTURES}/values.arrow`;
    const [row] = await readValues(arrow(file, { columns: ['text', 'id'] }));
    expect(row).toEqual({ id: 0, text: 'a' });
    const typed = arrow(file, {
      columns: { struct: 'struct<bytes: binary>', list: 'list<int>', dictionary: 'string' },
    });
    await typed.plan();
    expect(await messageFrom(arrow(file, { columns: ['nothing'] }).plan())).toMatch(
      /expected column nothing, received columns id: int32; int8: int8/,
    );
    expect(await messageFrom(arrow(file, { columns: { text: 'binary' } }).plan())).toMatch(
      /column text: expected binary, received string/,
    );
  });

  test('of types that are not read are refused, unless others are chosen', async () => {
    const file = `${FIXTURES}/intervals.arrow`;
    expect(await messageFrom(arrow(file).plan())).toMatch(/column wait: expected a type that can be read/);
    expect(await readValues(arrow(file, { columns: ['id'] }))).toEqual([{ id: 1 }]);
  });

  test('of files read as one are the same', async () => {
    const plan = arrow([`${FIXTURES}/values.arrow`, `${FIXTURES}/deltas.arrow`]).plan();
    expect(await messageFrom(plan)).toMatch(/deltas.arrow, column .*expected .*, as in .*values.arrow/);
  });
});

describe('files', () => {
  test('of other kinds are named, with the source that reads them', async () => {
    const parquet = `${EASY_VQA}/test.parquet`;
    expect(await messageFrom(arrow(parquet).plan())).toContain(
      'expected an Arrow file or stream, received a Parquet file; read it with parquet(...)',
    );
    const other = join(temporaryFolder(), 'rows.txt');
    for (const text of ['', '{"id":1}\n', 'abc']) {
      writeFileSync(other, text);
      expect(await messageFrom(arrow(other).plan())).toMatch(/rows.txt: expected an Arrow file or stream/);
    }
    expect(await messageFrom(arrow('nowhere.arrow').plan())).toContain('nowhere.arrow');
  });

  test.each(['values.arrow', 'values-stream.arrow', 'values-lz4.arrow'])(
    '%s, cut anywhere, is refused or read to a message’s end',
    async (name) => {
      const whole = readFileSync(`${FIXTURES}/${name}`);
      const file = join(temporaryFolder(), name);
      for (let size = 0; size < whole.length; size += 97) {
        writeFileSync(file, whole.subarray(0, size));
        const message = await messageFrom(arrow(file).plan());
        // A stream may end behind any of its messages.
        if (message !== 'no error') expect(message).toMatch(/^DataError: .*values/);
        else expect(name).toContain('stream');
      }
    },
  );

  test.each(['values.arrow', 'values-stream.arrow', 'values-lz4.arrow', 'values-zstd-stream.arrow'])(
    '%s, damaged anywhere, is refused, faulted or read, and nothing else happens',
    async (name) => {
      const whole = readFileSync(`${FIXTURES}/${name}`);
      const file = join(temporaryFolder(), name);
      for (let at = 1; at < whole.length; at += 211) {
        const damaged = Uint8Array.from(whole);
        damaged.set([0xff, 0xff, 0x7f, 0x80].slice(0, 1 + (at % 4)), at);
        writeFileSync(file, damaged.subarray(0, whole.length));
        const items = await readAll(arrow(file)).catch((error: Error) => {
          expect([at, error.name]).toEqual([at, expect.stringMatching(/DataError|BatchError/)]);
          return [];
        });
        for (const item of items) if ('error' in item) expect(item.error).toBeInstanceOf(Error);
      }
    },
  );

  test('that change during the run end it', async () => {
    const file = join(temporaryFolder(), 'changing.arrow');
    copyFileSync(`${FIXTURES}/many.arrow`, file);
    const reading = (async () => {
      for await (const { origin } of arrow(file, { readAhead: false }).open(new AbortController().signal)) {
        if (origin.row === 0) truncateSync(file, 1000);
      }
    })();
    expect(await messageFrom(reading)).toMatch(/expected the file that the run began with/);
  });

  test('with batches beyond the bound are refused', async () => {
    expect(await messageFrom(arrow(`${FIXTURES}/values.arrow`, { maxBatchBytes: 500 }).plan())).toMatch(
      /record batch 0: expected at most 500 bytes with its dictionaries, when decoded \(maxBatchBytes\)/,
    );
  });

  test('have fingerprints of their content', async () => {
    const copy = join(temporaryFolder(), 'values.arrow');
    copyFileSync(`${FIXTURES}/values.arrow`, copy);
    const original = await arrow(`${FIXTURES}/values.arrow`).fingerprint();
    expect(await arrow(copy).fingerprint()).toBe(original);
    const bytes = readFileSync(copy);
    bytes[bytes.indexOf('größer')]! ^= 1;
    writeFileSync(copy, bytes);
    expect(await arrow(copy).fingerprint()).not.toBe(original);
  });
});
