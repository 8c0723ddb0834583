// Decompression of Arrow's buffers, which never yields more bytes than the buffer's own prefix says.

import { compressionRegistry, CompressionType } from 'apache-arrow';
import { decompressFrameSync } from 'lz4-napi';
import { decompress } from './parquet-codecs.js';

/** Makes both codecs of the format known to the library; they do not replace codecs that are there already. */
export function registerCodecs(): void {
  if (!compressionRegistry.get(CompressionType.ZSTD)) {
    compressionRegistry.set(CompressionType.ZSTD, {
      decode: (data) => decompress('ZSTD', data, announced(data)),
    });
  }
  if (!compressionRegistry.get(CompressionType.LZ4_FRAME)) {
    compressionRegistry.set(CompressionType.LZ4_FRAME, {
      decode: (data) => decompressLz4Frame(data, announced(data)),
    });
  }
}

/** The length that stands before a buffer's compressed bytes: the library passes a view of what follows it. */
function announced(data: Uint8Array): number {
  const length = new DataView(data.buffer, data.byteOffset - 8, 8).getBigInt64(0, true);
  if (length < 0n || length > BigInt(Number.MAX_SAFE_INTEGER))
    throw new RangeError(`a buffer of ${length} bytes`);
  return Number(length);
}

/** @throws {Error} when the frame holds more or fewer bytes than `length` */
function decompressLz4Frame(data: Uint8Array, length: number): Uint8Array {
  const most = mostBytes(data);
  if (length > most)
    throw new RangeError(`an LZ4 frame of at most ${most} bytes where ${length} are announced`);
  // Blocks may be less than full, but a frame of many bytes that is announced as few is no writer's work.
  if (most > 4 * length + 2 ** 24)
    throw new RangeError(`an LZ4 frame of more than the ${length} bytes announced`);
  const output = decompressFrameSync(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  if (output.length === length) return new Uint8Array(output.buffer, output.byteOffset, length);
  throw new RangeError(`${output.length} bytes of an LZ4 frame where ${length} are announced`);
}

/** The most bytes that a frame can hold, from its blocks' headers (LZ4 frame format 1.6). */
function mostBytes(frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 7 || view.getUint32(0, true) !== 0x184d2204) throw new Error('no LZ4 frame');
  const flags = frame[4]!;
  const blockBytes = [0, 0, 0, 0, 2 ** 16, 2 ** 18, 2 ** 20, 2 ** 22][(frame[5]! >> 4) & 7]!;
  let at = 7 + (flags & 8 ? 8 : 0) + (flags & 1 ? 4 : 0);
  let most = 0;
  while (at + 4 <= frame.length) {
    const header = view.getUint32(at, true);
    if (header === 0) break;
    const size = header & 0x7fffffff;
    // A block stored as it is holds its own length; LZ4 cannot do better than 255 to 1.
    most += header >>> 31 ? size : Math.min(blockBytes, 255 * size);
    at += 4 + size + (flags & 16 ? 4 : 0);
  }
  return most;
}
