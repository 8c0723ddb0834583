// One entry of the cache on disk: a head of 40 bytes, a tree in JSON, the bytes of arrays. Little-endian:
//
//   0 magic   4 bytes of the tree (u32)   8 bytes of the arrays (f64)   16 key (16 bytes)   32 CRC-32 of all else   36 zero

import * as zlib from 'node:zlib';
import { plainBytes, plainValue } from './plain-value.js';

export const HEAD_BYTES = 40;
export const KEY_BYTES = 16;
const MAGIC = 0x31634c53; // "SLc1"
const KEY_AT = 16;
const CRC_AT = 32;
/** A tree that is longer is not kept, nor read. */
const MOST_TREE_BYTES = 16 * 2 ** 20;

/** What a record's head says. */
export interface RecordHead {
  /** Of the whole record. */
  readonly bytes: number;
  /** 32 hexadecimal digits. */
  readonly key: string;
}

export interface Record extends RecordHead {
  /** To be written behind each other. The arrays are the value's own. */
  readonly buffers: readonly Uint8Array[];
}

/** @returns undefined where the value's texts are too long to be kept
 *  @throws {DataError} naming the path of what is no plain data */
export function recordOf(key: string, value: unknown, where: string): Record | undefined {
  const { tree, arrays } = plainBytes(value, where);
  const text = Buffer.from(tree);
  if (text.length > MOST_TREE_BYTES) return undefined;
  const arrayBytes = arrays.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(MAGIC, 0);
  head.writeUInt32LE(text.length, 4);
  head.writeDoubleLE(arrayBytes, 8);
  head.write(key, KEY_AT, 'hex');
  head.writeUInt32LE(crcOf([head.subarray(0, CRC_AT), text, ...arrays]), CRC_AT);
  return { key, bytes: HEAD_BYTES + text.length + arrayBytes, buffers: [head, text, ...arrays] };
}

/** @returns undefined for what is no head */
export function readHead(head: Buffer): RecordHead | undefined {
  if (head.length < HEAD_BYTES || head.readUInt32LE(0) !== MAGIC) return undefined;
  const treeBytes = head.readUInt32LE(4);
  const arrayBytes = head.readDoubleLE(8);
  if (treeBytes > MOST_TREE_BYTES || !Number.isSafeInteger(arrayBytes) || arrayBytes < 0) return undefined;
  return {
    key: head.toString('hex', KEY_AT, KEY_AT + KEY_BYTES),
    bytes: HEAD_BYTES + treeBytes + arrayBytes,
  };
}

/** The value of a record, in memory of its own.
 *  @throws when it is not as it was written, or is another key's */
export function valueOf(record: Buffer, key: string): unknown {
  const head = readHead(record);
  if (head?.bytes !== record.length || head.key !== key) throw new Error('another record');
  const rest = record.subarray(HEAD_BYTES);
  if (record.readUInt32LE(CRC_AT) !== crcOf([record.subarray(0, CRC_AT), rest])) throw new Error('damaged');
  const treeBytes = record.readUInt32LE(4);
  return plainValue(rest.toString('utf8', 0, treeBytes), rest.subarray(treeBytes));
}

export function crcOf(buffers: readonly Uint8Array[]): number {
  return buffers.reduce((crc, buffer) => crc32(buffer, crc), 0);
}

// Node has one since 20.15 and 22.2.
const crc32 = (zlib as { crc32?: typeof zlib.crc32 }).crc32 ?? slowCrc32;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

export function slowCrc32(bytes: Uint8Array, before = 0): number {
  let crc = ~before;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
