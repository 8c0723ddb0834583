import { describe, expect, test } from 'vitest';
import { BadCell, bytesOf, cleanCells } from '../../src/data/cells.js';

describe('bytesOf', () => {
  test.each([
    [null, 0],
    [undefined, 0],
    [1.5, 8],
    [true, 8],
    [1n, 16],
    ['abc', 6],
    [new Date(0), 8],
    [new Uint8Array(5), 5],
    [new Uint8Array(10).subarray(2, 4), 2],
    [new Float32Array(5), 20],
    [[1, 2], 32],
    [{ a: new Uint8Array(3), b: [null] }, 8 + 3 + 8 + 8],
  ])('%s weighs %i bytes', (value, bytes) => {
    expect(bytesOf(value)).toBe(bytes);
  });
});

describe('cleanCells', () => {
  test('copies bytes out of the buffers that they are views of', () => {
    const page = new Uint8Array(1000).fill(7);
    const row = { images: [{ bytes: page.subarray(10, 13) }] };
    const { images } = cleanCells(row, 'copy', () => 'row 0');
    expect(images[0]!.bytes).toEqual(new Uint8Array([7, 7, 7]));
    expect(images[0]!.bytes.buffer.byteLength).toBe(3);
    expect(cleanCells(row, 'view', () => 'row 0').images[0]!.bytes.buffer).toBe(page.buffer);
  });

  test('makes undefined null at any depth', () => {
    expect(cleanCells({ a: undefined, b: [undefined, { c: undefined }] }, 'copy', () => '')).toStrictEqual({
      a: null,
      b: [null, { c: null }],
    });
  });

  test('passes objects of classes on', () => {
    const date = new Date();
    const url = new URL('file:///a');
    const { seen, where } = cleanCells({ seen: date, where: url }, 'copy', () => '');
    expect(seen).toBe(date);
    expect(where).toBe(url);
  });

  test('a column or field named __proto__ stays a field', () => {
    const row = JSON.parse('{"__proto__": {"polluted": true}}') as Record<string, unknown>;
    const clean = cleanCells(row, 'copy', () => '');
    expect(Object.keys(clean)).toEqual(['__proto__']);
    expect(Object.getPrototypeOf(clean)).toBe(Object.prototype);
  });

  test('throws at a cell that could not be read, with its path', () => {
    expect(() =>
      cleanCells(
        { texts: [{ user: new BadCell('a string that is not UTF-8') }] },
        'copy',
        () => 'a.parquet, row 3',
      ),
    ).toThrow(
      'a.parquet, row 3, texts[0].user: expected a readable value, received a string that is not UTF-8; ' +
        'the row is left out; mend it in the file to have it',
    );
  });
});
