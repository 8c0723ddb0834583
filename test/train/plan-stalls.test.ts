// Waits that are foretold, against the flow itself in virtual time: the same numbers.

import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { batch, orderedMap, runFlow } from '../../src/flow/index.js';
import { type StallOptions, forecastStalls } from '../../src/train/plan-stalls.js';

/** Time that passes only when nothing else moves. */
class Clock {
  now = 0;
  readonly #timers: { at: number; wake: () => void }[] = [];

  readonly sleep = (ms: number): Promise<void> =>
    ms === 0 ? Promise.resolve() : new Promise((wake) => void this.#timers.push({ at: this.now + ms, wake }));

  /** Lets time pass until `work` is done. */
  async run<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const end = work.finally(() => (done = true));
    while (!done) {
      for (let i = 0; i < 3; i++) await turn();
      if (done) break;
      const next = Math.min(...this.#timers.map(({ at }) => at));
      if (!Number.isFinite(next)) continue;
      this.now = next;
      // Timers of one moment in the order in which they were set.
      const due = this.#timers.filter(({ at }) => at === next);
      for (const timer of due) this.#timers.splice(this.#timers.indexOf(timer), 1);
      for (const { wake } of due) wake();
    }
    return end;
  }
}

/** The waits of the real flow before each batch, and what they were for. */
async function measured({
  stages,
  source = {},
  stepMs,
  samplesPerBatch,
  bytesPerSample,
  ...rest
}: StallOptions) {
  const clock = new Clock();
  const size = samplesPerBatch as number;
  const waits: { ms: number; stage: string; row: number }[] = [];
  let device: Promise<void> = Promise.resolve();
  const work = runFlow({
    source: {
      name: source.name ?? 'source',
      maxItemBytes: bytesPerSample,
      open: async function* () {
        for (let row = 0; row < rest.count * size; row++) {
          await clock.sleep(source.ms ?? 0);
          yield { value: row, bytes: bytesPerSample, origin: { file: 'rows', rowGroup: 0, row } };
        }
      },
    },
    stages: [
      ...stages.map(({ name, concurrency = 1, ms }) =>
        orderedMap((row: number) => clock.sleep(ms).then(() => row), { name, concurrency }),
      ),
      batch<number, number[]>({ size }, (rows) => [...rows]),
    ] as never,
    poolBytes: rest.poolBytes,
    inFlight: rest.inFlight,
    now: () => clock.now,
    consume: (_value, context) => {
      const longest = context.waits.toSorted((a, b) => b.ms - a.ms)[0];
      waits.push({ ms: context.waitMs, stage: longest?.stage ?? '', row: longest?.origin?.row ?? -1 });
      return (device = device.then(() => clock.sleep(stepMs)));
    },
  });
  await clock.run(work);
  return waits;
}

const base: StallOptions = {
  stages: [
    { name: 'decode', concurrency: 2, ms: 4 },
    { name: 'encode', concurrency: 1, ms: 1 },
  ],
  stepMs: 10,
  samplesPerBatch: 4,
  bytesPerSample: 10,
  poolBytes: 1000,
  inFlight: 2,
  count: 12,
};

describe('waits that are foretold', () => {
  it.each<[string, Partial<StallOptions>]>([
    ['stages that keep up', {}],
    ['a stage that is too slow', { stepMs: 5 }],
    ['a source that is too slow', { source: { name: 'rows', ms: 7 } }],
    ['a pool of two batches', { poolBytes: 80, stepMs: 8 }],
    ['a pool of one batch and a half', { poolBytes: 60, stepMs: 3 }],
    ['one batch in flight', { inFlight: 1, stepMs: 7, poolBytes: 90 }],
    [
      'the second stage as the slow one',
      {
        stages: [
          { name: 'a', concurrency: 3, ms: 2 },
          { name: 'b', ms: 6 },
        ],
        stepMs: 9,
      },
    ],
    ['no stage at all', { stages: [], source: { ms: 3 }, stepMs: 2 }],
    [
      'a source, two stages and a small pool',
      {
        source: { ms: 1 },
        poolBytes: 70,
        stepMs: 6,
        stages: [
          { name: 'a', concurrency: 4, ms: 9 },
          { name: 'b', concurrency: 2, ms: 3 },
        ],
      },
    ],
  ])('equal those of the flow in virtual time: %s', async (_name, change) => {
    const options = { ...base, ...change };
    const forecast = forecastStalls(options);
    const waits = await measured(options);
    expect([...forecast.waitMs]).toEqual(waits.map(({ ms }) => ms));
    expect(forecast.firstBatchMs).toBe(waits[0]!.ms);
    const first = waits.findIndex(({ ms }, i) => i > 0 && ms > 0);
    expect(forecast.first?.batch ?? -1).toBe(first);
    if (first < 0 || !forecast.first) return;
    expect(forecast.first.stage).toBe(waits[first]!.stage);
    if (forecast.first.stage !== (options.source?.name ?? 'source')) {
      expect(forecast.first.sample).toBe(waits[first]!.row);
    }
  });

  it('in the long run are the share by which the slowest stage is slower than the step', () => {
    // decode makes 0.5 samples a ms, so a batch of 4 takes 8 ms, and a step 6.
    const { waitShare, limit } = forecastStalls({ ...base, stepMs: 6, count: 400 });
    expect(limit).toBe('decode');
    expect(waitShare).toBeCloseTo(2 / 8, 2);
    expect(forecastStalls({ ...base, count: 400 })).toMatchObject({
      waitShare: 0,
      limit: 'step',
      first: undefined,
    });
  });

  it('are for the pool where every stage is fast enough', () => {
    const { limit, waitShare } = forecastStalls({ ...base, stepMs: 9, poolBytes: 40, count: 100 });
    expect(limit).toBe('pool');
    expect(waitShare).toBeGreaterThan(0.3);
  });

  it('are told of batches of their own sizes', () => {
    const { waitMs, first } = forecastStalls({
      ...base,
      stages: [{ name: 'a', ms: 1 }],
      stepMs: 5,
      samplesPerBatch: [5, 9, 5],
      count: 3,
    });
    expect([...waitMs]).toEqual([5, 4, 0]);
    expect(first).toMatchObject({ batch: 1, stage: 'a', ms: 4 });
  });

  it('refuse a pool that does not hold a batch, with the numbers', () => {
    expect(() => forecastStalls({ ...base, poolBytes: 39 })).toThrow(
      'pool of 39 bytes: expected room for a batch: 4 samples of 10 bytes, received 39 bytes',
    );
  });
});
