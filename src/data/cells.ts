// What a row's cells weigh, and rows that own them. Every row passes here: loops are plain for speed.

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
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) bytes += 8 + bytesOf(value[i]);
  } else {
    for (const key of Object.keys(value)) bytes += 8 + bytesOf((value as Record<string, unknown>)[key]);
  }
  return bytes;
}

/** Plain data with undefined made null. Objects of classes are passed on as they are.
 *  @param bytes 'copy': byte arrays own their memory, so that the result keeps nothing else alive; 'view': as they are
 *  @param where tells the row, for the message
 *  @throws {DataError} at a `BadCell` */
export function cleanCells<T>(value: T, bytes: 'copy' | 'view', where: () => string): T {
  const found: { bad?: BadCell } = {};
  const cleaned = clean(value, bytes, found) as T;
  if (!found.bad) return cleaned;
  throw new DataError({
    where: `${where()}, ${pathTo(found.bad, value)}`,
    expected: 'a readable value',
    received: found.bad.reason,
    remedy: 'the row is left out; mend it in the file to have it',
  });
}

function clean(value: unknown, bytes: 'copy' | 'view', found: { bad?: BadCell }): unknown {
  if (value === undefined) return null;
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Uint8Array) return bytes === 'copy' ? new Uint8Array(value) : value;
  if (Array.isArray(value)) {
    const copy = new Array<unknown>(value.length);
    for (let i = 0; i < value.length; i++) copy[i] = clean(value[i], bytes, found);
    return copy;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) {
    const copy: Record<string, unknown> = {};
    for (const key of Object.keys(value)) {
      setField(copy, key, clean((value as Record<string, unknown>)[key], bytes, found));
    }
    return copy;
  }
  if (value instanceof BadCell) found.bad ??= value;
  return value;
}

/** Sets a field of any name: written plainly, "__proto__" would be lost. */
export function setField(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== '__proto__') object[key] = value;
  else Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
}

function pathTo(target: BadCell, value: unknown, path = ''): string | undefined {
  if (value === target) return path;
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return undefined;
  for (const [key, item] of Object.entries(value)) {
    const step = Array.isArray(value) ? `[${key}]` : path === '' ? key : `.${key}`;
    const found = pathTo(target, item, path + step);
    if (found !== undefined) return found;
  }
  return undefined;
}
