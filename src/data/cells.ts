// What a row's cells weigh, and rows that own them.

import { DataError } from '../errors.js';

/** Stands in a decoded column where one value cannot be read, so that its row alone is quarantined. */
export class BadCell {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/** Bytes that a value of plain data keeps alive: byte arrays their length, strings two a UTF-16 unit, numbers, dates
 *  and booleans 8, arrays and objects the sum of theirs and 8 a slot. Bytes that occur twice count twice. */
export function bytesOf(value: unknown): number {
  if (typeof value === 'string') return 2 * value.length;
  if (typeof value === 'bigint') return 16;
  if (typeof value === 'number' || typeof value === 'boolean') return 8;
  if (typeof value !== 'object' || value === null) return 0;
  if (ArrayBuffer.isView(value)) return value.byteLength;
  if (value instanceof Date) return 8;
  let bytes = 0;
  const items: Iterable<unknown> = Array.isArray(value) ? value : Object.values(value);
  for (const item of items) bytes += 8 + bytesOf(item);
  return bytes;
}

/** Plain data with undefined made null. Objects of classes are passed on as they are.
 *  @param bytes 'copy': byte arrays own their memory, so that the result keeps nothing else alive; 'view': as they are
 *  @param where the row, for the message
 *  @throws {DataError} at a `BadCell` */
export function cleanCells<T>(value: T, bytes: 'copy' | 'view', where: string): T {
  return clean(value, bytes, where, '') as T;
}

function clean(value: unknown, bytes: 'copy' | 'view', where: string, path: string): unknown {
  if (value === undefined) return null;
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Uint8Array) return bytes === 'copy' ? new Uint8Array(value) : value;
  if (Array.isArray(value)) {
    return value.map((item, i) => clean(item, bytes, where, `${path}[${i}]`));
  }
  if (value instanceof BadCell) {
    throw new DataError({
      where: `${where}, ${path}`,
      expected: 'a readable value',
      received: value.reason,
      remedy: 'the row is left out; mend it in the file to have it',
    });
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      clean(item, bytes, where, path === '' ? key : `${path}.${key}`),
    ]),
  );
}
