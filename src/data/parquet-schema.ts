// Column types of a Parquet file as short text, "list<struct<bytes: binary, path: string>>", and checks against the
// same language: what a pipeline file says that it expects.

import type { SchemaElement, SchemaTree } from 'hyparquet';
import { isListLike, isMapLike } from 'hyparquet/src/schema.js';
import { ConfigError } from '../errors.js';

export interface ColumnType {
  /** 'list', 'map', 'struct' or a primitive such as 'string', 'int64', 'timestamp'. */
  readonly name: string;
  /** The element of a list; key and value of a map; undefined where an expectation leaves them open. */
  readonly items?: readonly ColumnType[];
  /** The fields of a struct; undefined where an expectation leaves them open. */
  readonly fields?: Readonly<Record<string, ColumnType>>;
}

/** The type that rows of this column get. Repeated fields outside a LIST are lists. */
export function columnType(column: SchemaTree): ColumnType {
  const type = innerType(column);
  return column.element.repetition_type === 'REPEATED' ? { name: 'list', items: [type] } : type;
}

/** "struct<bytes: binary, path: string>" */
export function typeText({ name, items, fields }: ColumnType): string {
  if (items) return `${name}<${items.map(typeText).join(', ')}>`;
  if (!fields) return name;
  const inner = Object.entries(fields).map(([field, type]) => `${field}: ${typeText(type)}`);
  return `${name}<${inner.join(', ')}>`;
}

/** Whether a column of type `actual` serves where `expected` is asked for. A struct may have more fields than are asked
 *  for; 'any' takes everything, 'int' and 'float' any width, 'number' both and decimals. */
export function satisfies(actual: ColumnType, expected: ColumnType): boolean {
  if (!GROUPS[expected.name]?.test(actual.name) && expected.name !== actual.name) return false;
  if (expected.items) {
    return expected.items.every((item, i) => {
      const found = actual.items?.[i];
      return found !== undefined && satisfies(found, item);
    });
  }
  return Object.entries(expected.fields ?? {}).every(([field, type]) => {
    const found = Object.hasOwn(actual.fields ?? {}, field) ? actual.fields?.[field] : undefined;
    return found !== undefined && satisfies(found, type);
  });
}

const GROUPS: Readonly<Record<string, RegExp>> = {
  any: /^/,
  int: /^u?int\d+$/,
  float: /^float\d+$/,
  number: /^(u?int\d+|float\d+|decimal)$/,
};

const PRIMITIVES = [
  ...[
    'binary',
    'bool',
    'date',
    'decimal',
    'float16',
    'float32',
    'float64',
    'int8',
    'int16',
    'int32',
    'int64',
  ],
  ...['string', 'time', 'timestamp', 'uint8', 'uint16', 'uint32', 'uint64', 'unsupported'],
];

const KNOWN = new Set([...Object.keys(GROUPS), ...PRIMITIVES, 'list', 'map', 'struct']);

/** Reads an expectation: `string`, `list`, `list<int>`, `struct<user: string, assistant>`, `map<string, any>`.
 *  @throws {ConfigError} saying where the text stops making sense */
export function parseType(text: string): ColumnType {
  const tokens = [...text.matchAll(/\s*([A-Za-z_][\w.-]*|[<>:,]|\S)/g)];
  let at = 0;

  function next(): string | undefined {
    return tokens[at]?.[1];
  }

  function fail(expected: string): never {
    const token = tokens[at];
    throw new ConfigError({
      where: `column type "${text}"`,
      expected: `${expected} at character ${token ? token.index + token[0].length - token[1]!.length : text.length}`,
      received: token ? `"${token[1]}"` : 'its end',
      remedy: 'write it as in "list<struct<bytes: binary, path: string>>"',
    });
  }

  function take(expected: string): void {
    if (next() !== expected) fail(`"${expected}"`);
    at++;
  }

  function listOf<T>(item: () => T): T[] {
    take('<');
    const found = [item()];
    while (next() === ',') {
      at++;
      found.push(item());
    }
    take('>');
    return found;
  }

  function type(): ColumnType {
    const name = next();
    if (name === undefined || !KNOWN.has(name)) fail(`a type (${[...KNOWN].join(', ')})`);
    at++;
    if (next() !== '<') return { name };
    if (name === 'struct') return { name, fields: Object.fromEntries(listOf(field)) };
    if (name !== 'list' && name !== 'map') fail('no "<" after a type without parts');
    return { name, items: listOf(type) };
  }

  function field(): [string, ColumnType] {
    const name = next();
    if (name === undefined || !/^\w/.test(name)) fail("a field's name");
    at++;
    if (next() !== ':') return [name, { name: 'any' }];
    at++;
    return [name, type()];
  }

  const parsed = type();
  if (at < tokens.length) fail('nothing more');
  return parsed;
}

function innerType(column: SchemaTree): ColumnType {
  const { element, children } = column;
  if (isListLike(column)) {
    const repeated = children[0]!;
    const [only] = repeated.children;
    return { name: 'list', items: [only ? columnType(only) : innerType(repeated)] };
  }
  if (isMapLike(column)) {
    return { name: 'map', items: children[0]!.children.map(columnType) };
  }
  if (children.length > 0) {
    return {
      name: 'struct',
      fields: Object.fromEntries(children.map((c) => [c.element.name, columnType(c)])),
    };
  }
  return { name: primitiveName(element) };
}

function primitiveName({ type, converted_type, logical_type, type_length }: SchemaElement): string {
  const logical = logical_type?.type;
  if (converted_type === 'DECIMAL' || logical === 'DECIMAL') return 'decimal';
  switch (type) {
    case 'BOOLEAN':
      return 'bool';
    case 'FLOAT':
      return 'float32';
    case 'DOUBLE':
      return 'float64';
    case 'INT96':
      return 'timestamp';
    case 'INT32':
    case 'INT64':
      if (converted_type === 'DATE' || logical === 'DATE') return 'date';
      if (converted_type?.startsWith('TIMESTAMP') || logical === 'TIMESTAMP') return 'timestamp';
      if (converted_type?.startsWith('TIME') || logical === 'TIME') return 'time';
      if (logical_type?.type === 'INTEGER') {
        return `${logical_type.isSigned ? '' : 'u'}int${logical_type.bitWidth}`;
      }
      if (converted_type) return converted_type.toLowerCase().replace('_', '');
      return type === 'INT32' ? 'int32' : 'int64';
    case 'BYTE_ARRAY':
      if (converted_type === 'BSON' || logical === 'BSON') return 'unsupported';
      return converted_type === 'UTF8' || converted_type === 'JSON' || logical === 'STRING'
        ? 'string'
        : 'binary';
    case 'FIXED_LEN_BYTE_ARRAY':
      if (converted_type === 'INTERVAL' || logical === 'INTERVAL' || !type_length) return 'unsupported';
      if (logical === 'FLOAT16') return 'float16';
      return logical === 'UUID' ? 'string' : 'binary';
    case undefined:
    default:
      return 'unsupported';
  }
}
