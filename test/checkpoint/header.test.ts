import { describe, expect, test } from 'vitest';
import { encodeHeader, headerLength, parseHeader } from '../../src/checkpoint/header.js';
import { parseStrictJson } from '../../src/checkpoint/strict-json.js';
import { CheckpointError } from '../../src/errors.js';
import { errorOf, fileBytes } from './files.js';

const file = 'w.safetensors';
const again = 'download or save the file again';

function parse(bytes: Uint8Array): ReturnType<typeof parseHeader> {
  const length = headerLength(bytes.subarray(0, 8), bytes.length, file);
  return parseHeader(bytes.subarray(8, 8 + length), bytes.length, file);
}

/** Message of the fault in a file with this header. */
function fault(header: unknown, dataBytes: number, length?: bigint): string {
  const error = errorOf(() => parse(fileBytes(header, dataBytes, length)));
  expect(error).toBeInstanceOf(CheckpointError);
  return error.message;
}

const f32 = (shape: number[], begin: number, end: number): unknown => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
});

describe('a header that fits its file', () => {
  test('gives names, dtypes, shapes and bytes counted from the file start', () => {
    const header = { b: f32([1], 8, 12), a: f32([2, 1], 0, 8), __metadata__: { format: 'pt' } };
    const { entries, metadata } = parse(fileBytes(header, 12));
    const begin = 8 + JSON.stringify(header).length;
    expect(metadata.format).toBe('pt');
    expect(entries.get('a')).toEqual({ name: 'a', dtype: 'F32', shape: [2, 1], begin, end: begin + 8 });
    expect(entries.get('b')?.end).toBe(begin + 12);
  });

  test('may be empty, have scalars and tensors without elements', () => {
    expect(parse(fileBytes({}, 0)).entries.size).toBe(0);
    const { entries } = parse(fileBytes({ none: f32([0, 5], 0, 0), one: f32([], 0, 4) }, 4));
    expect([...entries.keys()]).toEqual(['none', 'one']);
  });

  test('may name a tensor "__proto__" or "1"', () => {
    const { entries } = parse(
      fileBytes(`{"__proto__":${JSON.stringify(f32([1], 0, 4))},"1":${JSON.stringify(f32([1], 4, 8))}}`, 8),
    );
    expect([...entries.keys()].sort()).toEqual(['1', '__proto__']);
  });

  test('is what encodeHeader writes, aligned to eight bytes', () => {
    const bytes = encodeHeader(
      [
        { name: 'a', dtype: 'F32', shape: [2] },
        { name: 'b', dtype: 'BF16', shape: [3] },
      ],
      { format: 'pt' },
    );
    expect(bytes.length % 8).toBe(0);
    const whole = new Uint8Array(bytes.length + 14);
    whole.set(bytes);
    const { entries } = parse(whole);
    expect(entries.get('b')).toMatchObject({ begin: bytes.length + 8, end: bytes.length + 14 });
  });
});

describe('a malformed header is a CheckpointError that says', () => {
  test('that the file is too short to be one', () => {
    const error = errorOf(() => parse(new Uint8Array(3)));
    expect(error.message).toBe(
      `w.safetensors: expected a safetensors file, which has at least 8 bytes, received 3 bytes; ${again}`,
    );
  });

  test('that the header is longer than the file', () => {
    expect(fault('{}', 4, 1000n)).toBe(
      `w.safetensors: expected a header that ends inside the file of 14 bytes, received a header of 1000 bytes; it is cut off or no safetensors file: ${again}`,
    );
    expect(fault('{}', 4, 2n ** 64n - 1n)).toContain('received a header of 18446744073709551615 bytes');
  });

  test('that the header is longer than headers may be', () => {
    const prefix = fileBytes('', 0, 100_000_001n).subarray(0, 8);
    expect(errorOf(() => headerLength(prefix, 1e9, file)).message).toBe(
      `w.safetensors: expected a header of at most 100000000 bytes, received one of 100000001 bytes; ${again}`,
    );
  });

  test('that the header is not JSON, and where', () => {
    const expected = 'w.safetensors: expected a header of JSON, one object with each key once, received';
    expect(fault('{"a"', 0)).toBe(`${expected} expected ':' at character 4; ${again}`);
    expect(fault('', 0)).toBe(`${expected} the end where a value was expected at character 0; ${again}`);
    expect(fault('[1,2]', 0)).toBe(`${expected} [1,2]; ${again}`);
    expect(fault('{} x', 0)).toContain('received more text after the value at character 3');
    expect(fault('['.repeat(5000), 0)).toContain('received nested more than 16 deep at character');
    const bytes = fileBytes('{"a":1}', 0);
    bytes[10] = 0xff;
    expect(errorOf(() => parse(bytes)).message).toContain('received bytes that are not UTF-8');
  });

  test('that a key is given twice', () => {
    const one = JSON.stringify(f32([1], 0, 4));
    expect(fault(`{"a":${one},"a":${one}}`, 4)).toContain('received the key "a" a second time at character');
    expect(fault('{"a":{"dtype":"F32","dtype":"F32"}}', 0)).toContain('the key "dtype" a second time');
  });

  test('that offsets overlap', () => {
    expect(fault({ a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12)).toBe(
      `w.safetensors: tensor "b": expected data that begin at 8, where tensor "a" ends, received 4: they overlap; ${again}`,
    );
    expect(fault({ a: f32([2], 0, 8), b: f32([2], 0, 8) }, 8)).toContain('received 0: they overlap');
  });

  test('that offsets leave a hole', () => {
    expect(fault({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12)).toBe(
      `w.safetensors: tensor "b": expected data that begin at 4, where tensor "a" ends, received 8: a hole between them; ${again}`,
    );
    expect(fault({ a: f32([1], 4, 8) }, 8)).toContain('expected data that begin at 0, where the data begin');
  });

  test('that offsets leave the file, as of one that is cut off', () => {
    expect(fault({ a: f32([4], 0, 16) }, 12)).toBe(
      `w.safetensors: tensor "a": expected data_offsets inside the file's 12 bytes of data, received [0,16]; ${again}`,
    );
  });

  test('that the file goes on after its last tensor', () => {
    expect(fault({ a: f32([1], 0, 4) }, 5)).toBe(
      `w.safetensors: expected data of 4 bytes, as its tensors add up to, received 5 bytes; ${again}`,
    );
  });

  test('that a begin is after its end', () => {
    expect(fault({ a: f32([1], 8, 4) }, 8)).toBe(
      `w.safetensors: tensor "a": expected data_offsets whose begin is not after their end, received [8,4]; ${again}`,
    );
  });

  test('that the bytes are not those of shape and dtype', () => {
    expect(fault({ a: f32([3], 0, 8) }, 8)).toBe(
      `w.safetensors: tensor "a": expected 12 bytes for F32 [3], received 8 bytes [0,8]; ${again}`,
    );
    const huge = Number.MAX_SAFE_INTEGER;
    expect(fault({ a: f32([huge, huge, 16], 0, 8) }, 8)).toContain('bytes for F32 [9007199254740991');
    expect(fault({ a: f32([...new Array<number>(30).fill(huge), 0], 0, 0) }, 0)).toContain(
      'received 0 bytes',
    );
  });

  test.each([
    ['negative', '[-1]', '[-1]'],
    ['fractional', '[1.5]', '[1.5]'],
    ['huge', '[9007199254740993]', '[9007199254740992]'],
    ['infinite', '[1e999]', '["Infinity"]'],
    ['a string', '["4"]', '["4"]'],
    ['no list', '4', '4'],
  ])('that a size is %s', (_, shape, received) => {
    expect(fault(`{"a":{"dtype":"F32","shape":${shape},"data_offsets":[0,4]}}`, 4)).toBe(
      `w.safetensors: tensor "a": expected a shape of whole numbers from 0 to 2^53 - 1, received ${received}; ${again}`,
    );
  });

  test('that offsets are not two whole numbers', () => {
    expect(fault({ a: { dtype: 'F32', shape: [1], data_offsets: [0, 4, 8] } }, 4)).toContain(
      'expected data_offsets of two whole numbers from 0 to 2^53 - 1, received [0,4,8]',
    );
    expect(fault({ a: { dtype: 'F32', shape: [1] } }, 4)).toContain('received nothing');
  });

  test('that a dtype is unknown', () => {
    expect(fault({ a: { dtype: 'F33', shape: [1], data_offsets: [0, 4] } }, 4)).toMatch(
      /^w\.safetensors: tensor "a": expected a dtype among F64, F32, .*, received "F33"; download/,
    );
    expect(fault({ a: { dtype: 'constructor', shape: [], data_offsets: [0, 0] } }, 0)).toContain(
      'received "constructor"',
    );
  });

  test('that an entry or the metadata is of another kind', () => {
    expect(fault({ a: [1] }, 0)).toContain(
      'tensor "a": expected an object with dtype, shape and data_offsets, received [1]',
    );
    expect(fault({ __metadata__: { n: 1 } }, 0)).toContain(
      'expected __metadata__ to be an object of strings, received {"n":1}',
    );
  });

  test('names from the file escaped and cut', () => {
    const name = `\u001b[31m${'x'.repeat(500)}`;
    const message = fault({ [name]: f32([1], 0, 8) }, 8);
    expect(message).toContain('tensor "\\u001b[31mxxx');
    expect(message.length).toBeLessThan(400);
  });
});

test('mutated headers give a CheckpointError or a header that covers the file', () => {
  const header = {
    __metadata__: { format: 'pt' },
    'layers.0.weight': f32([2, 3], 0, 24),
    'layers.1.weight': { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
    scale: f32([], 32, 36),
  };
  const original = fileBytes(header, 36);
  const random = generator(20);
  let accepted = 0;
  for (let round = 0; round < 600; round++) {
    const bytes = mutate(original, random);
    try {
      const { entries } = parse(bytes);
      accepted++;
      const covered = [...entries.values()].reduce((sum, { begin, end }) => sum + end - begin, 0);
      const length = headerLength(bytes.subarray(0, 8), bytes.length, file);
      expect(covered).toBe(bytes.length - 8 - length);
    } catch (error) {
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as Error).message).toMatch(/^w\.safetensors: .*expected .*, received .*; ./s);
    }
  }
  expect(accepted).toBeLessThan(400);
});

test('strict JSON reads what JSON.parse reads', () => {
  const text = ' {"a":[1,-2.5e3,0,true,false,null,"\\u00e9\\n\\"\\\\"],"b":{},"c":[],"":"" } ';
  expect(JSON.stringify(parseStrictJson(text))).toBe(JSON.stringify(JSON.parse(text)));
  for (const bad of [
    '01',
    '"a\nb"',
    '{"a":}',
    '[1,]',
    '{,}',
    'nul',
    '"\\x"',
    '1 2',
    "{'a':1}",
    '+1',
    '.5',
    '"',
  ]) {
    expect(() => parseStrictJson(bad), bad).toThrow(/at character \d+/);
  }
});

/** Small pseudo-random numbers in [0, 1), mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Overwrites, inserts, removes or repeats a few bytes; digits are the likeliest to be changed to other digits. */
function mutate(original: Uint8Array, random: () => number): Uint8Array {
  let bytes = [...original];
  const pick = (count: number): number => Math.floor(random() * count);
  for (let change = 0; change <= pick(3); change++) {
    const at = pick(bytes.length);
    const kind = random();
    if (kind < 0.3) {
      const digits = bytes.flatMap((byte, i) => (byte >= 0x30 && byte <= 0x39 ? [i] : []));
      bytes[digits[pick(digits.length)] ?? 0] = 0x30 + pick(10);
    } else if (kind < 0.6) bytes[at] = pick(256);
    else if (kind < 0.7) bytes.splice(at, 0, ...new TextEncoder().encode('{}[]",:-e'[pick(9)]));
    else if (kind < 0.8) bytes.splice(at, pick(4));
    else if (kind < 0.9) bytes.splice(at, 0, ...bytes.slice(at, at + pick(40)));
    else bytes = bytes.slice(0, at);
  }
  return Uint8Array.from(bytes);
}
