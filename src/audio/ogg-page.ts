// Pages of Ogg (RFC 3533), checked: a page that is damaged, missing or cut off is an error, since what plays on behind a
// gap is another clip. A file that ends between two pages cannot be told from a whole one.

import { damaged } from './faults.js';
import { PIECE_BYTES, type Source, startsWith, viewOf } from './source.js';

export interface OggPage {
  /** As in the file. */
  readonly bytes: Uint8Array;
  readonly serial: number;
  readonly sequence: number;
  /** Samples up to the end of the last packet that ends here; undefined where none does. */
  readonly granule: number | undefined;
  readonly isContinued: boolean;
  readonly isFirst: boolean;
  readonly isLast: boolean;
  /** Pieces of packets. The last goes on in the next page where `isOpen`. */
  readonly segments: readonly Uint8Array[];
  readonly isOpen: boolean;
}

const HEAD_BYTES = 27;
/** The longest page: 255 lengths of 255. */
const MAX_PAGE_BYTES = HEAD_BYTES + 255 + 255 * 255;

/** All pages in order. @throws {AudioError} at the first that is damaged or cut off */
export async function* oggPages(source: Source, where: string): AsyncGenerator<OggPage> {
  let buffer: Uint8Array = new Uint8Array(0);
  let [offset, ended] = [0, false];
  for (let at = 0; at < source.length;) {
    if (at + MAX_PAGE_BYTES > offset + buffer.length && offset + buffer.length < source.length) {
      buffer = await source.read(at, MAX_PAGE_BYTES + PIECE_BYTES);
      offset = at;
    }
    const rest = buffer.subarray(at - offset);
    // Taggers put things behind the end.
    if (ended && !startsWith(rest, 'OggS')) return;
    const length = pageLength(rest);
    if (length === undefined) throw damaged(where, 'Ogg', `no page at byte ${at}`);
    if (length > rest.length) throw damaged(where, 'Ogg', `it ends within a page, at byte ${source.length}`);
    const page = readPage(rest.subarray(0, length));
    if (!page) throw damaged(where, 'Ogg', `the checksum of the page at byte ${at} is wrong`);
    ended = page.isLast;
    at += length;
    yield page;
  }
}

/** The position at the end of a stream, from its last page. */
export async function lastGranule(source: Source, serial: number): Promise<number | undefined> {
  const tail = await source.read(Math.max(0, source.length - 2 * MAX_PAGE_BYTES), 2 * MAX_PAGE_BYTES);
  for (let at = tail.length - HEAD_BYTES; at >= 0; at--) {
    if (tail[at] !== 0x4f || !startsWith(tail, 'OggS', at)) continue;
    const length = pageLength(tail.subarray(at));
    const page =
      length !== undefined && at + length <= tail.length && readPage(tail.subarray(at, at + length));
    if (page && page.serial === serial && page.granule !== undefined) return page.granule;
  }
  return undefined;
}

/** The length that a page's head says; undefined where none begins. More than `bytes` where they end within it. */
function pageLength(bytes: Uint8Array): number | undefined {
  if (!startsWith(bytes, 'OggS'.slice(0, Math.min(4, bytes.length))) || (bytes[4] ?? 0) !== 0)
    return undefined;
  const lengths = HEAD_BYTES + (bytes[26] ?? 1);
  if (bytes.length < lengths) return bytes.length + 1;
  return bytes.subarray(HEAD_BYTES, lengths).reduce((sum, length) => sum + length, lengths);
}

/** @param bytes one page @returns undefined where its checksum is wrong */
function readPage(bytes: Uint8Array): OggPage | undefined {
  const view = viewOf(bytes);
  if (checksum(bytes) !== view.getUint32(22, true)) return undefined;
  const flags = bytes[5]!;
  const granule = Number(view.getBigInt64(6, true));
  const segments: Uint8Array[] = [];
  const body = HEAD_BYTES + bytes[26]!;
  let [start, end, isOpen] = [body, body, false];
  for (const length of bytes.subarray(HEAD_BYTES, body)) {
    end += length;
    isOpen = length === 255;
    if (isOpen) continue;
    segments.push(bytes.subarray(start, end));
    start = end;
  }
  if (isOpen) segments.push(bytes.subarray(start, end));
  return {
    bytes,
    serial: view.getUint32(14, true),
    sequence: view.getUint32(18, true),
    granule: granule < 0 ? undefined : granule,
    isContinued: (flags & 1) !== 0,
    isFirst: (flags & 2) !== 0,
    isLast: (flags & 4) !== 0,
    segments,
    isOpen,
  };
}

/** CRC-32 of polynomial 0x04c11db7, most significant bit first, over a page whose own checksum counts as zero. */
function checksum(bytes: Uint8Array): number {
  let crc = 0;
  for (let i = 0; i < bytes.length; i++) {
    crc = (crc << 8) ^ TABLE[(crc >>> 24) ^ (i >= 22 && i < 26 ? 0 : bytes[i]!)]!;
  }
  return crc >>> 0;
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});
