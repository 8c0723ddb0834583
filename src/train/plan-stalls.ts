// When will the step wait for data, and for which stage? Recurrences over the times at which samples leave each stage, in
// order, for stages whose samples all take as long: what the flow does, without running it.

import { ConfigError } from '../errors.js';

/** A stage's work on one sample. */
export interface StageTime {
  readonly name: string;
  /** Samples at once; 1 by default. */
  readonly concurrency?: number;
  readonly ms: number;
}

export interface StallOptions {
  /** From the source on, as far as the batch. */
  readonly stages: readonly StageTime[];
  /** 'source', and no time a sample, by default. */
  readonly source?: { readonly name?: string; readonly ms?: number };
  /** The device's time for a batch. */
  readonly stepMs: number;
  /** The same for all batches, or of each. */
  readonly samplesPerBatch: number | readonly number[];
  /** What a sample holds of the pool from admission until its batch is done. */
  readonly bytesPerSample: number;
  readonly poolBytes: number;
  /** Batches that may be with the device at once. */
  readonly inFlight: number;
  /** Batches to look ahead. */
  readonly count: number;
}

/** A wait of the step. */
export interface Stall {
  /** From 0. */
  readonly batch: number;
  /** The stage that it waits for longest, or the source. */
  readonly stage: string;
  /** The sample that is longest in that stage meanwhile, from 0. */
  readonly sample: number;
  /** Of the whole wait. */
  readonly ms: number;
}

export interface StallForecast {
  /** Time to the first batch, for which every run waits. */
  readonly firstBatchMs: number;
  /** The first wait after that. */
  readonly first: Stall | undefined;
  /** Waits before each batch, ms. [count] */
  readonly waitMs: Float64Array;
  /** Share of the time that the step waits, over the later half of the batches. */
  readonly waitShare: number;
  /** What limits the speed there: 'step', the slowest of stages and source, or 'pool' where none is slower than the step and
   *  it waits for room. */
  readonly limit: string;
}

/** Waits shorter than this are rounding. */
const LEAST_MS = 1e-6;

/** Foretells the waits of the step.
 *  @throws {ConfigError} when the pool does not hold a batch */
export function forecastStalls(options: StallOptions): StallForecast {
  const { stages, stepMs, poolBytes, bytesPerSample, count } = options;
  const { name: sourceName = 'source', ms: sourceMs = 0 } = options.source ?? {};
  const inFlight = Math.max(1, options.inFlight);
  const { samplesPerBatch: sizes } = options;
  const sizeOf = (batch: number): number => (typeof sizes === 'number' ? sizes : (sizes[batch] ?? 0));
  const room = Math.max(1, Math.floor(poolBytes / Math.max(1, bytesPerSample)));

  const admitted: number[] = [];
  /** Per stage, when each sample is finished there, and when it leaves, after those before it. */
  const finished: number[][] = stages.map(() => []);
  const left: number[][] = stages.map(() => []);
  /** When the batch of each sample is done. */
  const released: number[] = [];
  const done: number[] = [];
  const waits = new Float64Array(count);
  const leaves = (sample: number): number => (left.at(-1) ?? admitted)[sample] ?? 0;
  let firstBatchMs = 0;
  let first: Stall | undefined;

  for (let batch = 0, begin = 0; batch < count; batch++) {
    const end = begin + sizeOf(batch);
    if (end - begin > room) throw tooSmall(options, end - begin);
    for (let i = begin; i < end; i++) {
      let at = Math.max(admitted[i - 1] ?? 0, released[i - room] ?? 0) + sourceMs;
      admitted.push(at);
      stages.forEach(({ ms, concurrency = 1 }, s) => {
        const finish = Math.max(at, finished[s]![i - concurrency] ?? 0) + ms;
        finished[s]!.push(finish);
        at = Math.max(finish, left[s]![i - 1] ?? 0);
        left[s]!.push(at);
      });
    }
    const ready = leaves(end - 1);
    const idle = done[batch - 1] ?? 0;
    const delivered = Math.max(ready, done[batch - inFlight] ?? 0);
    const wait = Math.max(0, ready - idle);
    waits[batch] = wait;
    done.push(Math.max(delivered, idle) + stepMs);
    for (let i = begin; i < end; i++) released.push(done[batch]!);
    if (wait > LEAST_MS) {
      const times = { admitted, left, leaves, sourceName, stages };
      const { stage, sample } = blamed(idle, begin, end, times);
      if (batch === 0) firstBatchMs = wait;
      else first ??= { batch, stage, sample, ms: wait };
    }
    begin = end;
  }

  const half = Math.ceil(count / 2);
  const elapsed = (done[count - 1] ?? 0) - (done[half - 1] ?? 0);
  const waited = waits.subarray(half).reduce((sum, ms) => sum + ms, 0);
  const waitShare = elapsed > 0 ? waited / elapsed : 0;
  const meanSize = released.length / Math.max(1, count);
  const limit = waited > LEAST_MS ? slowest(options, sourceName, sourceMs, meanSize) : 'step';
  return { firstBatchMs, first, waitMs: waits, waitShare, limit };
}

/** What makes the fewest samples, if that is fewer than the step takes. */
function slowest({ stages, stepMs }: StallOptions, source: string, sourceMs: number, batch: number): string {
  let name = source;
  let most = sourceMs;
  for (const stage of stages) {
    const ms = stage.ms / (stage.concurrency ?? 1);
    if (ms > most) [name, most] = [stage.name, ms];
  }
  return most * batch > stepMs ? name : 'pool';
}

interface Times {
  readonly admitted: readonly number[];
  readonly left: readonly (readonly number[])[];
  readonly leaves: (sample: number) => number;
  readonly sourceName: string;
  readonly stages: readonly StageTime[];
}

/** Shares a wait that begins at `idle` as the flow does: at any moment it is the lowest sample's that has not left the
 *  last stage, in the stage where that is. */
function blamed(
  idle: number,
  begin: number,
  end: number,
  { admitted, left, leaves, sourceName, stages }: Times,
): { stage: string; sample: number } {
  const shares = new Map<string, number>();
  const longest = new Map<string, { sample: number; ms: number }>();
  let from = idle;
  for (let i = begin; i < end; i++) {
    const stops = [admitted[i] ?? 0, ...left.map((times) => times[i] ?? 0)];
    stops.forEach((until, s) => {
      const ms = Math.min(until, leaves(i)) - from;
      if (ms <= 0) return;
      const name = s === 0 ? sourceName : stages[s - 1]!.name;
      shares.set(name, (shares.get(name) ?? 0) + ms);
      if (ms > (longest.get(name)?.ms ?? 0)) longest.set(name, { sample: i, ms });
      from += ms;
    });
  }
  const [stage = sourceName] = [...shares].sort(([, a], [, b]) => b - a)[0] ?? [];
  return { stage, sample: longest.get(stage)?.sample ?? begin };
}

function tooSmall({ poolBytes, bytesPerSample }: StallOptions, samples: number): ConfigError {
  return new ConfigError({
    where: `pool of ${poolBytes} bytes`,
    expected: `room for a batch: ${samples} samples of ${Math.ceil(bytesPerSample)} bytes`,
    received: `${poolBytes} bytes`,
    remedy: 'raise poolBytes, or make batches smaller',
  });
}
