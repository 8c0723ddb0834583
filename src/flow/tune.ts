// Tuning under way: while the consumer waits, what it waits for gets more. A stage that has samples in line and is to be
// blamed works on one more at a time; a pool that is full while nothing is in line lets more in. What did not help is
// taken back. The order of samples never depends on it.

import { Concurrency } from './concurrency.js';
import type { Pool } from './pool.js';
import type { WaitShare } from './types.js';

/** Weight of the newest value in the smoothed share of waiting. */
const SMOOTHING = 0.25;
/** A share of waiting that is let be. */
const TOLERATED = 0.01;
/** Values between two changes: what a change does must show first. */
const PATIENCE = 8;
/** Values until something that did not help is tried again. */
const GIVEN_UP = 128;
/** The least gain in pace that keeps a change. */
const GAIN = 1.02;
const POOL_GROWTH = 1.5;

/** A change that is being watched. */
interface Trial {
  readonly of: Concurrency | Pool;
  /** Milliseconds a value before it. */
  readonly before: number;
}

export interface TunerOptions {
  readonly stages: readonly Concurrency[];
  readonly pool: Pool;
  /** Milliseconds. */
  readonly now: () => number;
}

/** Learns of each value that is delivered; see above. */
export class Tuner {
  #share = 0;
  #sinceChange = 0;
  #changedAt: number;
  #lastAt: number;
  #trial: Trial | undefined;
  readonly #givenUp = new Map<Concurrency | Pool, number>();
  #count = 0;
  readonly #firstCapacity: number;

  constructor(private readonly options: TunerOptions) {
    this.#changedAt = this.#lastAt = options.now();
    this.#firstCapacity = options.pool.capacity;
  }

  /** How many samples each stage works on at once, and the pool's bytes, now. */
  get state(): Record<string, number> {
    const { stages, pool } = this.options;
    const pooled: Record<string, number> =
      pool.most > this.#firstCapacity ? { poolBytes: pool.capacity } : {};
    return { ...Object.fromEntries(stages.map(({ name, value }) => [name, value])), ...pooled };
  }

  /** A value is handed over, after a wait of `waitMs`. */
  delivered(waitMs: number, waits: readonly WaitShare[]): void {
    const now = this.options.now();
    const period = Math.max(now - this.#lastAt, waitMs, 1e-6);
    this.#lastAt = now;
    this.#count += 1;
    // Whatever the first value waited for was the beginning.
    if (this.#count === 1) return void (this.#changedAt = now);
    this.#share += SMOOTHING * (waitMs / period - this.#share);
    this.#sinceChange += 1;
    if (this.#sinceChange < PATIENCE) return;
    this.#judge(now);
    if (this.#share > TOLERATED) this.#change(waits, now);
    this.#restart(now);
  }

  /** Takes back a change after which values came no faster. */
  #judge(now: number): void {
    const trial = this.#trial;
    this.#trial = undefined;
    if (!(trial?.of instanceof Concurrency)) return; // what a pool has let in cannot be sent back
    const after = (now - this.#changedAt) / this.#sinceChange;
    if (trial.before > after * GAIN) return;
    trial.of.value -= 1;
    this.#givenUp.set(trial.of, this.#count);
  }

  #change(waits: readonly WaitShare[], now: number): void {
    const { pool } = this.options;
    const before = (now - this.#changedAt) / this.#sinceChange;
    const stage = this.#stageToBlame(waits);
    if (stage) {
      stage.value += 1;
      this.#trial = { of: stage, before };
    } else if (pool.isWaitedFor && pool.grow(POOL_GROWTH)) {
      this.#trial = { of: pool, before };
    }
  }

  /** The stage that was waited for longest, if it could do more. */
  #stageToBlame(waits: readonly WaitShare[]): Concurrency | undefined {
    const [longest] = waits.toSorted((a, b) => b.ms - a.ms);
    const stage = this.options.stages.find(({ name }) => name === longest?.stage);
    if (!stage || stage.backlog === 0 || stage.value >= stage.most) return undefined;
    const givenUpAt = this.#givenUp.get(stage);
    return givenUpAt !== undefined && this.#count - givenUpAt < GIVEN_UP ? undefined : stage;
  }

  #restart(now: number): void {
    this.#sinceChange = 0;
    this.#changedAt = now;
  }
}
