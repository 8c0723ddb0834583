// A hash over plain data, the same wherever and however often it is made.

import type { Hash } from 'node:crypto';

/** Feeds a value with its types and lengths: [1, '1'] and ['1', 1] differ. Objects of classes count as their fields. */
export function hashValue(hash: Hash, value: unknown): void {
  if (Array.isArray(value)) {
    hash.update(`[${value.length}`);
    for (const item of value) hashValue(hash, item);
  } else if (ArrayBuffer.isView(value)) {
    hash.update(`${value.constructor.name}${value.byteLength}:`);
    hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  } else if (value instanceof Date) {
    hash.update(`d${value.getTime()};`);
  } else if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value);
    hash.update(`{${entries.length}`);
    for (const [key, item] of entries) {
      hashValue(hash, key);
      hashValue(hash, item);
    }
  } else {
    const text = String(value);
    hash.update(`${typeof value}${text.length}:${text};`);
  }
}
