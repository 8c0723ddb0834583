import { describe, expect, test } from 'vitest';
import { ParquetFile } from '../../src/data/parquet-file.js';
import { parseType, satisfies, typeText } from '../../src/data/parquet-schema.js';

describe('column types', () => {
  test('are told for every kind of column', async () => {
    const { columns } = await ParquetFile.open('fixtures/parquet/snappy.parquet');
    expect(columns).toEqual({
      id: 'int64',
      small: 'int8',
      int: 'int32',
      uint: 'uint32',
      ulong: 'uint64',
      float: 'float32',
      double: 'float64',
      flag: 'bool',
      text: 'string',
      word: 'string',
      bytes: 'binary',
      fixed: 'binary',
      date: 'date',
      time: 'timestamp',
      price: 'decimal',
      nothing: 'string',
      numbers: 'list<int32>',
      nested: 'list<list<string>>',
      point: 'struct<x: float64, label: string>',
      turns: 'list<struct<user: string, tags: list<string>>>',
      counts: 'map<string, int64>',
      always: 'int32',
    });
  });

  test.each(['string', 'list<int32>', 'map<string, list<any>>', 'struct<a: int, b: list<struct<c: any>>>'])(
    '%s is read and written alike',
    (text) => {
      expect(typeText(parseType(text))).toBe(text);
    },
  );

  test('spaces do not matter, and a field without type may be any', () => {
    expect(typeText(parseType(' struct< a:int ,b > '))).toBe('struct<a: int, b: any>');
  });
});

describe('an expectation', () => {
  test.each([
    ['list<struct<bytes: binary, path: string>>', 'list<struct<bytes: binary>>', true],
    ['list<struct<bytes: binary, path: string>>', 'list<struct>', true],
    ['list<struct<bytes: binary, path: string>>', 'list', true],
    ['list<struct<bytes: binary, path: string>>', 'any', true],
    ['list<struct<bytes: binary>>', 'list<struct<bytes: binary, path: string>>', false],
    ['list<struct<bytes: binary>>', 'list<struct<bytes: string>>', false],
    ['struct<a: int32>', 'struct<toString: any>', false],
    ['list<int32>', 'list<int>', true],
    ['int64', 'int', true],
    ['uint8', 'int', true],
    ['float32', 'float', true],
    ['float32', 'int', false],
    ['decimal', 'number', true],
    ['int32', 'int64', false],
    ['string', 'binary', false],
    ['map<string, int64>', 'map<string, int>', true],
    ['map<string, int64>', 'map<int, int>', false],
  ])('column %s, expected %s: %s', (actual, expected, fits) => {
    expect(satisfies(parseType(actual), parseType(expected))).toBe(fits);
  });

  test.each([
    [
      'int33',
      /^column type "int33": expected a type \(any, int, .*\) at character 0, received "int33"; write it as in/,
    ],
    ['list<int', /: expected ">" at character 8, received its end;/],
    ['string<int>', /: expected no "<" after a type without parts at character 6, received "<";/],
    ['struct<: int>', /: expected a field's name at character 7, received ":";/],
    ['int int', /: expected nothing more at character 4, received "int";/],
    ['', /expected a type .* at character 0, received its end;/],
  ])('%j is refused with the place', (text, message) => {
    expect(() => parseType(text)).toThrow(message);
  });
});
