// Clips to what the audio tower takes: resampled where needed, cut, padded to the longest, log-mel with its mask.

import { AudioError } from '../errors.js';
import { type FeatureSettings, numFrames, paddedLength } from './feature-settings.js';
import { LogMel } from './log-mel.js';
import { inputLength, resample, resampledLength } from './resample.js';
import { type DecodedAudio, MAX_RATE_HZ, MIN_RATE_HZ } from './types.js';

/** Clips as the model takes them. Owned by the caller. */
export interface AudioFeatures {
  /** float32 log-mel, natural logarithm. [clips, frames, melBins] */
  readonly features: { readonly data: Float32Array; readonly shape: readonly [number, number, number] };
  /** 1 on frames that begin in the clip, 0 on padding. [clips, frames] */
  readonly mask: { readonly data: Uint8Array; readonly shape: readonly [number, number] };
  /** What was left out, a line a clip that was cut. */
  readonly notices: readonly string[];
}

/** Log-mel features of clips, padded to the longest, as Gemma 3n's feature extractor makes them (within 1e-5).
 *  Takes 8 ms for 5 s of sound: see `audioFeaturesInThread`.
 *  @param clips mono, any rate that the resampler takes, at least one
 *  @throws {AudioError} naming the clip that has no samples, some that are not finite, or a rate that is none; and when no
 *    clip is long enough for a frame
 *  @example audioFeatures([await decodeAudio(bytes)], featureSettings({}, 'defaults')) */
export function audioFeatures(clips: readonly DecodedAudio[], settings: FeatureSettings): AudioFeatures {
  if (clips.length === 0) {
    throw new AudioError({
      where: 'audio',
      expected: 'a clip',
      received: 'none',
      remedy: 'pass at least one',
    });
  }
  const { shape, mask, notices, lengths, numSamples } = audioFeatureShape(clips, settings);
  const [, frames, numMelBins] = shape;
  const { sampleRateHz, paddingValue, paddingSide } = settings;

  const features = new Float32Array(clips.length * frames * numMelBins);
  const logMel = logMelOf(settings);
  for (const [index, { data, sampleRateHz: ownRate }] of clips.entries()) {
    const wave = resample(data, ownRate, sampleRateHz, lengths[index]);
    const padded = new Float32Array(numSamples).fill(paddingValue);
    padded.set(wave, paddingSide === 'left' ? numSamples - wave.length : 0);
    logMel.write(padded, features.subarray(index * frames * numMelBins, (index + 1) * frames * numMelBins));
  }
  return { features: { data: features, shape }, mask, notices };
}

/** What is known of features before they are made. */
export interface AudioFeatureShape extends Pick<AudioFeatures, 'mask' | 'notices'> {
  readonly shape: AudioFeatures['features']['shape'];
  /** What is heard of each clip, in samples at the extractor's rate. [clips] */
  readonly lengths: readonly number[];
  /** Of the longest clip, padding included. */
  readonly numSamples: number;
}

/** Shape, mask and notices of what `audioFeatures` gives.
 *  @param isFinite true for samples that are known to be finite numbers; they are not looked at
 *  @throws {AudioError} as `audioFeatures` */
export function audioFeatureShape(
  clips: readonly DecodedAudio[],
  settings: FeatureSettings,
  isFinite: (data: Float32Array) => boolean = () => false,
): AudioFeatureShape {
  const { numMelBins, hopLength, paddingSide } = settings;
  const notices: string[] = [];
  const lengths = clips.map((clip, index) => {
    const where = `clip ${index}`;
    check(clip, where, settings);
    if (!isFinite(clip.data)) checkFinite(clip, where);
    return heardLength(clip, where, settings, notices);
  });
  const numSamples = paddedLength(Math.max(...lengths), settings);
  const frames = numFrames(numSamples, settings);
  if (frames === 0) throw tooShort(lengths, settings);

  const mask = new Uint8Array(clips.length * frames);
  for (const [index, length] of lengths.entries()) {
    const start = paddingSide === 'left' ? numSamples - length : 0;
    const row = mask.subarray(index * frames, (index + 1) * frames);
    for (let t = 0; t < frames; t++) {
      row[t] = t * hopLength >= start && t * hopLength < start + length ? 1 : 0;
    }
  }
  return {
    shape: [clips.length, frames, numMelBins],
    mask: { data: mask, shape: [clips.length, frames] },
    notices,
    lengths,
    numSamples,
  };
}

/** The beginning of a clip that its features are made of: its own array, no longer than needed.
 *  @throws {AudioError} when the clip has no samples, or a rate that is none */
export function heardOf(clip: DecodedAudio, where: string, settings: FeatureSettings): DecodedAudio {
  check(clip, where, settings);
  const { data, sampleRateHz, cutFromSeconds } = clip;
  const needed = inputLength(heardSamples(settings), sampleRateHz, settings.sampleRateHz) + 1;
  if (data.length <= needed) return { ...clip, data: data.slice() };
  const seconds = Math.max(data.length / sampleRateHz, cutFromSeconds ?? 0);
  return { data: data.slice(0, needed), sampleRateHz, cutFromSeconds: seconds };
}

/** Samples of a clip at the extractor's rate, cut where it ends. */
function heardLength(
  { data, sampleRateHz, cutFromSeconds = 0 }: DecodedAudio,
  where: string,
  settings: FeatureSettings,
  notices: string[],
): number {
  const { sampleRateHz: rate } = settings;
  const limit = heardSamples(settings);
  const whole = resampledLength(data.length, sampleRateHz, rate);
  const heard = Math.min(whole, limit);
  if (cutFromSeconds > 0 || whole > limit) {
    const lasts = Math.max(data.length / sampleRateHz, cutFromSeconds);
    notices.push(`${where} lasts ${seconds(lasts)}: only its first ${seconds(heard / rate)} are heard`);
  }
  return heard;
}

function checkFinite({ data, sampleRateHz }: DecodedAudio, where: string): void {
  const bad = firstNotFinite(data);
  if (bad < 0) return;
  throw new AudioError({
    where,
    expected: 'samples that are finite numbers',
    received: `${data[bad]} at ${(bad / sampleRateHz).toFixed(3)} s`,
    remedy: 'repair or drop the row',
  });
}

function check(
  { data, sampleRateHz }: DecodedAudio,
  where: string,
  { sampleRateHz: rate }: FeatureSettings,
): void {
  if (!(data instanceof Float32Array) || data.length === 0) {
    throw new AudioError({
      where,
      expected: 'at least one sample, as Float32Array',
      received: data instanceof Float32Array ? 'none' : typeof data,
      remedy: 'the clip is empty: fetch it again, or drop the row',
    });
  }
  if (!Number.isInteger(sampleRateHz) || sampleRateHz < MIN_RATE_HZ || sampleRateHz > MAX_RATE_HZ) {
    throw new AudioError({
      where,
      expected: `samples at ${rate} Hz, or at a rate from ${MIN_RATE_HZ} to ${MAX_RATE_HZ} Hz to be changed to that`,
      received: `${sampleRateHz} Hz`,
      remedy: 'pass the rate that the clip was recorded at',
    });
  }
}

function tooShort(lengths: readonly number[], settings: FeatureSettings): AudioError {
  const { frameLength, sampleRateHz } = settings;
  const ms = (samples: number): string =>
    `${samples} samples (${((samples / sampleRateHz) * 1e3).toFixed(1)} ms)`;
  const longest = lengths.indexOf(Math.max(...lengths));
  return new AudioError({
    where: `clip ${longest}`,
    expected: `at least one frame's ${ms(frameLength + 1)}, padding included`,
    received: ms(lengths[longest] ?? 0),
    remedy: 'drop clips that are too short to hear anything in',
  });
}

/** A loop: findIndex takes ten times as long. */
function firstNotFinite(data: Float32Array): number {
  for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i]!)) return i;
  return -1;
}

/** The most samples of a clip; padding to a multiple leaves room for some more than `maxSamples`. */
function heardSamples(settings: FeatureSettings): number {
  return paddedLength(settings.maxSamples, settings);
}

function seconds(value: number): string {
  return `${value.toFixed(1)} s`;
}

/** The last extractor's tables: a run has one. */
let kept: { readonly key: string; readonly logMel: LogMel } | undefined;

function logMelOf(settings: FeatureSettings): LogMel {
  const key = JSON.stringify(settings);
  if (kept?.key !== key) kept = { key, logMel: new LogMel(settings) };
  return kept.logMel;
}
