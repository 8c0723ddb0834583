import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Pool, batch, orderedMap, runFlow, type FlowSummary } from '../../src/flow/index.js';
import { Concurrency } from '../../src/flow/concurrency.js';
import { Tuner } from '../../src/flow/tune.js';
import { origin, sourceOf } from './helpers.js';

const FAKED = ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] as const;

/** A tuner over one stage, and a consumer that takes a value each `period` ms. */
function tuned({ start = 4, most = 8, pool = new Pool(100, 'poolBytes', 1000) } = {}) {
  const clock = { ms: 0 };
  const stage = new Concurrency('decode', start, most);
  const tuner = new Tuner({ stages: [stage], pool, now: () => clock.ms });
  const deliver = (count: number, period: number, waitMs: number, name = 'decode'): void => {
    for (let i = 0; i < count; i++) {
      clock.ms += period;
      tuner.delivered(waitMs, waitMs > 0 ? [{ stage: name, ms: waitMs, origin: origin(i) }] : []);
    }
  };
  return { stage, tuner, pool, deliver };
}

describe('a stage that the consumer waits for', () => {
  it('works on more samples at once while some are in line, up to its cap', () => {
    const { stage, deliver, tuner } = tuned();
    stage.backlog = 3;
    for (let period = 100; period > 30; period -= 10) deliver(8, period, 20);
    expect(stage.value).toBe(8);
    expect(tuner.state).toEqual({ decode: 8, poolBytes: 100 });
  });

  it('keeps to what it has while nothing is in line, or the wait is short, or another is to be blamed', () => {
    const idle = tuned();
    idle.deliver(40, 100, 50);
    expect(idle.stage.value).toBe(4);
    const quick = tuned();
    quick.stage.backlog = 3;
    quick.deliver(40, 100, 0.5);
    expect(quick.stage.value).toBe(4);
    const other = tuned();
    other.stage.backlog = 3;
    other.deliver(40, 100, 50, 'encode');
    expect(other.stage.value).toBe(4);
  });

  it('gives back what did not help, and is left alone for long then', () => {
    const { stage, deliver } = tuned();
    stage.backlog = 3;
    const values: number[] = [];
    for (let i = 0; i < 12; i++) {
      deliver(8, 100, 20);
      values.push(stage.value);
    }
    expect(Math.max(...values)).toBe(5);
    expect(values.slice(3)).toEqual(Array(9).fill(4));
  });

  it('is not blamed for the beginning', () => {
    const { stage, deliver } = tuned();
    stage.backlog = 3;
    deliver(1, 10_000, 10_000);
    deliver(40, 100, 0);
    expect(stage.value).toBe(4);
  });
});

describe('a pool', () => {
  it('that is full while the consumer waits grows, up to its cap', () => {
    const { pool, deliver, tuner } = tuned();
    pool.take(100);
    const woken = vi.fn();
    void pool.room(50).then(woken);
    deliver(9, 100, 50, 'source');
    expect(pool.capacity).toBe(150);
    void pool.room(50);
    for (let i = 0; i < 20; i++) {
      void pool.room(50);
      deliver(8, 100, 50, 'source');
    }
    expect(pool.capacity).toBe(1000);
    expect(pool.grow(2)).toBe(false);
    expect(tuner.state).toMatchObject({ poolBytes: 1000 });
  });

  it('that has room stays as it is', () => {
    const { pool, deliver } = tuned();
    deliver(80, 100, 50, 'source');
    expect(pool.capacity).toBe(100);
  });
});

describe('a run that tunes itself', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: [...FAKED] }));
  afterEach(() => void vi.useRealTimers());

  /** Samples that take 40 ms to decode, for a consumer of 5 ms: eight at once would do. */
  async function run(concurrency: number | { upTo: number }, taken: number[] = []): Promise<FlowSummary> {
    const flow = runFlow({
      source: sourceOf(Array.from({ length: 400 }, (_, i) => i)),
      stages: [
        orderedMap(
          (value: number) => new Promise<number>((done) => setTimeout(() => done(value), 40 - (value % 3))),
          { name: 'decode', concurrency },
        ),
      ],
      poolBytes: 100 * 40,
      now: () => Date.now(),
      consume: (value: number) => {
        taken.push(value);
        return new Promise<void>((done) => setTimeout(done, 5));
      },
    });
    let ended = false;
    void flow.finally(() => (ended = true));
    while (!ended) await vi.advanceTimersByTimeAsync(1);
    return flow;
  }

  it('waits less than one that is fixed, in the same order', async () => {
    const taken: number[] = [];
    const fixed = await run(4);
    const free = await run({ upTo: 16 }, taken);
    expect(taken).toEqual(Array.from({ length: 400 }, (_, i) => i));
    expect(fixed.tuned).toEqual({});
    expect(free.tuned['decode']).toBeGreaterThanOrEqual(7);
    expect(free.tuned['decode']).toBeLessThanOrEqual(10);
    expect(free.waitMs).toBeLessThan(fixed.waitMs / 3);
  });

  it('admits an item that the pool can grow to, and a batch that it can grow to hold', async () => {
    const flow = runFlow({
      source: sourceOf([1, 2, 3, 4], { bytes: (value) => (value === 3 ? 700 : 100) }),
      stages: [batch({ size: 4 }, (values: readonly number[]) => values)],
      poolBytes: 200,
      maxPoolBytes: 1000,
      consume: () => undefined,
    });
    expect(await flow).toMatchObject({ oversize: 0, peakBytes: 1000, ledger: { trained: 4 } });
  });

  it('begins with room for what its stages hold', async () => {
    const flow = runFlow({
      source: sourceOf([1, 2, 3, 4], { maxItemBytes: 100 }),
      stages: [batch({ size: 4 }, (values: readonly number[]) => values)],
      poolBytes: 200,
      maxPoolBytes: 10_000,
      consume: () => undefined,
    });
    expect((await flow).tuned).toEqual({ poolBytes: 800 });
    const tooSmall = runFlow({
      source: sourceOf([1], { maxItemBytes: 100 }),
      stages: [batch({ size: 4 }, (values: readonly number[]) => values)],
      poolBytes: 100,
      maxPoolBytes: 300,
      consume: () => undefined,
    });
    await expect(tooSmall).rejects.toThrow('pool of 300 bytes: expected at least 400 bytes');
  });
});
