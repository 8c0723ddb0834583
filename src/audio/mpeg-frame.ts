// Headers of MPEG audio frames (layers 1 to 3): where frames lie, and how long a file plays. ISO 11172-3, 13818-3.

import { latin, startsWith, viewOf } from './source.js';

export interface MpegFrame {
  readonly layer: 1 | 2 | 3;
  readonly numBytes: number;
  readonly numSamples: number;
  readonly sampleRateHz: number;
  /** Bytes of side information behind the header. */
  readonly sideBytes: number;
}

const rates = [44100, 48000, 32000];
/** kbit/s by bitrate index, from 1. */
const bitrates = {
  full1: [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
  full2: [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  full3: [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  half1: [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
  half23: [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};

/** The frame whose header begins at `at`, if one does. */
export function mpegFrame(bytes: Uint8Array, at: number): MpegFrame | undefined {
  if (at < 0 || at + 4 > bytes.length || bytes[at] !== 0xff || (bytes[at + 1]! & 0xe0) !== 0xe0)
    return undefined;
  const [second, third, fourth] = [bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!];
  const version = (second >> 3) & 3; // 3: MPEG 1; 2: MPEG 2, half rates; 0: MPEG 2.5, quarter rates
  const layer = 4 - ((second >> 1) & 3);
  const [bitrateIndex, rate] = [third >> 4, rates[(third >> 2) & 3]];
  if (version === 1 || layer === 4 || bitrateIndex === 0 || bitrateIndex === 15 || !rate) return undefined;
  if ((fourth & 3) === 2) return undefined;
  const full = version === 3;
  const table = full ? `full${layer}` : layer === 1 ? 'half1' : 'half23';
  const bitsPerSecond = bitrates[table as keyof typeof bitrates][bitrateIndex - 1]! * 1000;
  const sampleRateHz = rate / (full ? 1 : version === 2 ? 2 : 4);
  const padding = (third >> 1) & 1;
  const numSamples = layer === 1 ? 384 : layer === 3 && !full ? 576 : 1152;
  const slot = layer === 1 ? 4 : 1;
  const numBytes = (Math.floor((numSamples * bitsPerSecond) / (8 * slot * sampleRateHz)) + padding) * slot;
  const mono = fourth >> 6 === 3;
  const sideBytes = full ? (mono ? 17 : 32) : mono ? 9 : 17;
  return { layer: layer as 1 | 2 | 3, numBytes, numSamples, sampleRateHz, sideBytes };
}

/** The first place from `from` on where frames follow each other: three, or as many as there is room for.
 *  @param isAll whether nothing follows `bytes` */
export function firstFrame(bytes: Uint8Array, from: number, isAll: boolean): number | undefined {
  for (let at = bytes.indexOf(0xff, from); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    if (isChain(bytes, at, isAll)) return at;
  }
  return undefined;
}

function isChain(bytes: Uint8Array, start: number, isAll: boolean): boolean {
  const first = mpegFrame(bytes, start);
  let frame = first;
  let at = start;
  for (let count = 0; first && count < 3; count++) {
    if (frame?.layer !== first.layer || frame.sampleRateHz !== first.sampleRateHz) return false;
    at += frame.numBytes;
    // The file ends with a frame, or with a tag behind it. One frame alone is believed only where the file begins with it.
    if (isAll && (count > 0 || start === 0) && (at === bytes.length || startsWith(bytes, 'TAG', at)))
      return true;
    frame = mpegFrame(bytes, at);
  }
  return first !== undefined;
}

/** Length of ID3v2 tags at `at`, one behind the other; 0 where there is none. */
export function id3Length(bytes: Uint8Array, at = 0): number {
  if (!startsWith(bytes, 'ID3', at) || at + 10 > bytes.length) return 0;
  const size = bytes.subarray(at + 6, at + 10);
  if (size.some((byte) => byte > 0x7f)) return 0;
  const footer = bytes[at + 5]! & 0x10 ? 10 : 0;
  return 10 + size.reduce((sum, byte) => sum * 128 + byte, 0) + footer;
}

/** Samples of the whole file, where the first frame is one of those that encoders write to say so (Xing, Info, VBRI). */
export function statedSamples(bytes: Uint8Array, at: number): number | undefined {
  const frame = mpegFrame(bytes, at);
  if (!frame || at + 180 > bytes.length) return undefined;
  const view = viewOf(bytes);
  const tag = at + 4 + frame.sideBytes;
  const id = latin(bytes, tag, tag + 4);
  if (id === 'Xing' || id === 'Info') {
    const flags = view.getUint32(tag + 4);
    if (!(flags & 1)) return undefined;
    const gaps =
      tag + 8 + (flags & 1 ? 4 : 0) + (flags & 2 ? 4 : 0) + (flags & 4 ? 100 : 0) + (flags & 8 ? 4 : 0) + 21;
    const known = gaps + 3 <= bytes.length && /^(LAME|Lav)/.test(latin(bytes, gaps - 21, gaps - 17));
    const packed = known ? (view.getUint16(gaps) << 8) | bytes[gaps + 2]! : 0;
    return view.getUint32(tag + 8) * frame.numSamples - (packed >> 12) - (packed & 0xfff);
  }
  if (latin(bytes, at + 36, at + 40) === 'VBRI') return view.getUint32(at + 50) * frame.numSamples;
  return undefined;
}
