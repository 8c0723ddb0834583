// How a model wants its clips: preprocessor_config.json as Hugging Face writes it (Gemma 3n's feature extractor), decoded.

import { AudioError } from '../errors.js';
import { decode, z } from '../schema.js';
import { MAX_RATE_HZ, MIN_RATE_HZ } from './types.js';

/** What happens to a wave before the model hears it. Plain, so that it can be sent to a thread. */
export interface FeatureSettings {
  /** Length of a frame's features. */
  readonly numMelBins: number;
  readonly sampleRateHz: number;
  /** Samples that a frame sees, but for one more that the pre-emphasis looks at. */
  readonly frameLength: number;
  /** Samples from one frame's beginning to the next one's. */
  readonly hopLength: number;
  /** A power of two, at least `frameLength`. */
  readonly fftLength: number;
  /** Where the mel filters begin and end. */
  readonly minFrequencyHz: number;
  readonly maxFrequencyHz: number;
  /** p of x[n] - p x[n-1]; 0 and below: none. */
  readonly preemphasis: number;
  /** Each frame's first sample becomes x[0] (1 - p) instead of looking at the one before it. */
  readonly preemphasisHtk: boolean;
  /** Standard deviation of noise that is added to the wave; 0: none. */
  readonly dither: number;
  readonly inputScale: number;
  /** The least that a mel bin is taken for before the logarithm. */
  readonly melFloor: number;
  /** Taken from the logarithm, a number a bin; then divided by. */
  readonly perBinMean?: readonly number[];
  readonly perBinStddev?: readonly number[];
  /** What fills a clip that is shorter than the longest beside it. */
  readonly paddingValue: number;
  readonly paddingSide: 'right' | 'left';
  /** Clips are padded to a multiple of so many samples. */
  readonly padToMultipleOf: number;
  /** Longer clips are cut here, and say so. */
  readonly maxSamples: number;
}

/** The extractor's arguments that no file sets. */
const PAD_TO_MULTIPLE_OF = 128;
const MAX_SAMPLES = 480_000;
/** Beyond these a file is not a model's: what is allocated grows with them. */
const MAX_FRAME_LENGTH = 2 ** 16;
const MAX_MEL_BINS = 4096;

const FAMILY = 'Gemma3nAudioFeatureExtractor';

const finite = z.number();
const perBin = z.array(finite).nullish();

// Not strict: the file is not ours, and holds the image processor's keys as well. frame_length, hop_length and fft_length
// are among them: transformers writes them and, reading, derives them anew from the milliseconds, as is done here.
const schema = z.object({
  feature_extractor_type: z.string().nullish(),
  feature_size: z.int().min(1).max(MAX_MEL_BINS).default(128),
  sampling_rate: z.int().min(MIN_RATE_HZ).max(MAX_RATE_HZ).default(16_000),
  padding_value: finite.default(0),
  padding_side: z.enum(['right', 'left']).default('right'),
  frame_length_ms: finite.positive().default(32),
  hop_length_ms: finite.positive().default(10),
  min_frequency: finite.nonnegative().default(125),
  max_frequency: finite.positive().default(7600),
  preemphasis: finite.default(0.97),
  preemphasis_htk_flavor: z.boolean().default(true),
  fft_overdrive: z.boolean().default(true),
  dither: finite.nonnegative().default(0),
  input_scale_factor: finite.default(1),
  mel_floor: finite.positive().default(1e-5),
  per_bin_mean: perBin,
  per_bin_stddev: perBin,
});

/** Decodes the audio part of a preprocessor_config.json; what it leaves out is as in Gemma 3n's extractor.
 *  @param value the file's object @param where names it in errors
 *  @throws {ConfigError} on values of the wrong type or out of range
 *  @throws {AudioError} on another model's extractor, and on values that contradict each other */
export function featureSettings(value: unknown, where: string): FeatureSettings {
  const config = decode(schema, value, where);
  const fault = (key: string, expected: string, received: unknown): AudioError =>
    new AudioError({
      where: `${where}: ${key}`,
      expected,
      received: typeof received === 'string' ? received : JSON.stringify(received),
      remedy: "use the model's own preprocessor_config.json",
    });
  const family = config.feature_extractor_type ?? FAMILY;
  if (family !== FAMILY) throw fault('feature_extractor_type', FAMILY, family);

  const { sampling_rate: rate, feature_size: numMelBins } = config;
  const frameLength = roundHalfEven((rate * config.frame_length_ms) / 1000);
  const hopLength = roundHalfEven((rate * config.hop_length_ms) / 1000);
  if (frameLength < 2 || frameLength > MAX_FRAME_LENGTH) {
    const received = `${config.frame_length_ms} ms, ${frameLength} samples at ${rate} Hz`;
    throw fault('frame_length_ms', `a frame of 2 to ${MAX_FRAME_LENGTH} samples`, received);
  }
  if (hopLength < 1) {
    const received = `${config.hop_length_ms} ms, none at ${rate} Hz`;
    throw fault('hop_length_ms', 'at least one sample from frame to frame', received);
  }
  const { min_frequency: minFrequencyHz, max_frequency: maxFrequencyHz } = config;
  if (minFrequencyHz >= maxFrequencyHz) {
    throw fault('max_frequency', `more than min_frequency, ${minFrequencyHz} Hz`, maxFrequencyHz);
  }
  const { per_bin_mean: perBinMean, per_bin_stddev: perBinStddev } = config;
  for (const [key, list] of Object.entries({ per_bin_mean: perBinMean, per_bin_stddev: perBinStddev })) {
    if (list && list.length !== numMelBins) {
      throw fault(key, `${numMelBins} numbers, as feature_size says`, `${list.length}`);
    }
  }
  if (perBinStddev?.includes(0)) throw fault('per_bin_stddev', 'numbers other than 0', 0);

  const fftLength = 2 ** Math.ceil(Math.log2(frameLength)) * (config.fft_overdrive ? 2 : 1);
  return {
    numMelBins,
    sampleRateHz: rate,
    frameLength,
    hopLength,
    fftLength,
    minFrequencyHz,
    maxFrequencyHz,
    preemphasis: config.preemphasis,
    preemphasisHtk: config.preemphasis_htk_flavor,
    dither: config.dither,
    inputScale: config.input_scale_factor,
    melFloor: config.mel_floor,
    ...(perBinMean && { perBinMean }),
    ...(perBinStddev && { perBinStddev }),
    paddingValue: config.padding_value,
    paddingSide: config.padding_side,
    padToMultipleOf: PAD_TO_MULTIPLE_OF,
    maxSamples: MAX_SAMPLES,
  };
}

/** Frames of a wave that is padded already; a frame takes one sample more than its length. */
export function numFrames(numSamples: number, { frameLength, hopLength }: FeatureSettings): number {
  return Math.max(0, Math.floor((numSamples - frameLength - 1) / hopLength) + 1);
}

/** Samples after padding to a multiple. */
export function paddedLength(numSamples: number, { padToMultipleOf }: FeatureSettings): number {
  return Math.ceil(numSamples / padToMultipleOf) * padToMultipleOf;
}

/** Bytes of the longest clip's features and mask. */
export function maxFeatureBytes(settings: FeatureSettings): number {
  const frames = numFrames(paddedLength(settings.maxSamples, settings), settings);
  return frames * (settings.numMelBins * Float32Array.BYTES_PER_ELEMENT + 1);
}

/** As Python's round. */
function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
