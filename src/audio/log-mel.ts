// Log-mel features as Gemma 3n's extractor makes them: frames, pre-emphasis, window, magnitudes, mel filters, logarithm.
// Universal Speech Model, arXiv 2303.01037. Rounded to float32 where the reference rounds, in double precision where it is.

import FFT from 'fft.js';
import { type FeatureSettings, numFrames } from './feature-settings.js';
import { type MelFilter, melFilters } from './mel-filters.js';
import { hannWindow } from './window.js';

const round = Math.fround;

/** The tables of one extractor, and its scratch space. */
export class LogMel {
  readonly #settings: FeatureSettings;
  readonly #window: Float32Array;
  readonly #filters: readonly MelFilter[];
  readonly #fft: FFT;
  /** [fftLength]; zeros behind the frame. */
  readonly #frame: Float64Array;
  /** [2 fftLength], pairs. */
  readonly #spectrum: Float64Array;
  /** [fftLength / 2 + 1] */
  readonly #magnitudes: Float32Array;

  constructor(settings: FeatureSettings) {
    const { frameLength, fftLength } = settings;
    this.#settings = settings;
    this.#window = hannWindow(frameLength);
    this.#filters = melFilters(settings);
    this.#fft = new FFT(fftLength);
    this.#frame = new Float64Array(fftLength);
    this.#spectrum = new Float64Array(2 * fftLength);
    this.#magnitudes = new Float32Array(fftLength / 2 + 1);
  }

  /** Writes a clip's features: ln(max(floor, sum_k filter[m, k] |X[t, k]|)), less the bin's mean, over its deviation.
   *  @param wave padded, mono, at the extractor's rate, shape [samples]; changed where the settings scale or dither
   *  @param out [frames, melBins], frames as `numFrames` gives them */
  write(wave: Float32Array, out: Float32Array): void {
    const { hopLength, numMelBins } = this.#settings;
    this.#disturb(wave);
    const count = numFrames(wave.length, this.#settings);
    for (let t = 0; t < count; t++) {
      this.#emphasise(wave, t * hopLength);
      this.#measure();
      this.#mel(out, t * numMelBins);
    }
  }

  /** Noise and scale. The reference's noise differs from call to call; here a clip is the same each time. */
  #disturb(wave: Float32Array): void {
    const { dither, inputScale } = this.#settings;
    if (dither > 0) {
      const [deviation, noise] = [round(dither), gaussian()];
      for (let i = 0; i < wave.length; i++) wave[i] = wave[i]! + round(deviation * round(noise()));
    }
    if (inputScale !== 1) {
      const scale = round(inputScale);
      for (let i = 0; i < wave.length; i++) wave[i] = wave[i]! * scale;
    }
  }

  /** One frame, emphasised and windowed. Not HTK's looks one sample ahead of the frame instead of starting anew. */
  #emphasise(wave: Float32Array, at: number): void {
    const { frameLength, preemphasis, preemphasisHtk } = this.#settings;
    const [window, frame] = [this.#window, this.#frame];
    const p = round(preemphasis);
    if (preemphasis <= 0) {
      for (let n = 0; n < frameLength; n++) frame[n] = round(wave[at + n]! * window[n]!);
      return;
    }
    const first = preemphasisHtk ? 1 : 0;
    if (preemphasisHtk) frame[0] = round(round(wave[at]! * round(1 - preemphasis)) * window[0]!);
    const ahead = at + 1 - first;
    for (let n = first; n < frameLength; n++) {
      const value = round(wave[ahead + n]! - round(p * wave[ahead + n - 1]!));
      frame[n] = round(value * window[n]!);
    }
  }

  /** |X[k]| in float32 of a spectrum in float32: transformed in double precision, then rounded. */
  #measure(): void {
    this.#fft.realTransform(this.#spectrum, this.#frame);
    const [spectrum, magnitudes] = [this.#spectrum, this.#magnitudes];
    for (let k = 0; k < magnitudes.length; k++) {
      const re = round(spectrum[2 * k]!);
      const im = round(spectrum[2 * k + 1]!);
      magnitudes[k] = Math.sqrt(re * re + im * im);
    }
  }

  #mel(out: Float32Array, at: number): void {
    const { melFloor, perBinMean, perBinStddev } = this.#settings;
    const [filters, magnitudes] = [this.#filters, this.#magnitudes];
    for (let m = 0; m < filters.length; m++) {
      const { start, weights } = filters[m]!;
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i]! * magnitudes[start + i]!;
      const level = Math.log(Math.max(sum, melFloor)) - (perBinMean?.[m] ?? 0);
      out[at + m] = level / (perBinStddev?.[m] ?? 1);
    }
  }
}

/** Numbers of a normal distribution, the same sequence each time: a linear congruential generator, Box and Muller. */
function gaussian(): () => number {
  let state = 1;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
