import { delay, filter as rxFilter, map as rxMap, mergeMap, of, throwError } from 'rxjs';
import { describe, expect, it } from 'vitest';
import {
  batch,
  filter,
  flatMap,
  lift,
  map,
  orderedMap,
  runFlow,
  tee,
  unorderedMap,
  type FlowEntries,
  type FlowEvent,
  type FlowSummary,
} from '../../src/flow/index.js';
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

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Numbers in, numbers out: each stage marks a few samples for failing, dropping or being late, by what they are. */
function stagesOf(
  draw: () => number,
  jitter: () => number,
): { stages: unknown[]; gathered: number; ordered: boolean } {
  const pick = (n: number): number => Math.floor(draw() * n);
  const stages: unknown[] = [];
  let ordered = true;
  let gathered = 1;
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
    switch (pick(9)) {
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
          stages.push(flatMap((n: number) => range((n + salt) % 3).map(() => n)));
          splits *= 2;
        }
        break;
      default:
        stages.push(rxMap((n: number) => n));
    }
  }
  if (draw() < 0.7) {
    const size = 1 + pick(4);
    const dropLast = draw() < 0.3;
    const named = draw() < 0.5;
    gathered = size;
    const collate = (values: readonly number[]): number => {
      const index = values.findIndex((n) => fails(n, 77));
      if (index >= 0) throw Object.assign(new Error('drawn'), named ? { index } : {});
      return values.at(-1) ?? 0;
    };
    stages.push(
      draw() < 0.5
        ? batch({ size }, collate, { dropLast })
        : batch({ cost: (n) => n % 4, limit: 6, maxItems: size }, collate, { dropLast }),
    );
  }
  return { stages, gathered, ordered };
}

interface Trial {
  readonly summary: FlowSummary;
  readonly events: FlowEvent[];
  readonly values: number[];
  readonly poolBytes: number;
  readonly ordered: boolean;
  readonly returned: number;
}

/** @param timing seeds what takes how long, apart from what is done */
async function trial(
  seed: number,
  ending: 'complete' | 'cancelled' | 'stopped',
  timing = seed,
): Promise<Trial> {
  const draw = random(seed);
  const jitter = random(timing + 1_000_000);
  const { stages, gathered, ordered } = stagesOf(draw, jitter);
  const rows = Math.floor(draw() * 60);
  const maxItemBytes = 8 + Math.floor(draw() * 100);
  const source = sourceOf(range(rows), {
    bytes: (n) => 8 + ((n * 7919) % (maxItemBytes - 7)),
    maxItemBytes,
    ...(draw() < 0.5 ? { wait: () => (jitter() < 0.3 ? turn() : Promise.resolve()) } : {}),
  });
  // From the least that is not refused upwards
  const poolBytes = Math.ceil(maxItemBytes * gathered * (1 + 3 * draw()));
  const controller = new AbortController();
  const end = Math.floor(draw() * 10);
  const events: FlowEvent[] = [];
  const values: number[] = [];
  const summary = await runFlow({
    source,
    stages: stages as unknown as FlowEntries<number, number>,
    poolBytes,
    inFlight: 1 + Math.floor(draw() * 3),
    signal: controller.signal,
    onEvent: (event) => events.push(event),
    consume: async (value, { index, stop }) => {
      values.push(value);
      if (jitter() < 0.5) await turn();
      if (index === end && ending === 'cancelled') controller.abort();
      if (index === end && ending === 'stopped') stop();
    },
  });
  return { summary, events, values, poolBytes, ordered, returned: source.log.returned };
}

function checkBooks({ summary, events, poolBytes }: Trial): void {
  const { issued, trained, dropped, quarantined } = summary.ledger;
  expect(trained + dropped + quarantined).toBe(issued);
  expect(events.filter(({ kind }) => kind === 'quarantine')).toHaveLength(quarantined);
  expect(events.at(-1)).toEqual({ kind: 'end', summary });
  expect(events.filter(({ kind }) => kind === 'oversize')).toHaveLength(0);
  expect(summary.peakBytes).toBeLessThanOrEqual(poolBytes);
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
  it('balances its books within its bound, keeps order, and ends', async () => {
    for (let seed = 0; seed < 300; seed += 1) {
      const result = await trial(seed, 'complete');
      checkBooks(result);
      expect(result.summary.ended).toBe('complete');
      if (result.ordered) expect(result.values).toEqual([...result.values].sort((a, b) => a - b));
    }
  });

  it('gives the same values when everything takes another time, if it is ordered', async () => {
    let ordered = 0;
    for (let seed = 2000; seed < 2080; seed += 1) {
      const first = await trial(seed, 'complete', 1);
      const second = await trial(seed, 'complete', 2);
      if (!first.ordered) continue;
      ordered += 1;
      expect(second.values).toEqual(first.values);
      expect(second.summary.ledger).toEqual(first.summary.ledger);
      // Those of one stage come in order; which stage is first is a matter of time.
      for (const stage of new Set([...stagesIn(first), ...stagesIn(second)])) {
        expect(quarantinedIn(stage, second)).toEqual(quarantinedIn(stage, first));
      }
    }
    expect(ordered).toBeGreaterThan(30);
  });

  it('balances its books when it is cancelled or stopped, and closes its source at most once', async () => {
    for (let seed = 1000; seed < 1150; seed += 1) {
      for (const ending of ['cancelled', 'stopped'] as const) {
        const result = await trial(seed, ending);
        checkBooks(result);
        expect(['complete', ending]).toContain(result.summary.ended);
        expect(result.returned).toBeLessThanOrEqual(1);
      }
    }
  });
});

describe('a million synchronous items', () => {
  it('pass through a gate, lifted operators and a batch without a deep stack', async () => {
    let sum = 0;
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
      consume: (values: readonly number[]) => {
        for (const n of values) sum += n;
      },
    });
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
