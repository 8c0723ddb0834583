// Page decompression that never yields more bytes than the page's header said, whatever the stream claims.
// gzip and Brotli come from Node, Zstandard from Node where it has it (22.15) and from fzstd elsewhere, Snappy and the old
// LZ4 from hyparquet-compressors, which write into a buffer of the given length. LZ4 blocks are read here: there, a stream
// that ends early leaves zeros unnoticed.

import * as zlib from 'node:zlib';
import { Decompress } from 'fzstd';
import { compressors } from 'hyparquet-compressors';
import type { CompressionCodec } from 'hyparquet';

type Decompressor = (input: Uint8Array, length: number) => Uint8Array;

/** A larger window than this would let a page of a few bytes allocate gigabytes. `zstd --ultra` stops here too. */
const MAX_ZSTD_WINDOW = 128 * 2 ** 20;

const decompressors: Partial<Record<CompressionCodec, Decompressor>> = {
  ...compressors,
  UNCOMPRESSED: (input) => input,
  GZIP: (input, length) => zlib.unzipSync(input, { maxOutputLength: length }),
  BROTLI: (input, length) => zlib.brotliDecompressSync(input, { maxOutputLength: length }),
  ZSTD: decompressZstd,
  LZ4_RAW: decompressLz4Block,
};

/** @returns `length` bytes in a buffer of their own
 *  @throws {Error} when the codec is unknown, the stream is malformed, or holds more or fewer bytes */
export function decompress(codec: CompressionCodec, input: Uint8Array, length: number): Uint8Array {
  const decompressor = decompressors[codec];
  if (!decompressor) throw new Error(`compression ${codec} is not supported`);
  const output = length === 0 && codec !== 'UNCOMPRESSED' ? new Uint8Array() : decompressor(input, length);
  if (output.length !== length) {
    throw new Error(`a page of ${output.length} bytes where its header says ${length}`);
  }
  // In a buffer of its own a length that is wrong inside the page cannot reach its neighbours.
  return output.byteLength === output.buffer.byteLength ? output : new Uint8Array(output);
}

function decompressZstd(input: Uint8Array, length: number): Uint8Array {
  const window = zstdWindow(input);
  if (window > MAX_ZSTD_WINDOW) {
    throw new Error(`a Zstandard window of ${window} bytes; ${MAX_ZSTD_WINDOW} is the most that is accepted`);
  }
  if (nativeZstd) return nativeZstd(input, { maxOutputLength: length });

  const output = new Uint8Array(length);
  let written = 0;
  const stream = new Decompress((chunk) => {
    if (written + chunk.length > length)
      throw new Error(`a page of more than the ${length} bytes of its header`);
    output.set(chunk, written);
    written += chunk.length;
  });
  stream.push(input, true);
  return written === length ? output : output.subarray(0, written);
}

const nativeZstd = (
  zlib as { zstdDecompressSync?: (input: Uint8Array, options: { maxOutputLength: number }) => Uint8Array }
).zstdDecompressSync;

/** Bytes of history that a Zstandard frame asks its reader to keep (RFC 8878, 3.1.1.1). */
function zstdWindow(frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 6 || view.getUint32(0, true) !== 0xfd2fb528) return 0; // the decoder will say what is wrong
  const flags = frame[4]!;
  const singleSegment = (flags & 0x20) !== 0;
  if (!singleSegment) {
    const base = 2 ** (10 + (frame[5]! >> 3));
    return base + (base / 8) * (frame[5]! & 7);
  }
  const sizeBytes = [1, 2, 4, 8][flags >> 6]!;
  const at = 5 + [0, 1, 2, 4][flags & 3]!;
  if (at + sizeBytes > frame.length) return 0;
  if (sizeBytes === 1) return view.getUint8(at);
  if (sizeBytes === 2) return view.getUint16(at, true) + 256;
  return sizeBytes === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}

/** One LZ4 block, as its format description has it: literals and copies in turn, literals last. */
function decompressLz4Block(input: Uint8Array, length: number): Uint8Array {
  const output = new Uint8Array(length);
  let at = 0;
  let written = 0;

  function byte(): number {
    if (at >= input.length) throw new Error('an LZ4 block that ends in the middle');
    return input[at++]!;
  }

  function count(nibble: number): number {
    let total = nibble;
    if (nibble < 15) return total;
    for (;;) {
      const more = byte();
      total += more;
      if (more < 255) return total;
    }
  }

  while (at < input.length) {
    const token = byte();
    const literals = count(token >> 4);
    if (literals > input.length - at || literals > length - written) {
      throw new Error(`${literals} LZ4 literals where ${Math.min(input.length - at, length - written)} fit`);
    }
    output.set(input.subarray(at, at + literals), written);
    at += literals;
    written += literals;
    if (at === input.length) break;

    const distance = byte() + byte() * 256;
    const copied = count(token & 15) + 4;
    if (distance === 0 || distance > written || copied > length - written) {
      throw new Error(`an LZ4 copy of ${copied} bytes from ${distance} back, after ${written} of ${length}`);
    }
    if (distance >= copied) {
      output.copyWithin(written, written - distance, written - distance + copied);
      written += copied;
    } else {
      for (const end = written + copied; written < end; written++)
        output[written] = output[written - distance]!;
    }
  }
  return output.subarray(0, written);
}
