// FLAC through libFLAC, in its own container or in Ogg.

import { decoder } from '@audio/decode-flac';
import { checkHeader, damaged, noSamples, truncated } from './faults.js';
import { mixChannels } from './pcm.js';
import { piecesOf, type Source } from './source.js';
import { skipTags } from './mp3.js';
import type { Stream } from './types.js';

export interface StreamInfo {
  readonly sampleRateHz: number;
  readonly numChannels: number;
  readonly bitsPerSample: number;
  /** Undefined where the encoder did not know. */
  readonly numSamples: number | undefined;
}

/** Frames pack silence densely: bytes are fed so that about as many samples come out at a time. */
const SAMPLES_PER_PIECE = 2 ** 16;
const [LEAST_BYTES, MOST_BYTES] = [2 ** 10, 2 ** 16];
/** Added and taken away, it leaves the nearest whole number: doubles of its size have no fractions. */
const ROUNDER = 1.5 * 2 ** 52;
/** No frame is longer; what gives no samples for as long is no FLAC. */
const LONGEST_FRAME_BYTES = 2 ** 22;

/** Opens a FLAC file. @throws {AudioError} when it has no samples, or a header that lies */
export async function openFlac(source: Source, where: string): Promise<Stream> {
  let at = (await skipTags(source)) + 4;
  const info = streamInfo(await source.read(at, 38), where);
  for (let isLast = false; !isLast;) {
    const head = await source.read(at, 4);
    if (head.length < 4) throw noSamples(where);
    isLast = (head[0]! & 0x80) !== 0;
    at += 4 + ((head[1]! << 16) | (head[2]! << 8) | head[3]!);
  }
  const { sampleRateHz, numSamples } = info;
  return {
    sampleRateHz,
    pieces: decode(source, at, info, where),
    ...(numSamples !== undefined && { length: { stated: numSamples, there: numSamples } }),
    totalSeconds: async () => numSamples && numSamples / sampleRateHz,
  };
}

/** Reads the first metadata block. @param block 38 bytes, its header before it */
export function streamInfo(block: Uint8Array, where: string): StreamInfo {
  if (block.length < 38 || (block[0]! & 0x7f) !== 0) throw damaged(where, 'FLAC', 'no STREAMINFO block');
  const [b0, b1, b2, b3] = [block[14]!, block[15]!, block[16]!, block[17]!];
  const sampleRateHz = (b0 << 12) | (b1 << 4) | (b2 >> 4);
  const numChannels = ((b2 >> 1) & 7) + 1;
  const bitsPerSample = (((b2 & 1) << 4) | (b3 >> 4)) + 1;
  const numSamples = block.subarray(18, 22).reduce((sum, byte) => sum * 256 + byte, b3 & 15);
  checkHeader(where, 'FLAC', sampleRateHz, numChannels);
  return { sampleRateHz, numChannels, bitsPerSample, numSamples: numSamples || undefined };
}

async function* decode(
  source: Source,
  from: number,
  info: StreamInfo,
  where: string,
): AsyncGenerator<Float32Array> {
  const flac = await FlacDecoder.create(info, where);
  try {
    for await (const bytes of piecesOf(source, from, source.length, () => flac.appetite)) {
      const piece = flac.push(bytes);
      if (piece) yield piece;
    }
    const piece = flac.finish();
    if (piece) yield piece;
  } finally {
    flac.free();
  }
}

/** Frames of FLAC, in any pieces, to mono samples. */
export class FlacDecoder {
  /** How many bytes to push next. */
  appetite = LEAST_BYTES;
  #numSamples = 0;
  #silentBytes = 0;
  readonly #scale: number;

  private constructor(
    readonly info: StreamInfo,
    readonly where: string,
    readonly libFlac: Awaited<ReturnType<typeof decoder>>,
  ) {
    this.#scale = 2 ** (info.bitsPerSample - 1);
  }

  static async create(info: StreamInfo, where: string): Promise<FlacDecoder> {
    const libFlac = await decoder();
    // The marker alone: from here on it looks for frames, and does not hold all bytes for a first look at the whole.
    libFlac.decode(Uint8Array.of(0x66, 0x4c, 0x61, 0x43, 0x80, 0, 0, 0));
    return new FlacDecoder(info, where, libFlac);
  }

  push(bytes: Uint8Array): Float32Array | undefined {
    const piece = this.#take(this.libFlac.decode(bytes));
    this.#silentBytes = piece ? 0 : this.#silentBytes + bytes.length;
    if (this.#silentBytes > LONGEST_FRAME_BYTES) throw damaged(this.where, 'FLAC', 'no whole frames');
    const samples = Math.max(piece?.length ?? 0, 1);
    const wanted = Math.min(this.appetite * 2, (bytes.length * SAMPLES_PER_PIECE) / samples);
    this.appetite = Math.round(Math.min(Math.max(wanted, LEAST_BYTES), MOST_BYTES));
    return piece;
  }

  /** The last frame. @throws {AudioError} when samples are missing */
  finish(): Float32Array | undefined {
    const piece = this.#take(this.libFlac.flush());
    const { numSamples = 0, sampleRateHz } = this.info;
    if (this.#numSamples < numSamples) {
      throw truncated(this.where, 'FLAC', numSamples, this.#numSamples, sampleRateHz);
    }
    return piece;
  }

  free(): void {
    this.libFlac.free();
  }

  #take({ channelData, sampleRate }: ReturnType<typeof this.libFlac.flush>): Float32Array | undefined {
    const length = channelData[0]?.length ?? 0;
    if (length === 0) return undefined;
    if (channelData.length !== this.info.numChannels || sampleRate !== this.info.sampleRateHz) {
      throw damaged(
        this.where,
        'FLAC',
        `frames of ${channelData.length} channels at ${sampleRate} Hz, not of ${this.info.numChannels} at ${this.info.sampleRateHz}`,
      );
    }
    this.#numSamples += length;
    for (const channel of channelData) this.#rescale(channel);
    return mixChannels(channelData);
  }

  /** The decoder divides by the largest sample, 2^(bits - 1) - 1: back to whole numbers, then by full scale. */
  #rescale(channel: Float32Array): void {
    const scale = this.#scale;
    for (let i = 0; i < channel.length; i++) {
      channel[i] = (channel[i]! * (scale - 1) + ROUNDER - ROUNDER) / scale;
    }
  }
}
