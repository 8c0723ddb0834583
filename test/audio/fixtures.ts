// The clips of fixtures/reference/audio with what they hold (see test/reference/audio-files.py).

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../../fixtures/reference/audio/', import.meta.url));

/** What a clip holds, by libsndfile or ffmpeg. */
export interface Expected {
  readonly sourceRateHz: number;
  readonly numChannels: number;
  readonly numSourceSamples: number;
  /** Every `stride`-th sample of the mean of the channels at 16 kHz, float32 in base64. */
  readonly values: string;
}

interface Recorded {
  readonly stride: number;
  readonly clips: Readonly<Record<string, Expected>>;
  /** By rate: the last 400 samples of `noise` at 16 kHz. */
  readonly resampled: Readonly<Record<string, string>>;
}

export const recorded = JSON.parse(readFileSync(`${folder}expected.json`, 'utf8')) as Recorded;

export function clipBytes(name: string): Uint8Array {
  return new Uint8Array(readFileSync(folder + name));
}

export function floats(base64: string): Float32Array {
  const bytes = Uint8Array.from(Buffer.from(base64, 'base64'));
  return new Float32Array(bytes.buffer);
}

/** Clips that need the system's ffmpeg. */
export const throughFfmpeg: ReadonlySet<string> = new Set([
  ...['adpcm.wav', 'alac.m4a', 'aac.m4a', 'aac.aac', 'flac.mka', 'opus.webm', 'mulaw.au', 'video.mp4'],
]);

/** The largest distance of a clip from what it should hold. */
export function distance(name: string, data: Float32Array): number {
  const { stride, clips } = recorded;
  const values = floats(clips[name]!.values);
  return values.reduce(
    (worst, value, i) => Math.max(worst, Math.abs(value - (data[i * stride] ?? value))),
    0,
  );
}

/** Repeatable numbers in [0, 1). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** A WAV file with any header. @param fields of the 'fmt ' chunk, and sizes, where they are not what they should be */
export function wav(
  samples: Uint8Array,
  {
    code = 1,
    numChannels = 1,
    sampleRateHz = 16_000,
    bits = 16,
    blockAlign = (numChannels * bits) / 8,
    dataBytes = samples.length,
  }: {
    code?: number;
    numChannels?: number;
    sampleRateHz?: number;
    bits?: number;
    blockAlign?: number;
    dataBytes?: number;
  } = {},
): Uint8Array {
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE((36 + dataBytes) % 2 ** 32, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(code, 20);
  head.writeUInt16LE(numChannels, 22);
  head.writeUInt32LE(sampleRateHz, 24);
  head.writeUInt32LE((sampleRateHz * blockAlign) % 2 ** 32, 28);
  head.writeUInt16LE(blockAlign % 2 ** 16, 32);
  head.writeUInt16LE(bits, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(dataBytes % 2 ** 32, 40);
  return concat(head, samples);
}

/** Bytes of numbers. */
export function bytesOf(array: Float32Array | Int16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
