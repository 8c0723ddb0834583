import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type FeatureSettings, featureSettings, maxFeatureBytes } from '../../src/audio/feature-settings.js';
import { audioFeatures } from '../../src/audio/features.js';
import { AudioError, ConfigError } from '../../src/errors.js';
import { type WaveSpec, wave } from '../reference/waves.js';

interface Case {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly sounds: readonly WaveSpec[];
  readonly shape: readonly [clips: number, frames: number, bins: number];
  /** Frames whose features are stored. */
  readonly stored: readonly number[];
  /** '1' and '0' a frame; of long clips the number of ones. */
  readonly mask: readonly (string | number)[];
}

const folder = new URL('../../fixtures/reference/log-mel/', import.meta.url);
const cases = JSON.parse(readFileSync(fileURLToPath(new URL('cases.json', folder)), 'utf8')) as Case[];
const blob = readFileSync(fileURLToPath(new URL('features.bin', folder)));
const values = new Float32Array(blob.buffer.slice(blob.byteOffset, blob.byteOffset + blob.length));

/** Each case beside where its values begin. */
let offset = 0;
const placed = cases.map((entry) => {
  const at = offset;
  const [clips, frames, bins] = entry.shape;
  offset += clips * (entry.stored.length * bins + frames);
  return [entry.name, entry, at] as const;
});

const defaults = featureSettings({}, 'defaults');
const clip = (data: Float32Array, sampleRateHz = 16_000) => ({ data, sampleRateHz });
const noise = (samples: number) => clip(wave({ kind: 'noise', samples }));

describe('log-mel features', () => {
  it.each(placed)('equal the reference: %s', (_name, { config, sounds, shape, stored, mask }, at) => {
    const settings = featureSettings(config, 'test');
    const clips = sounds.map((sound) => clip(wave(sound), settings.sampleRateHz));
    const { features, mask: ours } = audioFeatures(clips, settings);
    const [numClips, frames, bins] = shape;
    expect(features.shape).toEqual(shape);
    expect(ours.shape).toEqual([numClips, frames]);
    const row = (c: number, t: number) =>
      features.data.subarray((c * frames + t) * bins, (c * frames + t + 1) * bins);
    let worst = 0;
    for (let c = 0; c < numClips; c++) {
      for (const t of stored) {
        for (const value of row(c, t)) worst = Math.max(worst, Math.abs(value - values[at++]!));
      }
    }
    let worstMean = 0;
    for (let c = 0; c < numClips; c++) {
      for (let t = 0; t < frames; t++) {
        const mean = row(c, t).reduce((sum, value) => sum + value, 0) / bins;
        worstMean = Math.max(worstMean, Math.abs(mean - values[at++]!));
      }
    }
    expect(worst).toBeLessThan(1e-5);
    expect(worstMean).toBeLessThan(1e-5);
    for (const [c, expected] of mask.entries()) {
      const bits = [...ours.data.subarray(c * frames, (c + 1) * frames)];
      if (typeof expected === 'string') expect(bits.join('')).toBe(expected);
      else expect(bits.indexOf(0) < 0 ? frames : bits.indexOf(0)).toBe(expected);
    }
  });

  it('say which clip was cut, and leave the others alone', () => {
    expect(audioFeatures([noise(480_000)], defaults).notices).toEqual([]);
    expect(audioFeatures([noise(600), noise(560_000)], defaults).notices).toEqual([
      'clip 1 lasts 35.0 s: only its first 30.0 s are heard',
    ]);
    const cut = { ...noise(160_000), cutFromSeconds: 36_000 };
    expect(audioFeatures([cut], defaults).notices).toEqual([
      'clip 0 lasts 36000.0 s: only its first 10.0 s are heard',
    ]);
  });

  it('hear a clip of another rate as if it had been resampled before', () => {
    const tone = (rate: number) =>
      clip(wave({ kind: 'tone', samples: rate, rate, hz: 500, level: 0.8 }), rate);
    const there = audioFeatures([tone(16_000)], defaults).features;
    const here = audioFeatures([tone(44_100)], defaults).features;
    expect(here.shape).toEqual(there.shape);
    // The bins around the tone, in the middle of the clip: elsewhere there is rounding noise alone.
    const loudest = (data: Float32Array) => Math.max(...data.subarray(48 * 128, 49 * 128));
    expect(loudest(here.data)).toBeCloseTo(loudest(there.data), 3);
  });

  it('do not change the wave, also where it is scaled', () => {
    const { data } = noise(2000);
    const before = data.slice();
    audioFeatures([clip(data)], featureSettings({ input_scale_factor: 2, dither: 0.1 }, 'test'));
    expect(data).toEqual(before);
  });

  it('are the same each time where the settings ask for dither', () => {
    const settings = featureSettings({ dither: 1e-3 }, 'test');
    const silence = clip(new Float32Array(16_000));
    const [first, second] = [0, 0].map(() => audioFeatures([silence], settings).features.data);
    expect(second).toEqual(first);
    const { data } = audioFeatures([silence], defaults).features;
    expect(new Set(data)).toEqual(new Set([Math.fround(Math.log(1e-5))]));
    // Noise of this deviation has a known mean magnitude: sqrt(pi / 2 * sum of squares / 2).
    const middle = first!.reduce((sum, value) => sum + value, 0) / first!.length;
    expect(middle).toBeGreaterThan(-7);
    expect(middle).toBeLessThan(-3);
  });
});

describe('clips that cannot be heard', () => {
  const features = (...clips: Parameters<typeof audioFeatures>[0]) => audioFeatures(clips, defaults);

  it.each([
    [
      'zero length',
      [noise(600), clip(new Float32Array(0))],
      'clip 1: expected at least one sample, as Float32Array, received none; the clip is empty: fetch it again, or drop the row',
    ],
    [
      'samples that are no numbers',
      [clip(Float32Array.from({ length: 4000 }, (_, i) => (i === 800 ? NaN : 0)))],
      'clip 0: expected samples that are finite numbers, received NaN at 0.050 s; repair or drop the row',
    ],
    [
      'infinite samples',
      [clip(Float32Array.of(0, -Infinity))],
      'clip 0: expected samples that are finite numbers, received -Infinity at 0.000 s; repair or drop the row',
    ],
    [
      'a rate that is none',
      [clip(new Float32Array(4000), 0)],
      'clip 0: expected samples at 16000 Hz, or at a rate from 1000 to 768000 Hz to be changed to that, received 0 Hz; ' +
        'pass the rate that the clip was recorded at',
    ],
    [
      'less than a frame',
      [noise(100), noise(512)],
      "clip 1: expected at least one frame's 513 samples (32.1 ms), padding included, received 512 samples (32.0 ms); " +
        'drop clips that are too short to hear anything in',
    ],
    ['none at all', [], 'audio: expected a clip, received none; pass at least one'],
  ])('are named: %s', (_name, clips, message) => {
    expect(() => features(...clips)).toThrow(AudioError);
    expect(() => features(...clips)).toThrow(message);
  });
});

describe('featureSettings', () => {
  it("takes a whole preprocessor_config.json, derived lengths included, and says what a clip's features weigh", () => {
    const path = new URL('../../fixtures/tiny-gemma3n/preprocessor_config.json', import.meta.url);
    const settings = featureSettings(JSON.parse(readFileSync(fileURLToPath(path), 'utf8')), 'tiny');
    expect(settings).toEqual(defaults);
    expect(settings).toMatchObject({ frameLength: 512, hopLength: 160, fftLength: 1024, numMelBins: 128 });
    expect(maxFeatureBytes(settings)).toBe(2997 * (128 * 4 + 1));
  });

  it('derives lengths from the milliseconds, as the reference does, whatever the file says of them', () => {
    const stale = { frame_length: 400, hop_length: 100, fft_length: 512 };
    expect(featureSettings(stale, 'test')).toEqual(defaults);
    const { frameLength, hopLength, fftLength } = featureSettings({ ...stale, sampling_rate: 8000 }, 'test');
    expect([frameLength, hopLength, fftLength]).toEqual([256, 80, 512]);
  });

  it('lists every value of the wrong type or out of range', () => {
    const config = { feature_size: 0, preemphasis: '0.97', mel_floor: 0, padding_side: 'top', dither: -1 };
    expect(() => featureSettings(config, 'f.json')).toThrow(ConfigError);
    for (const key of Object.keys(config)) {
      expect(() => featureSettings(config, 'f.json')).toThrow(new RegExp(`f\\.json: ${key}: `));
    }
  });

  it.each<[string, Record<string, unknown>, string]>([
    [
      'another extractor',
      { feature_extractor_type: 'WhisperFeatureExtractor' },
      "f.json: feature_extractor_type: expected Gemma3nAudioFeatureExtractor, received WhisperFeatureExtractor; use the model's own preprocessor_config.json",
    ],
    [
      'frequencies in disorder',
      { min_frequency: 4000, max_frequency: 300 },
      'f.json: max_frequency: expected more than min_frequency, 4000 Hz, received 300;',
    ],
    [
      'a mean of another length',
      { per_bin_mean: [1, 2, 3] },
      'f.json: per_bin_mean: expected 128 numbers, as feature_size says, received 3;',
    ],
    [
      'a deviation of 0',
      { feature_size: 2, per_bin_stddev: [1, 0] },
      'f.json: per_bin_stddev: expected numbers other than 0, received 0;',
    ],
    [
      'frames without samples',
      { frame_length_ms: 0.01 },
      'f.json: frame_length_ms: expected a frame of 2 to 65536 samples, received 0.01 ms, 0 samples at 16000 Hz;',
    ],
    [
      'frames without end',
      { frame_length_ms: 1e9 },
      'f.json: frame_length_ms: expected a frame of 2 to 65536 samples, received',
    ],
    [
      'frames on the spot',
      { hop_length_ms: 0.001 },
      'f.json: hop_length_ms: expected at least one sample from frame to frame, received 0.001 ms, none at 16000 Hz;',
    ],
  ])('refuses %s', (_name, config, message) => {
    expect(() => featureSettings(config, 'f.json')).toThrow(AudioError);
    expect(() => featureSettings(config, 'f.json')).toThrow(message);
  });

  it('gives settings that need no more room than the reference ones for any frame', () => {
    const { fftLength }: FeatureSettings = featureSettings({ frame_length_ms: 4096 }, 'test');
    expect(fftLength).toBe(2 ** 17);
  });
});
