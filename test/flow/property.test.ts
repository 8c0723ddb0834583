import { Observable, delay, filter as rxFilter, map as rxMap, mergeMap, of, throwError } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError, messageOf } from '../../src/errors.js';
import {
  batch,
  checkBounds,
  filter,
  flatMap,
  lift,
  map,
  orderedMap,
  runFlow,
  stagesOf as toStages,
  tee,
  unorderedMap,
  type FlowEntries,
  type FlowEvent,
  type Filling,
  type FillRule,
  type FlowSummary,
  type Stage,
  type Ticketed,
} from '../../src/flow/index.js';
import { reservesOf } from '../../src/flow/bounds.js';
import { range, sourceOf } from './helpers.js';

/** mulberry32: uniform in [0, 1) from a seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A time limit for many draws, in milliseconds. */
const LONG = 60_000 * Math.max(1, Number(process.env['SOAK'] ?? 1));

/** Draws of each property: `SOAK=50` takes fifty times as many. */
const SOAK = Number(process.env['SOAK'] ?? 1);

/** Runs a trial for each seed; a failure is told with its seed, and so is a run that does not end. */
async function draws(from: number, count: number, trial: (seed: number) => Promise<void>): Promise<void> {
  for (let seed = from; seed < from + count * SOAK; seed += 1) {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('it has not ended after 20 s')), 20_000);
    });
    try {
      await Promise.race([trial(seed), late]);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A user's stage that keeps one sample until the next comes, and then lets the bigger one go last. */
function swap(): Stage<number, number> {
  return {
    name: 'swap',
    holdsItems: 2,
    connect: (source) =>
      new Observable((subscriber) => {
        let kept: Ticketed<number> | undefined;
        const flush = (): void => {
          const item = kept;
          kept = undefined;
          item?.ticket.unpark();
          if (item) subscriber.next(item);
        };
        return source.subscribe({
          next: (item) => {
            if (kept && item.value < kept.value) {
              subscriber.next(item);
              return;
            }
            flush();
            kept = item;
            item.ticket.park();
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            flush();
            subscriber.complete();
          },
        });
      }),
  };
}

/** Packs samples into the first of three rows that has room, `size` at most in all. */
function packed(size: number): FillRule<number> {
  return {
    measure: (n) => {
      if (n % 13 === 12) throw new Error('drawn');
      return 1 + (n % 5);
    },
    maxItems: size,
    open: (): Filling<unknown> => {
      const room = [6, 6, 6];
      let count = 0;
      return {
        add: (length) => {
          const row = room.findIndex((free) => free >= (length as number));
          if (row < 0 || count === size) return undefined;
          room[row]! -= length as number;
          count += 1;
          return row;
        },
        get isFull() {
          return count === size;
        },
      };
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Numbers in, numbers out: each stage marks a few samples for failing, dropping or being late, by what they are. */
function stagesOf(
  draw: () => number,
  jitter: () => number,
): { stages: unknown[]; ordered: boolean; ascends: boolean } {
  const pick = (n: number): number => Math.floor(draw() * n);
  const stages: unknown[] = [];
  let ordered = true;
  let ascends = true;
  let splits = 1;
  const fails = (n: number, salt: number): boolean => (n * 2654435761 + salt) % 11 === 0;
  const count = 1 + pick(4);
  for (let i = 0; i < count; i += 1) {
    const salt = pick(1000);
    const concurrency = 1 + pick(4);
    const work = async (n: number): Promise<number> => {
      for (let left = Math.floor(3 * jitter()); left > 0; left -= 1) await turn();
      if (fails(n, salt)) throw new Error('drawn');
      return n;
    };
    switch (pick(11)) {
      case 0:
        stages.push(
          map((n: number) => {
            if (fails(n, salt)) throw new Error('drawn');
            return n;
          }),
        );
        break;
      case 1:
        stages.push(filter((n: number) => !fails(n, salt)));
        break;
      case 2:
        stages.push(orderedMap(work, { concurrency }));
        break;
      case 3:
        stages.push(unorderedMap(work, { concurrency }));
        ordered = false;
        break;
      case 4:
        stages.push(rxFilter((n: number) => !fails(n, salt)));
        break;
      case 5:
        stages.push(
          lift(
            mergeMap((n: number) =>
              fails(n, salt)
                ? throwError(() => new Error('drawn'))
                : of(n).pipe(delay(Math.floor(2 * jitter()))),
            ),
            { concurrency },
          ),
        );
        break;
      case 6:
        stages.push(tee<number>({ write: () => (jitter() < 0.5 ? undefined : turn()) }, { concurrency }));
        break;
      case 7:
        if (splits < 4) {
          stages.push(flatMap((n: number) => range((n + salt) % 3).map(() => n), { maxOutputs: 2 }));
          splits *= 2;
        }
        break;
      case 8: {
        const itemBytes = 1 + pick(150);
        stages.push(map((n: number) => n, { itemBytes, weigh: (n) => (n * 31 + salt) % (itemBytes + 1) }));
        break;
      }
      case 9:
        stages.push(swap());
        ascends = false;
        break;
      default:
        stages.push(rxMap((n: number) => n));
    }
  }
  if (draw() < 0.7) {
    const size = 1 + pick(4);
    const dropLast = draw() < 0.3;
    const named = draw() < 0.5;
    const collate = (values: readonly number[]): number => {
      const index = values.findIndex((n) => fails(n, 77));
      if (index >= 0) throw Object.assign(new Error('drawn'), named ? { index } : {});
      return values.at(-1) ?? 0;
    };
    const by = [{ size }, { cost: (n: number) => n % 4, limit: 6, maxItems: size }, packed(size)][pick(3)]!;
    stages.push(batch(by, collate, { dropLast }));
  }
  return { stages, ordered, ascends };
}

interface Trial {
  readonly summary: FlowSummary;
  readonly error: unknown;
  readonly events: FlowEvent[];
  readonly values: number[];
  readonly poolBytes: number;
  readonly deviceBytes: number;
  readonly maxItemBytes: number;
  /** What an item may be charged with: its own weight, or what the stages make of it. */
  readonly mostBytes: number;
  readonly declared: boolean;
  readonly ordered: boolean;
  readonly ascends: boolean;
  readonly returned: number;
  /** The most that was with the consumer together with an oversize value. */
  readonly besideOversize: number;
}

type Ending = 'complete' | 'cancelled' | 'stopped' | 'failed';

/** @param timing seeds what takes how long, apart from what is done
 *  @param tight the pool may be smaller than the graph needs */
async function trial(seed: number, ending: Ending, { timing = seed, tight = false } = {}): Promise<Trial> {
  const draw = random(seed);
  const jitter = random(timing + 1_000_000);
  const { stages, ordered, ascends } = stagesOf(draw, jitter);
  const rows = Math.floor(draw() * 60);
  const maxItemBytes = 8 + Math.floor(draw() * 100);
  const declared = !tight || draw() < 0.5;
  const source = sourceOf(range(rows), {
    bytes: (n) => 8 + ((n * 7919) % (maxItemBytes - 7)),
    ...(declared ? { maxItemBytes } : {}),
    ...(draw() < 0.5 ? { wait: () => (jitter() < 0.3 ? turn() : Promise.resolve()) } : {}),
  });
  // From the least that is not refused upwards, or anything
  const least = leastPool(maxItemBytes, stages as unknown as FlowEntries<number, number>);
  const poolBytes = Math.ceil(least * (tight ? 0.1 + 1.2 * draw() : 1 + 2 * draw()));
  const deviceBytes = 1 + Math.floor(least * 2 * draw());
  const controller = new AbortController();
  const end = Math.floor(draw() * 10);
  const events: FlowEvent[] = [];
  const values: number[] = [];
  let active = 0;
  let besideOversize = 0;
  let lone = 0;
  let error: unknown;
  await runFlow({
    source,
    stages: stages as unknown as FlowEntries<number, number>,
    poolBytes,
    deviceBytes,
    inFlight: 1 + Math.floor(draw() * 3),
    signal: controller.signal,
    onEvent: (event) => {
      events.push(event);
      if (event.kind === 'oversize' && event.pool === 'device') {
        lone = 1;
        besideOversize = Math.max(besideOversize, active);
      }
    },
    consume: async (value, { index, stop }) => {
      values.push(value);
      const alone = lone === 1;
      lone = 0;
      active += 1;
      if (jitter() < 0.5) await turn();
      if (alone) besideOversize = Math.max(besideOversize, active - 1);
      active -= 1;
      if (index === end && ending === 'cancelled') controller.abort();
      if (index === end && ending === 'stopped') stop();
      if (index === end && ending === 'failed') throw new Error('drawn');
    },
  }).catch((thrown: unknown) => (error = thrown));
  const last = events.at(-1);
  if (last?.kind !== 'end') throw error; // refused
  const { summary } = last;
  const { returned } = source.log;
  const mostBytes = Math.max(
    maxItemBytes,
    reservesOf(toStages(stages as unknown as FlowEntries<number, number>))[0] ?? 0,
  );
  return {
    ...{ summary, error, events, values, poolBytes, deviceBytes, maxItemBytes, mostBytes, declared },
    ...{ ordered, ascends, returned, besideOversize },
  };
}

/** The smallest pool that a graph is not refused for, as its refusal says. */
function leastPool(maxItemBytes: number, entries: FlowEntries<number, number>): number {
  const source = { maxItemBytes };
  const stages = toStages(entries);
  const refused = (bytes: number): number | undefined => {
    try {
      checkBounds(source, stages, bytes);
      return undefined;
    } catch (error) {
      return Number(/at least (\d+) bytes/.exec(String(error))?.[1]);
    }
  };
  const least = Math.max(refused(1) ?? 1, maxItemBytes);
  expect(refused(least)).toBeUndefined();
  return least;
}

function checkBooks(result: Trial): void {
  const { summary, events, poolBytes, deviceBytes, maxItemBytes, mostBytes, declared, besideOversize } =
    result;
  const { issued, trained, dropped, quarantined } = summary.ledger;
  expect(trained + dropped + quarantined).toBe(issued);
  expect(events.filter(({ kind }) => kind === 'quarantine')).toHaveLength(quarantined);
  expect(events.at(-1)).toEqual({ kind: 'end', summary });
  expect(result.returned).toBeLessThanOrEqual(1);
  const oversize = (pool: 'host' | 'device'): number[] =>
    events.flatMap((event) => (event.kind === 'oversize' && event.pool === pool ? [event.bytes] : []));
  // Of a source that did not declare what fits, one item may wait at the gate. One that is bigger than the pool is let in
  // when nothing moves without it, beside others that wait for it: the bound is that each is told of.
  const strict = declared && maxItemBytes <= poolBytes;
  const isOver = oversize('host').some((bytes) => bytes > poolBytes);
  if (!isOver) expect(summary.peakBytes).toBeLessThanOrEqual(strict ? poolBytes : poolBytes + mostBytes);
  if (strict) expect(oversize('host')).toEqual([]);
  expect(summary.peakDeviceBytes).toBeLessThanOrEqual(Math.max(deviceBytes, ...oversize('device')));
  expect(besideOversize).toBe(0);
}

function stagesIn({ events }: Trial): string[] {
  return events.flatMap((event) => (event.kind === 'quarantine' ? [event.stage] : []));
}

function quarantinedIn(stage: string, { events }: Trial): number[] {
  return events.flatMap((event) =>
    event.kind === 'quarantine' && event.stage === stage ? [event.origin.row] : [],
  );
}

describe('any flow', () => {
  it(
    'balances its books within its bounds, keeps order, and ends',
    () =>
      draws(0, 300, async (seed) => {
        const result = await trial(seed, 'complete');
        checkBooks(result);
        expect(result.error).toBeUndefined();
        expect(result.summary.ended).toBe('complete');
        if (result.ordered && result.ascends)
          expect(result.values).toEqual([...result.values].sort((a, b) => a - b));
      }),
    LONG,
  );

  it(
    'gives the same values when everything takes another time, if it is ordered',
    async () => {
      let ordered = 0;
      await draws(2000, 80, async (seed) => {
        const first = await trial(seed, 'complete', { timing: 1 });
        const second = await trial(seed, 'complete', { timing: 2 });
        if (!first.ordered) return;
        ordered += 1;
        expect(second.values).toEqual(first.values);
        expect(second.summary.ledger).toEqual(first.summary.ledger);
        // Those of one stage come in order; which stage is first is a matter of time.
        for (const stage of new Set([...stagesIn(first), ...stagesIn(second)])) {
          expect(quarantinedIn(stage, second)).toEqual(quarantinedIn(stage, first));
        }
      });
      expect(ordered).toBeGreaterThan(30 * SOAK);
    },
    LONG,
  );

  it(
    'balances its books when it is cancelled, stopped or fails, and closes its source at most once',
    () =>
      draws(10_000, 150, async (seed) => {
        for (const ending of ['cancelled', 'stopped', 'failed'] as const) {
          const result = await trial(seed, ending);
          checkBooks(result);
          expect(['complete', ending]).toContain(result.summary.ended);
          expect(result.error !== undefined).toBe(result.summary.ended === 'failed');
        }
      }),
    LONG,
  );

  it(
    'ends too when its pool is too small: done, refused, or failed with the numbers',
    async () => {
      const ends = { complete: 0, failed: 0, refused: 0 };
      await draws(20_000, 150, async (seed) => {
        let result: Trial;
        try {
          result = await trial(seed, 'complete', { tight: true });
        } catch (error) {
          expect(error).toBeInstanceOf(FlowError);
          expect(String(error)).toMatch(/pool of \d+ bytes: expected at least \d+ bytes,/);
          ends.refused += 1;
          return;
        }
        checkBooks(result);
        ends[result.summary.ended as 'complete' | 'failed'] += 1;
        if (result.error === undefined) return;
        expect(messageOf(result.error)).toMatch(
          /pool of \d+ bytes: expected room for \d+ bytes .* received \d+ samples of \d+ bytes that wait for more in/,
        );
      });
      expect(Math.min(...Object.values(ends))).toBeGreaterThan(5);
    },
    LONG,
  );
});

/** What lives in the heap. */
function heapBytes(): number {
  (globalThis as { gc?: () => void }).gc!(); // vitest.config.ts exposes it
  return process.memoryUsage().heapUsed;
}

describe('a million synchronous items', () => {
  it('pass through a gate, lifted operators and a batch without a deep stack, or a heap that grows', async () => {
    let sum = 0;
    const heaps: number[] = [];
    const source = {
      name: 'numbers',
      maxItemBytes: 8,
      open: async function* () {
        for (let row = 0; row < 1_000_000; row += 1) {
          yield { value: row, bytes: 8, origin: { file: 'numbers', rowGroup: 0, row } };
        }
      },
    };
    const { ledger, peakBytes } = await runFlow({
      source,
      stages: [
        rxMap((n) => n * 2),
        filter((n: number) => n % 3 === 0),
        batch({ size: 8 }, (values: readonly number[]) => values),
      ],
      poolBytes: 1024,
      consume: (values: readonly number[], { index }) => {
        for (const n of values) sum += n;
        if (index === 4_000 || index === 40_000) heaps.push(heapBytes());
      },
    });
    expect(heaps[1]! - heaps[0]!).toBeLessThan(2 ** 20);
    expect(ledger).toEqual({ issued: 1_000_000, trained: 333_334, dropped: 666_666, quarantined: 0 });
    expect(sum).toBe(333_333 * 333_334 * 3);
    expect(peakBytes).toBeLessThanOrEqual(1024);
  });

  it('behind a slow first sample, as far as the pool lets them in, need no deep stack either', async () => {
    const { ledger } = await runFlow({
      source: sourceOf(range(100_000), { bytes: () => 1, maxItemBytes: 1 }),
      stages: [
        orderedMap((n: number) => (n === 0 ? new Promise<number>((r) => setTimeout(r, 200, 0)) : n), {
          concurrency: 2,
        }),
        rxMap((n: number) => n),
      ],
      poolBytes: 50_000,
      consume: async () => {},
    });
    expect(ledger.trained).toBe(100_000);
  });
});
