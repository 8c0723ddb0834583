import { describe, expect, it } from 'vitest';
import { inputLength, resample, resampledLength } from '../../src/audio/resample.js';
import { floats, randomNumbers, recorded } from './fixtures.js';

function noise(length: number): Float32Array {
  const random = randomNumbers(1);
  return Float32Array.from({ length }, () => random() - 0.5);
}

const worst = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

describe('resampling', () => {
  it.each(Object.keys(recorded.resampled))(
    "from %s Hz is within 1e-6 of ffmpeg's, its end included",
    (rate) => {
      const expected = floats(recorded.resampled[rate]!);
      const ours = resample(noise(1024), Number(rate), 16_000);
      expect(ours.length).toBe(resampledLength(1024, Number(rate), 16_000));
      // ffmpeg may leave the last sample out: what it mirrors depends on how much it has buffered.
      const matches = [0, 1].map((short) => {
        const there = ours.subarray(0, ours.length - short);
        const length = Math.min(there.length, expected.length);
        return worst(expected.subarray(expected.length - length), there.subarray(there.length - length));
      });
      expect(Math.min(...matches)).toBeLessThan(1e-6);
    },
  );

  it('of a long wave is the same everywhere', () => {
    const wave = noise(2_400_000);
    const [whole, end] = [resample(wave, 48_000, 16_000), resample(wave.subarray(-300_000), 48_000, 16_000)];
    expect(worst(end.subarray(100), whole.subarray(-99_900))).toBeLessThan(1e-7);
  });

  it('leaves a wave of the wanted rate alone', () => {
    const wave = noise(100);
    expect(resample(wave, 16_000, 16_000)).toBe(wave);
    expect(resample(wave, 16_000, 16_000, 10)).toEqual(wave.subarray(0, 10));
  });

  it.each([8_000, 44_100, 44_099, 15_999, 192_000, 1_000])('keeps a constant from %i Hz', (rate) => {
    const out = resample(new Float32Array(3_000).fill(0.5), rate, 16_000);
    expect(out.length).toBe(Math.ceil((3_000 * 16_000) / rate));
    for (const value of out) expect(value).toBeCloseTo(0.5, 4);
  });

  it.each([8_000, 22_050, 44_100, 44_099])('from %i Hz needs no more input than it says', (rate) => {
    const wave = noise(6_000);
    const whole = resample(wave, rate, 16_000);
    for (const wanted of [1, 2, 77, 500]) {
      const enough = wave.slice(0, inputLength(wanted, rate, 16_000));
      expect(resample(enough, rate, 16_000, wanted)).toEqual(whole.slice(0, wanted));
    }
  });

  it('takes waves shorter than its filter, and none', () => {
    for (const length of [0, 1, 2, 5]) {
      const out = resample(new Float32Array(length).fill(1), 48_000, 16_000);
      expect(out.length).toBe(Math.ceil(length / 3));
      for (const value of out) expect(value).toBeCloseTo(1, 5);
    }
  });

  it('passes what both rates hold and stops what the lower cannot', () => {
    const tone = (hz: number): Float32Array =>
      Float32Array.from({ length: 48_000 }, (_, i) => Math.sin((2 * Math.PI * hz * i) / 48_000));
    const power = (wave: Float32Array): number =>
      wave.subarray(1_000, -1_000).reduce((sum, value) => sum + value * value, 0) / (wave.length - 2_000);
    expect(power(resample(tone(6_000), 48_000, 16_000))).toBeCloseTo(0.5, 3);
    expect(power(resample(tone(9_500), 48_000, 16_000))).toBeLessThan(1e-7);
  });
});
