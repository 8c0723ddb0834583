// The bytes of a text file, in order and as they were before compression. gzip and Zstandard are told by content.

import * as zlib from 'node:zlib';
import { Readable, type Transform } from 'node:stream';
import { Decompress } from 'fzstd';
import { DataError, messageOf } from '../errors.js';
import { OpenFile } from './open-file.js';
import { isRemote } from './remote-url.js';

export type Compression = 'none' | 'gzip' | 'zstd';

const PIECE = 2 ** 20;
/** fzstd makes up to 40,000 bytes of one: it is fed little at a time. */
const ZSTD_PIECE = 2 ** 12;

export async function compressionOf(file: OpenFile): Promise<Compression> {
  const head = await file.read(0, Math.min(4, file.stamp.size));
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  return head.length === 4 && new DataView(head.buffer).getUint32(0, true) === 0xfd2fb528 ? 'zstd' : 'none';
}

/** All bytes in pieces, each to be used up before the next is asked for; the file is closed when the reading ends.
 *  @throws {DataError} when what is compressed cannot be decompressed */
export async function* textBytes(
  path: string,
  compression: Compression,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const piece = isRemote(path) ? 4 * PIECE : compression === 'none' ? PIECE : PIECE / 16;
  const raw = Readable.from(bytesOf(path, piece, signal), { objectMode: true, highWaterMark: 1 });
  try {
    if (compression === 'none') yield* abortable(raw, signal);
    else if (compression === 'zstd' && !createZstdDecompress) yield* unzstd(abortable(raw, signal));
    else {
      const through = compression === 'gzip' ? zlib.createGunzip() : createZstdDecompress!();
      raw.on('error', (error) => through.destroy(error));
      raw.pipe(through);
      try {
        yield* abortable(through, signal);
      } finally {
        through.destroy();
      }
    }
  } catch (cause) {
    if (signal.aborted || cause instanceof DataError) throw cause;
    throw new DataError(
      {
        where: path,
        expected: compression === 'none' ? 'a readable file' : `${compression} data that can be decompressed`,
        received: messageOf(cause),
        remedy: 'it is truncated or damaged: fetch or write it again',
      },
      { cause },
    );
  } finally {
    raw.destroy();
  }
}

/** A file from beginning to end. */
async function* bytesOf(path: string, piece: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  await using file = await OpenFile.open(path, 'file', { signal });
  const { size } = file.stamp;
  for (let at = 0; at < size; at += piece) yield await file.read(at, Math.min(piece, size - at));
}

const { createZstdDecompress } = zlib as { createZstdDecompress?: () => Transform }; // Node 22.15

async function* abortable(stream: AsyncIterable<unknown>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for await (const piece of stream) {
    signal.throwIfAborted();
    yield piece as Uint8Array;
  }
}

async function* unzstd(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let made: Uint8Array[] = [];
  const stream = new Decompress((bytes) => void made.push(bytes));
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; at += ZSTD_PIECE) {
      stream.push(piece.slice(at, at + ZSTD_PIECE));
      yield* made;
      made = [];
    }
  }
  stream.push(new Uint8Array(), true);
  yield* made;
}

/** Reads stretches of a file's text: at any place where it lies uncompressed, and else by reading on, or again from the
 *  beginning where a stretch lies behind. */
export class TextReader {
  readonly #path: string;
  readonly #compression: Compression;
  #pieces: AsyncGenerator<Uint8Array, void, undefined> | undefined;
  #rest: Uint8Array = new Uint8Array();
  #position = 0;

  constructor(path: string, compression: Compression) {
    this.#path = path;
    this.#compression = compression;
  }

  /** Bytes [start, end) of the text, in a buffer of their own.
   *  @param file the same, open */
  async read(file: OpenFile, start: number, end: number, signal: AbortSignal): Promise<Uint8Array> {
    if (this.#compression === 'none') return file.read(start, end - start);
    if (!this.#pieces || start < this.#position) {
      await this.close();
      this.#pieces = textBytes(this.#path, this.#compression, signal);
    }
    const bytes = new Uint8Array(end - start);
    for (;;) {
      const skip = Math.min(this.#rest.length, Math.max(0, start - this.#position));
      this.#take(skip);
      const at = this.#position - start;
      if (at >= 0) bytes.set(this.#take(Math.min(this.#rest.length, bytes.length - at)), at);
      if (this.#position >= end) return bytes;
      const { value, done } = await this.#pieces.next();
      if (done || !value) throw new RangeError(`the text ends at byte ${this.#position}`);
      this.#rest = value;
    }
  }

  #take(count: number): Uint8Array {
    const taken = this.#rest.subarray(0, count);
    this.#rest = this.#rest.subarray(count);
    this.#position += count;
    return taken;
  }

  async close(): Promise<void> {
    const pieces = this.#pieces;
    this.#pieces = undefined;
    this.#rest = new Uint8Array();
    this.#position = 0;
    await pieces?.return();
  }
}
