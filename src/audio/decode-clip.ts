// One clip from bytes to samples at the rate that the model hears: decoded until enough is there, checked, resampled.

import { AudioError } from '../errors.js';
import { openAiff } from './aiff.js';
import { damaged, noSamples } from './faults.js';
import { openFlac } from './flac.js';
import type { Format } from './format.js';
import { openMp3 } from './mp3.js';
import { openOgg } from './ogg.js';
import { inputLength, resample } from './resample.js';
import type { Source } from './source.js';
import type { DecodedAudio, Stream } from './types.js';
import { openWav } from './wav.js';

/** What is wanted of a clip. */
export interface ClipRequest {
  readonly where: string;
  readonly format: Format;
  readonly maxSeconds: number;
  readonly sampleRateHz: number;
}

const openers: Readonly<Record<Format, (source: Source, where: string) => Promise<Stream>>> = {
  wav: openWav,
  aiff: openAiff,
  mp3: openMp3,
  flac: openFlac,
  ogg: openOgg,
};
const names: Readonly<Record<Format, string>> = {
  wav: 'WAV',
  aiff: 'AIFF',
  mp3: 'MP3',
  flac: 'FLAC',
  ogg: 'Ogg',
};

/** A decoder stopped in a way that may have left it broken for the next clip. */
export class DecoderBroken extends AudioError {}

/** Decodes a clip here, on this thread.
 *  @throws {AudioError} when it is damaged, empty, or holds samples that are no numbers
 *  @throws {NeedsFfmpeg} when its codec is not one of ours */
export async function decodeClip(source: Source, request: ClipRequest): Promise<DecodedAudio> {
  const { where, format, maxSeconds, sampleRateHz } = request;
  try {
    const stream = await openers[format](source, where);
    return await take(stream, where, maxSeconds, sampleRateHz);
  } catch (error) {
    if (error instanceof AudioError) throw error;
    throw new DecoderBroken(damaged(where, names[format], error).message, { cause: error });
  }
}

async function take(
  stream: Stream,
  where: string,
  maxSeconds: number,
  sampleRateHz: number,
): Promise<DecodedAudio> {
  const maxSamples = Math.round(maxSeconds * sampleRateHz);
  const enough = inputLength(maxSamples, stream.sampleRateHz, sampleRateHz) + 1;
  const { wave, isWhole } = await collect(stream, where, enough);
  if (wave.length === 0) throw noSamples(where);
  const data = resample(wave, stream.sampleRateHz, sampleRateHz, maxSamples);
  const seconds = wave.length / stream.sampleRateHz;
  if (isWhole && seconds <= maxSeconds) return { data: own(data), sampleRateHz };
  const whole = isWhole ? seconds : Math.max(seconds, (await stream.totalSeconds()) ?? 0);
  return { data: own(data), sampleRateHz, cutFromSeconds: whole };
}

/** Samples until there are `enough`, or all. */
async function collect(
  { pieces, sampleRateHz }: Stream,
  where: string,
  enough: number,
): Promise<{ wave: Float32Array; isWhole: boolean }> {
  const kept: Float32Array[] = [];
  let length = 0;
  let isWhole = true;
  for await (const piece of pieces) {
    if (!isFinite(piece)) {
      const bad = piece.findIndex((sample) => !Number.isFinite(sample));
      throw notFinite(where, piece[bad]!, (length + bad) / sampleRateHz);
    }
    kept.push(piece);
    length += piece.length;
    if (length < enough) continue;
    isWhole = false;
    break;
  }
  const wave = new Float32Array(length);
  let at = 0;
  for (const piece of kept) {
    wave.set(piece, at);
    at += piece.length;
  }
  return { wave, isWhole };
}

/** Zero times anything finite is zero. */
function isFinite(piece: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < piece.length; i++) sum += piece[i]! * 0;
  return sum === 0;
}

function notFinite(where: string, sample: number, seconds: number): AudioError {
  return new AudioError({
    where,
    expected: 'samples that are finite numbers',
    received: `${sample} at ${seconds.toFixed(3)} s`,
    remedy: 'repair or drop the row',
  });
}

/** An array that can be handed over: of no more memory than it needs. */
function own(data: Float32Array): Float32Array {
  return data.byteLength === data.buffer.byteLength ? data : data.slice();
}
