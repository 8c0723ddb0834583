// Files made to harm: whatever they claim, reading them takes no more than was agreed, and ends.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { CompressionCodec, ParquetType, SchemaTree } from 'hyparquet';
import { describe, expect, test } from 'vitest';
import { Budget, type ColumnChunk } from '../../src/data/parquet-checks.js';
import { decompress } from '../../src/data/parquet-codecs.js';
import { decodeChunk } from '../../src/data/parquet-pages.js';
import { scanRuns } from '../../src/data/parquet-runs.js';
import { skipStruct } from '../../src/data/parquet-thrift.js';
import { parquet } from '../../src/data/parquet.js';
import { random } from '../../src/data/random.js';
import { DataError } from '../../src/errors.js';
import { messageFrom, readAll, temporaryFolder } from './helpers.js';

// Thrift's compact protocol, as far as page headers need it: [field, value] in ascending order of fields.
type Field = readonly [number, number | readonly Field[]];

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}

function struct(fields: readonly Field[]): number[] {
  let last = 0;
  const bytes = fields.flatMap(([field, value]) => {
    const step = field - last;
    last = field;
    if (typeof value !== 'number') return [step * 16 + 12, ...struct(value)];
    return [step * 16 + 5, ...varint(value < 0 ? -2 * value - 1 : 2 * value)];
  });
  return [...bytes, 0];
}

const PLAIN = 0;
const RLE = 3;
const DELTA_BYTE_ARRAY = 7;
const RLE_DICTIONARY = 8;

interface PageClaim {
  readonly numValues?: number;
  readonly encoding?: number;
  readonly size?: number;
  readonly stored?: number;
}

function dataPage(body: readonly number[] | Uint8Array, claim: PageClaim = {}): number[] {
  const { numValues = 1, encoding = PLAIN, size = body.length, stored = body.length } = claim;
  const page: Field[] = [
    [1, numValues],
    [2, encoding],
    [3, RLE],
    [4, RLE],
  ];
  return [
    ...struct([
      [1, 0],
      [2, size],
      [3, stored],
      [5, page],
    ]),
    ...body,
  ];
}

function dictionaryPage(body: readonly number[], numValues: number): number[] {
  return [
    ...struct([
      [1, 2],
      [2, body.length],
      [3, body.length],
      [
        7,
        [
          [1, numValues],
          [2, PLAIN],
        ],
      ],
    ]),
    ...body,
  ];
}

async function decode(
  bytes: readonly number[],
  options: {
    type?: ParquetType;
    codec?: CompressionCodec;
    optional?: boolean;
    budget?: number;
    numValues?: number;
  } = {},
): Promise<unknown> {
  const {
    type = 'BYTE_ARRAY',
    codec = 'UNCOMPRESSED',
    optional = false,
    budget = 2 ** 20,
    numValues = 1,
  } = options;
  const leaf: SchemaTree = {
    children: [],
    count: 1,
    path: ['x'],
    element: { name: 'x', type, repetition_type: optional ? 'OPTIONAL' : 'REQUIRED' },
  };
  const root: SchemaTree = { children: [leaf], count: 2, path: [], element: { name: 'root' } };
  const chunk: ColumnChunk = {
    schemaPath: [root, leaf],
    type,
    codec,
    start: 4,
    size: bytes.length,
    numValues,
  };
  const signal = new AbortController().signal;
  return decodeChunk(Uint8Array.from(bytes), chunk, new Budget(budget), signal);
}

describe('a page header', () => {
  test('that is honest is believed', async () => {
    expect(await decode(dataPage([2, 0, 0, 0, 7, 8]))).toEqual([new Uint8Array([7, 8])]);
  });

  test('of version 2 may have levels where none are needed', async () => {
    const body = [0x88, 0x01, 2, 0, 0, 0, 7, 8];
    const page: Field[] = [
      [1, 1],
      [2, 0],
      [3, 1],
      [4, PLAIN],
      [5, 0],
      [6, 2],
    ]; // 2 bytes of repetition levels
    const header = struct([
      [1, 3],
      [2, body.length],
      [3, body.length],
      [8, page],
    ]);
    expect(await decode([...header, ...body])).toEqual([new Uint8Array([7, 8])]);
  });

  test('of version 2 whose levels are longer than the page is refused', async () => {
    const page: Field[] = [
      [1, 1],
      [2, 0],
      [3, 1],
      [4, PLAIN],
      [5, 50],
      [6, 0],
    ];
    const bytes = [
      ...struct([
        [1, 3],
        [2, 60],
        [3, 4],
        [8, page],
      ]),
      1,
      2,
      3,
      4,
    ];
    expect(await messageFrom(decode(bytes))).toBe('Error: page 0: levels of 50 bytes in a page of 4');
  });

  test.each<[string, number[], Parameters<typeof decode>[1], string]>([
    [
      'of 2 GB',
      dataPage([1], { size: 2 ** 31 - 1 }),
      { codec: 'SNAPPY' },
      'page 0: a page of 2147483647 bytes with 1048576 of 1048576 left for its row group',
    ],
    [
      'of 2^31 values',
      dataPage([1], { numValues: 2 ** 31 - 1 }),
      {},
      'page 0: 2147483647 values of 68719476704 bytes with 1048575 of 1048576 left for its row group',
    ],
    [
      'of more bytes than the chunk has',
      dataPage([1], { stored: 100 }),
      {},
      'page 0: 100 bytes where its chunk has 1 left',
    ],
    ['of less than no bytes', dataPage([1], { size: -5 }), {}, 'page 0: a page of -5 bytes'],
    ['of less than no values', dataPage([1], { numValues: -1 }), {}, 'page 0: -1 values'],
    [
      'of more values than fit',
      dataPage([0, 0, 0, 0], { numValues: 2 }),
      {},
      'page 0: 2 values of at least 4 bytes in 4',
    ],
    [
      'of an unknown encoding',
      dataPage([0], { encoding: 77 }),
      {},
      'page 0: parquet unsupported encoding: undefined',
    ],
    [
      'with a value longer than its page',
      dataPage([255, 255, 255, 127]),
      {},
      'page 0: Invalid typed array length: 2147483647',
    ],
    [
      'of indices without a dictionary',
      dataPage([1, 2, 0], { encoding: RLE_DICTIONARY }),
      {},
      'page 0: values from a dictionary, and there is none',
    ],
    [
      'with an index beyond the dictionary',
      [...dictionaryPage([0, 0, 0, 0], 1), ...dataPage([8, 2, 200], { encoding: RLE_DICTIONARY })],
      {},
      'page 1: entry 200 of a dictionary of 1',
    ],
    [
      'of a dictionary that its page cannot hold',
      dictionaryPage([0, 0, 0, 0], 2 ** 30),
      {},
      'page 0: 1073741824 values of at least 4 bytes in 4',
    ],
    [
      'with a run of 2^31 levels',
      dataPage([5, 0, 0, 0, 254, 255, 255, 255, 15, 0], { numValues: 2 }),
      { optional: true, numValues: 2 },
      'page 0: a run of 2147483647 values where 2 are announced',
    ],
    [
      'with a run of 2^31 indices',
      [
        ...dictionaryPage([0, 0, 0, 0], 1),
        ...dataPage([8, 254, 255, 255, 255, 15, 0], { encoding: RLE_DICTIONARY }),
      ],
      {},
      'page 1: a run of 2147483647 values where 1 are announced',
    ],
    ['missing altogether', [], {}, 'page 0: the chunk ends after 0 of 1 values'],
    ['cut off', [21, 0, 21], {}, 'page 0: it ends in the middle'],
    [
      'with a list of 2^40 elements',
      [25, 0xfc, ...varint(2 ** 40)],
      {},
      'page 0: a list of 1099511627776 elements in 0 bytes',
    ],
    [
      'of few values, and none after',
      dataPage([0, 0, 0, 0]),
      { numValues: 5 },
      'page 1: the chunk ends after 1 of 5 values',
    ],
  ])('%s is refused', async (_, bytes, options, message) => {
    expect(await messageFrom(decode(bytes, options))).toBe(`Error: ${message}`);
  });

  test('whose shared prefixes would grow without bound is refused', async () => {
    // Value 0 has 100 bytes; each of the 19,999 after it repeats them: 2 MB of 0.2 kB.
    const delta = (first: number, then: number, count: number): number[] => [
      ...[...varint(32768), 1, ...varint(count), ...varint(2 * first)],
      ...[...varint(then >= 0 ? 2 * then : -2 * then - 1), 0],
    ];
    // Lengths are first value plus a constant difference: here the prefix grows by 1 a value.
    const body = [...delta(0, 1, 20_000), ...delta(0, 0, 20_000)];
    const page = dataPage(body, { numValues: 20_000, encoding: DELTA_BYTE_ARRAY });
    expect(await messageFrom(decode(page, { numValues: 20_000 }))).toMatch(
      /page 0: values of 199990000 bytes with \d+ of 1048576 left/,
    );
  });
});

describe('compressed pages', () => {
  test('never yield more than their header says', () => {
    const bomb = gzipSync(Buffer.alloc(10_000_000));
    expect(() => decompress('GZIP', bomb, 1000)).toThrow(/larger than 1000/);
    // A Zstandard frame without its size: 256 blocks that each repeat a byte 128 KiB long.
    const block = (last: number) =>
      [...(2 ** 17 * 8 + 2 + last).toString(16).padStart(6, '0').match(/../g)!]
        .reverse()
        .map((hex) => parseInt(hex, 16));
    const zstd = Uint8Array.from([
      0x28,
      0xb5,
      0x2f,
      0xfd,
      0,
      0x38,
      ...(Array(256)
        .fill([...block(0), 7])
        .flat() as number[]),
      ...block(1),
      7,
    ]);
    expect(() => decompress('ZSTD', zstd, 1000)).toThrow(/1000/);
    const whole = decompress('ZSTD', zstd, 257 * 2 ** 17);
    expect(whole.every((byte) => byte === 7)).toBe(true);
  });

  test('are refused when they ask for gigabytes of history', () => {
    const frame = Uint8Array.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 1, 0, 0]);
    expect(() => decompress('ZSTD', frame, 1000)).toThrow(
      'a Zstandard window of 2147483648 bytes; 134217728 is the most that is accepted',
    );
  });

  test('in LZ4 are read to the end, or refused', () => {
    // "abcd", then 8 bytes from 4 back, then "e".
    const block = Uint8Array.from([0x44, 97, 98, 99, 100, 4, 0, 0x10, 101]);
    expect(Buffer.from(decompress('LZ4_RAW', block, 13)).toString()).toBe('abcdabcdabcde');
    expect(() => decompress('LZ4_RAW', block.subarray(0, 7), 13)).toThrow(
      'a page of 12 bytes where its header says 13',
    );
    expect(() => decompress('LZ4_RAW', block.subarray(0, 6), 13)).toThrow(
      'an LZ4 block that ends in the middle',
    );
    expect(() => decompress('LZ4_RAW', block, 11)).toThrow(
      'an LZ4 copy of 8 bytes from 4 back, after 4 of 11',
    );
    expect(() => decompress('LZ4_RAW', Uint8Array.from([0xf0, 255, 0, 1]), 13)).toThrow(
      '270 LZ4 literals where 1 fit',
    );
  });

  test('of fewer bytes than announced are refused', () => {
    expect(() => decompress('GZIP', gzipSync('short'), 100)).toThrow(
      'a page of 5 bytes where its header says 100',
    );
    expect(() => decompress('LZO', new Uint8Array(3), 3)).toThrow('compression LZO is not supported');
  });
});

describe('scanRuns', () => {
  test('reads runs and packed groups of every width', () => {
    for (let width = 1; width <= 24; width++) {
      const values = Array.from({ length: 16 }, (_, i) => (i * 2654435761) % 2 ** width);
      const packed = new Uint8Array(2 * width);
      values.forEach((value, i) => {
        for (let bit = 0; bit < width; bit++) {
          const at = i * width + bit;
          if (Math.floor(value / 2 ** bit) % 2) packed[at >> 3]! |= 1 << (at & 7);
        }
      });
      const bytes = Uint8Array.from([5, ...packed, 6, ...packed.slice(0, (width + 7) >> 3)]);
      const { max } = scanRuns(bytes, 0, 1 + packed.length, width, 16, -1);
      expect(max, `width ${width}`).toBe(Math.max(...values));
    }
  });

  test('counts the values that equal the top', () => {
    // Three times 1, then eight packed: 0 1 0 1 1 0 0 0, of which five are announced.
    const bytes = Uint8Array.from([6, 1, 3, 0b00011010]);
    expect(scanRuns(bytes, 0, 4, 1, 8, 1)).toEqual({ max: 1, numTop: 6 });
  });
});

describe('skipStruct', () => {
  test('refuses structs nested without end', () => {
    const bytes = new Uint8Array(100_000).fill(0x1c);
    expect(() => skipStruct(new DataView(bytes.buffer), 0)).toThrow('structs nested more than 32 deep');
  });

  test('refuses lists nested without end', () => {
    const bytes = new Uint8Array(100_000).fill(0x19);
    expect(() => skipStruct(new DataView(bytes.buffer), 0)).toThrow('lists nested more than 32 deep');
  });
});

describe('bytes changed at random', () => {
  test.each(['plain', 'snappy', 'gzip-checksums', 'small-pages-v2', 'delta', 'lz4-v2'])(
    '%s.parquet is read, faulted or refused, and nothing else happens',
    async (variant) => {
      const file = join(temporaryFolder(), 'fuzz.parquet');
      const original = readFileSync(`fixtures/parquet/${variant}.parquet`);
      const footer = original.readUInt32LE(original.length - 8);
      for (let seed = 0; seed < 25; seed++) {
        const generator = random(seed);
        const bytes = Buffer.from(original);
        const inFooter = seed % 3 === 0;
        const [start, length] = inFooter
          ? [bytes.length - 8 - footer, footer]
          : [4, bytes.length - 12 - footer];
        for (let i = 0; i <= seed % 4; i++) {
          const at = start + generator.below(length);
          bytes[at] = [generator.below(256), 0xff, 0, bytes[at]! ^ (1 << generator.below(8))][
            generator.below(4)
          ]!;
        }
        writeFileSync(file, bytes);
        try {
          const items = await readAll(parquet(file));
          expect(items.length).toBe(40);
          for (const item of items) if ('error' in item) expect(item.error).toBeInstanceOf(DataError);
        } catch (error) {
          expect(error, `seed ${seed}`).toBeInstanceOf(DataError);
        }
      }
    },
  );
});
