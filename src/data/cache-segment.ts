// A file of many records, for one process to write and for all to read. One that was written to its end has an index
// there; one that was not (its process died, or still writes) is found out by its records, as far as they are whole.

import * as fs from 'node:fs/promises';
import { crcOf, HEAD_BYTES, KEY_BYTES, readHead } from './cache-record.js';

/** Where a record lies in its file. */
export interface Extent {
  readonly at: number;
  readonly bytes: number;
}

/** Bytes of an index for each record: key, place, length. */
export const INDEX_ENTRY_BYTES = KEY_BYTES + 16;
/** Magic, CRC-32 of the index, number of records (f64). */
export const TRAILER_BYTES = 16;
const MAGIC = 0x78634c53; // "SLcx"

/** The records of a file, by key. Nothing is allocated beyond the file's own size.
 *  @returns undefined for a file that is none of these */
export async function readIndex(file: fs.FileHandle, size: number): Promise<Map<string, Extent> | undefined> {
  return (await sealedIndex(file, size)) ?? (await scannedIndex(file, size));
}

/** The index of records, to be written behind them. */
export function indexBytes(extents: ReadonlyMap<string, Extent>): Buffer {
  const bytes = Buffer.alloc(extents.size * INDEX_ENTRY_BYTES + TRAILER_BYTES);
  let at = 0;
  for (const [key, extent] of extents) {
    bytes.write(key, at, 'hex');
    bytes.writeDoubleLE(extent.at, at + KEY_BYTES);
    bytes.writeDoubleLE(extent.bytes, at + KEY_BYTES + 8);
    at += INDEX_ENTRY_BYTES;
  }
  bytes.writeUInt32LE(MAGIC, at);
  bytes.writeUInt32LE(crcOf([bytes.subarray(0, at)]), at + 4);
  bytes.writeDoubleLE(extents.size, at + 8);
  return bytes;
}

/** Reads all of a stretch; undefined where the file ends before. */
export async function readFully(file: fs.FileHandle, { at, bytes }: Extent): Promise<Buffer | undefined> {
  const buffer = Buffer.allocUnsafeSlow(bytes);
  let read = 0;
  while (read < bytes) {
    const { bytesRead } = await file.read(buffer, read, bytes - read, at + read);
    if (bytesRead === 0) return undefined;
    read += bytesRead;
  }
  return buffer;
}

async function sealedIndex(file: fs.FileHandle, size: number): Promise<Map<string, Extent> | undefined> {
  if (size < TRAILER_BYTES) return undefined;
  const trailer = await readFully(file, { at: size - TRAILER_BYTES, bytes: TRAILER_BYTES });
  if (trailer?.readUInt32LE(0) !== MAGIC) return undefined;
  const count = trailer.readDoubleLE(8);
  const end = size - TRAILER_BYTES - count * INDEX_ENTRY_BYTES;
  if (!Number.isSafeInteger(count) || count < 0 || end < 0) return undefined;
  const index = await readFully(file, { at: end, bytes: count * INDEX_ENTRY_BYTES });
  if (!index || crcOf([index]) !== trailer.readUInt32LE(4)) return undefined;
  const extents = new Map<string, Extent>();
  for (let i = 0; i < index.length; i += INDEX_ENTRY_BYTES) {
    const at = index.readDoubleLE(i + KEY_BYTES);
    const bytes = index.readDoubleLE(i + KEY_BYTES + 8);
    const isIn = Number.isSafeInteger(at) && Number.isSafeInteger(bytes) && at >= 0 && bytes >= HEAD_BYTES;
    if (!isIn || at + bytes > end) return undefined;
    extents.set(index.toString('hex', i, i + KEY_BYTES), { at, bytes });
  }
  return extents;
}

const SCAN_BYTES = 64 * 2 ** 10;

async function scannedIndex(file: fs.FileHandle, size: number): Promise<Map<string, Extent> | undefined> {
  const extents = new Map<string, Extent>();
  let at = 0;
  let chunk: Buffer = Buffer.alloc(0);
  let chunkAt = 0;
  while (at + HEAD_BYTES <= size) {
    if (at < chunkAt || at + HEAD_BYTES > chunkAt + chunk.length) {
      chunkAt = at;
      chunk = (await readFully(file, { at, bytes: Math.min(SCAN_BYTES, size - at) })) ?? Buffer.alloc(0);
    }
    const head = readHead(chunk.subarray(at - chunkAt));
    if (!head || at + head.bytes > size) break;
    extents.set(head.key, { at, bytes: head.bytes });
    at += head.bytes;
  }
  return extents.size === 0 && size > 0 ? undefined : extents;
}
