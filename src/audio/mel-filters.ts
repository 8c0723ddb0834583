// Triangular filters on the mel scale (HTK's, without area normalisation): mel(f) = 2595 log10(1 + f / 700). Each filter
// is a few neighbouring bins, so only those are kept.

import type { FeatureSettings } from './feature-settings.js';

export interface MelFilter {
  /** The first bin that it lets through. */
  readonly start: number;
  readonly weights: Float64Array;
}

/** A filter a mel bin, in double precision over frequencies in single precision, as the reference has them. */
export function melFilters(settings: FeatureSettings): MelFilter[] {
  const { numMelBins, fftLength, sampleRateHz } = settings;
  const edges = edgesOf(settings);
  const spacing = Math.fround(sampleRateHz / fftLength);
  const numBins = fftLength / 2 + 1;
  return Array.from({ length: numMelBins }, (_, mel) => {
    const [low, centre, high] = [edges[mel]!, edges[mel + 1]!, edges[mel + 2]!];
    const weights: number[] = [];
    let start = 0;
    for (let bin = 0; bin < numBins; bin++) {
      const frequency = Math.fround(bin * spacing);
      const rising = (frequency - low) / (centre - low);
      const falling = (high - frequency) / (high - centre);
      const weight = Math.max(0, Math.min(rising, falling));
      if (weight > 0 && weights.length === 0) start = bin;
      if (weight > 0) weights.push(weight);
      else if (weights.length > 0) break;
    }
    return { start, weights: Float64Array.from(weights) };
  });
}

/** Hz where filters begin, peak and end: evenly spaced in mel. */
function edgesOf({ numMelBins, minFrequencyHz, maxFrequencyHz }: FeatureSettings): number[] {
  const mel = (hz: number): number => 2595 * Math.log10(1 + hz / 700);
  const [first, last] = [mel(minFrequencyHz), mel(maxFrequencyHz)];
  const step = (last - first) / (numMelBins + 1);
  return Array.from({ length: numMelBins + 2 }, (_, i) => {
    const at = i === numMelBins + 1 ? last : first + i * step;
    return 700 * (10 ** (at / 2595) - 1);
  });
}
