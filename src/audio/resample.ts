// Change of sampling rate by a windowed sinc: the filter that FFmpeg's libswresample builds by default (Kaiser window,
// beta 9, 32 zero crossings, cut off at 0.97 of the lower Nyquist frequency), its taps in double precision.
// Within 1e-6 of it at rates in use; within 1e-5 where the ratio of the rates needs more than 1024 phases (15,999 Hz).
// Output sample k lies at input position k * from / to; there, y = sum_i h(i - position) x[i].

import { type Kernel, KERNEL_FLOATS, makeKernel } from './resample-kernel.js';

const ZERO_CROSSINGS = 32;
const CUTOFF = 0.97;
const BETA = 9;
/** Rates whose ratio needs more phases share these, and take the values between them by interpolation. */
const MAX_PHASES = 1024;
/** Filters kept for the next clips. */
const KEPT_FILTERS = 8;

interface Filter {
  readonly numTaps: number;
  readonly numPhases: number;
  /** [numPhases + 1, numTaps]: taps of each phase; the last row is the first, one sample later. */
  readonly taps: Float64Array;
  /** Where `position = k * step / numPhases`; whole where the phases are exact. */
  readonly step: number;
  /** The taps as the kernel wants them, where it can: [numPhases, a multiple of 8]. */
  readonly rows: Float32Array | undefined;
}

const kept = new Map<string, Filter>();
let kernel: Kernel | undefined | 'not asked for' = 'not asked for';

/** Samples that come out of `numSamples`: one for each output position that lies on or before the last input sample. */
export function resampledLength(numSamples: number, fromHz: number, toHz: number): number {
  return Math.ceil((numSamples * toHz) / fromHz);
}

/** Input samples that decide the first `numSamples` of the output, whatever follows them. */
export function inputLength(numSamples: number, fromHz: number, toHz: number): number {
  if (fromHz === toHz) return numSamples;
  return Math.floor((numSamples * fromHz) / toHz) + numTaps(fromHz, toHz) / 2 + 1;
}

/** Changes the sampling rate. At its ends the wave goes on mirrored (about the first sample, and after the last).
 *  @param wave mono, shape [samples] @param maxSamples gives the beginning alone
 *  @returns [min(maxSamples, ceil(samples * toHz / fromHz))]; `wave` itself, or a view of it, where the rates are equal */
export function resample(
  wave: Float32Array,
  fromHz: number,
  toHz: number,
  maxSamples = Infinity,
): Float32Array {
  if (fromHz === toHz) return wave.length > maxSamples ? wave.subarray(0, maxSamples) : wave;
  const filter = filterOf(fromHz, toHz);
  const out = new Float32Array(Math.min(maxSamples, resampledLength(wave.length, fromHz, toHz)));
  if (out.length === 0) return out;
  const padded = mirrorEnds(wave, filter.numTaps);
  if (resampleFast(padded, filter, out)) return out;
  const { numTaps: taps, numPhases, step } = filter;
  const exact = Number.isInteger(step);
  for (let k = 0; k < out.length; k++) {
    const place = k * step;
    const index = Math.floor(place);
    const start = Math.floor(index / numPhases);
    const row = (index - start * numPhases) * taps;
    const value = dot(padded, start, filter.taps, row, taps);
    const between = exact ? 0 : place - index;
    out[k] =
      between === 0 ? value : value + between * (dot(padded, start, filter.taps, row + taps, taps) - value);
  }
  return out;
}

/** The same in blocks that fit the kernel's memory: taps, then wave, then what comes out. @returns whether it could */
function resampleFast(padded: Float32Array, filter: Filter, out: Float32Array): boolean {
  if (kernel === 'not asked for') kernel = makeKernel();
  const { rows, numPhases, step } = filter;
  if (!kernel || !rows) return false;
  const { memory, run } = kernel;
  const row = rows.length / numPhases;
  const advance = step / numPhases;
  const block = Math.floor((KERNEL_FLOATS - rows.length - 2 * row - 4) / (advance + 1));
  memory.set(rows);
  for (let done = 0; done < out.length; done += block) {
    const count = Math.min(block, out.length - done);
    const start = Math.floor((done * step) / numPhases);
    const wave = padded.subarray(start, start + Math.ceil(count * advance) + row + 1);
    const target = rows.length + wave.length + row;
    memory.set(wave, rows.length);
    // Behind the end, taps of zero meet whatever is there: it must be finite.
    memory.fill(0, rows.length + wave.length, target);
    const whole = 4 * Math.floor(advance);
    const phase = done * step - start * numPhases;
    run(4 * rows.length, 0, 4 * target, count, 4 * row, numPhases, whole, step % numPhases, phase);
    out.set(memory.subarray(target, target + count), done);
  }
  return true;
}

/** Two sums at once, which the processor adds side by side. `taps` is even. */
function dot(x: Float32Array, from: number, h: Float64Array, row: number, taps: number): number {
  let even = 0;
  let odd = 0;
  for (const end = from + taps; from < end; from += 2, row += 2) {
    even += x[from]! * h[row]!;
    odd += x[from + 1]! * h[row + 1]!;
  }
  return even + odd;
}

/** The wave with what the filter reaches before its first sample and after its last one. */
function mirrorEnds(wave: Float32Array, taps: number): Float32Array {
  const [before, after] = [taps / 2 - 1, taps / 2];
  const padded = new Float32Array(before + wave.length + after);
  padded.set(wave, before);
  const last = wave.length - 1;
  for (let i = 1; i <= before; i++) padded[before - i] = wave[Math.min(i, last)]!;
  for (let i = 0; i < after; i++) padded[before + wave.length + i] = wave[Math.max(last - i, 0)]!;
  return padded;
}

function filterOf(fromHz: number, toHz: number): Filter {
  const key = `${fromHz} ${toHz}`;
  const filter = kept.get(key) ?? makeFilter(fromHz, toHz);
  kept.delete(key);
  kept.set(key, filter);
  const oldest = kept.size > KEPT_FILTERS ? kept.keys().next().value : undefined;
  if (oldest !== undefined) kept.delete(oldest);
  return filter;
}

const narrowing = (fromHz: number, toHz: number): number => Math.min((CUTOFF * toHz) / fromHz, 1);

function numTaps(fromHz: number, toHz: number): number {
  const taps = Math.ceil(ZERO_CROSSINGS / narrowing(fromHz, toHz));
  return taps + (taps % 2);
}

function makeFilter(fromHz: number, toHz: number): Filter {
  const exactPhases = toHz / gcd(fromHz, toHz);
  const numPhases = Math.min(exactPhases, MAX_PHASES);
  const scale = narrowing(fromHz, toHz);
  const length = numTaps(fromHz, toHz);
  const centre = length / 2 - 1;
  const taps = new Float64Array((numPhases + 1) * length);
  for (let phase = 0, at = 0; phase < numPhases; phase++) {
    for (let i = 0; i < length; i++, at++) {
      const distance = i - centre - phase / numPhases;
      const x = Math.PI * distance * scale;
      const edge = (2 * distance) / length;
      const sinc = x === 0 ? 1 : Math.sin(x) / x;
      taps[at] = sinc * besselI0(BETA * Math.sqrt(Math.max(1 - edge * edge, 0)));
    }
  }
  // A constant stays what it is; the first phase's sum stands for all.
  const sum = taps.subarray(0, length).reduce((total, tap) => total + tap, 0);
  for (let i = 0; i < taps.length; i++) taps[i]! /= sum;
  taps.copyWithin(numPhases * length + 1, 0, length - 1);
  const step = (fromHz * numPhases) / toHz;
  return { numTaps: length, numPhases, taps, step, rows: kernelRows(taps, length, numPhases, step) };
}

function kernelRows(
  taps: Float64Array,
  length: number,
  numPhases: number,
  step: number,
): Float32Array | undefined {
  const row = 8 * Math.ceil(length / 8);
  if (!Number.isInteger(step) || row * numPhases > KERNEL_FLOATS / 2) return undefined;
  const rows = new Float32Array(row * numPhases);
  for (let phase = 0; phase < numPhases; phase++) {
    rows.set(taps.subarray(phase * length, (phase + 1) * length), phase * row);
  }
  return rows;
}

/** Modified Bessel function of the first kind, order 0: sum_k ((x / 2)^k / k!)^2. */
function besselI0(x: number): number {
  const quarter = (x * x) / 4;
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= quarter / (k * k);
    sum += term;
  }
  return sum;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
