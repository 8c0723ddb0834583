// Samples as they lie in WAV and AIFF files, and the mean of a frame's channels.

import { viewOf } from './source.js';

export type Encoding = 'signed' | 'unsigned' | 'float' | 'alaw' | 'mulaw';

/** How frames of samples lie in bytes: one sample a channel, channels in turn. */
export interface Layout {
  readonly encoding: Encoding;
  /** Of the place that a sample takes; narrower samples lie in its high bits. */
  readonly bytesPerSample: number;
  readonly numChannels: number;
  readonly littleEndian: boolean;
}

type ReadSample = (view: DataView, at: number) => number;

/** Whether samples of this layout can be read. */
export function isReadable({ encoding, bytesPerSample }: Layout): boolean {
  if (encoding === 'float') return bytesPerSample === 4 || bytesPerSample === 8;
  if (encoding === 'alaw' || encoding === 'mulaw') return bytesPerSample === 1;
  return bytesPerSample >= 1 && bytesPerSample <= 4;
}

/** Frames to one channel, the mean of all. @param bytes whole frames @returns [frames], full scale at -1 and 1 */
export function mixFrames(bytes: Uint8Array, layout: Layout): Float32Array {
  const { bytesPerSample, numChannels } = layout;
  const view = viewOf(bytes);
  const read = readerOf(layout);
  const out = new Float32Array(Math.floor(bytes.length / (bytesPerSample * numChannels)));
  for (let frame = 0, at = 0; frame < out.length; frame++) {
    let sum = 0;
    for (let channel = 0; channel < numChannels; channel++, at += bytesPerSample) sum += read(view, at);
    out[frame] = sum / numChannels;
  }
  return out;
}

/** The mean of channels that lie apart. @param channels of equal length */
export function mixChannels(channels: readonly Float32Array[]): Float32Array {
  const [first, second] = channels;
  if (!first) return new Float32Array(0);
  if (!second) return first;
  const out = new Float32Array(first.length);
  if (channels.length === 2) {
    for (let i = 0; i < out.length; i++) out[i] = (first[i]! + second[i]!) / 2;
    return out;
  }
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i]!;
    out[i] = sum / channels.length;
  }
  return out;
}

function readerOf({ encoding, bytesPerSample, littleEndian }: Layout): ReadSample {
  switch (encoding) {
    case 'float':
      return bytesPerSample === 4
        ? (view, at) => view.getFloat32(at, littleEndian)
        : (view, at) => view.getFloat64(at, littleEndian);
    case 'alaw':
      return (view, at) => A_LAW[view.getUint8(at)]!;
    case 'mulaw':
      return (view, at) => MU_LAW[view.getUint8(at)]!;
    case 'unsigned':
      if (bytesPerSample === 1) return (view, at) => (view.getUint8(at) - 128) / 128;
      return signedReader(bytesPerSample, littleEndian);
    case 'signed':
      return signedReader(bytesPerSample, littleEndian);
    default:
      return encoding satisfies never;
  }
}

function signedReader(bytesPerSample: number, littleEndian: boolean): ReadSample {
  switch (bytesPerSample) {
    case 1:
      return (view, at) => view.getInt8(at) / 2 ** 7;
    case 2:
      return (view, at) => view.getInt16(at, littleEndian) / 2 ** 15;
    case 3:
      return littleEndian
        ? (view, at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 2 ** 23
        : (view, at) => ((view.getInt8(at) << 16) | view.getUint16(at + 1, false)) / 2 ** 23;
    default:
      return (view, at) => view.getInt32(at, littleEndian) / 2 ** 31;
  }
}

/** ITU-T G.711: eight logarithmic segments of sixteen steps; bits are sent inverted. */
const A_LAW = Float32Array.from({ length: 256 }, (_, code) => {
  const bits = code ^ 0x55;
  const [segment, step] = [(bits >> 4) & 7, bits & 15];
  const size = segment === 0 ? 2 * step + 1 : (2 * step + 33) << (segment - 1);
  return ((bits & 0x80 ? 1 : -1) * size * 8) / 2 ** 15;
});
const MU_LAW = Float32Array.from({ length: 256 }, (_, code) => {
  const bits = ~code & 0xff;
  const size = ((2 * (bits & 15) + 33) << ((bits >> 4) & 7)) - 33;
  return ((bits & 0x80 ? -1 : 1) * size * 4) / 2 ** 15;
});
