import { describe, expect, it } from 'vitest';
import { random } from '../../src/data/random.js';
import {
  batch,
  filter,
  flatMap,
  map,
  orderedMap,
  repeatSource,
  runFlow,
  takeSource,
  type FlowPosition,
  type FlowSummary,
  type Source,
} from '../../src/flow/index.js';
import { origin } from './helpers.js';

/** More in a long run. */
const SEEDS = Number(process.env.SOAK ?? 4);

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Numbers from 0, some of which cannot be read; with cursors it can be opened anywhere. */
function numbers(count: number, cursors: boolean): Source<number> & { readonly pulled: () => number } {
  let pulled = 0;
  return {
    name: 'numbers',
    pulled: () => pulled,
    open: async function* (_signal, from) {
      for (let n = (from as number | undefined) ?? 0; n < count; n += 1) {
        pulled += 1;
        const place = { bytes: 100, origin: origin(n), ...(cursors ? { cursor: n } : {}) };
        yield n % 17 === 5 ? { error: new Error('unreadable'), ...place } : { value: n, ...place };
      }
    },
  };
}

interface Made {
  readonly values: readonly number[][];
  readonly positions: readonly FlowPosition[];
  readonly summary: FlowSummary;
}

/** A graph that drops, splits, fails and delays by what the seed says, gathered in batches. */
async function run(
  source: Source<number>,
  seed: number,
  from?: FlowPosition,
  stopAfter = Infinity,
): Promise<Made> {
  const draw = (n: number, ...keys: number[]): number => random(seed, ...keys).below(n);
  const values: number[][] = [];
  const positions: FlowPosition[] = [];
  const summary = await runFlow({
    source,
    stages: [
      filter((n: number) => draw(10, n, 1) > 0),
      flatMap((n: number) => Array.from({ length: draw(5, n, 2) }, (_, i) => n * 10 + i)),
      orderedMap(async (n: number) => {
        for (let i = draw(3, n, 3); i > 0; i -= 1) await turn();
        if (draw(12, n, 4) === 0) throw new Error('bad');
        return n;
      }),
      filter((n: number) => draw(9, n, 5) > 0),
      batch({ cost: (n: number) => 1 + draw(3, n, 6), limit: 7, padded: true }, (all: readonly number[]) => {
        const index = all.findIndex((n) => draw(20, n, 7) === 0);
        if (index >= 0) throw Object.assign(new Error('does not fit'), { index });
        return [...all];
      }),
      map((all: number[]) => all),
    ],
    poolBytes: 4000,
    inFlight: 2,
    ...(from ? { from } : {}),
    consume: async (value: number[], { position, stop }) => {
      values.push(value);
      positions.push(JSON.parse(JSON.stringify(position)) as FlowPosition);
      if (values.length >= stopAfter) stop();
      await turn();
    },
  });
  return { values, positions, summary };
}

describe('a run that goes on from a position', () => {
  it.each([
    ['with cursors', true],
    ['without cursors', false],
  ])('gives the values that a run without a break gives, from a source %s', async (_, cursors) => {
    for (let seed = 0; seed < SEEDS; seed += 1) {
      const whole = await run(numbers(120, cursors), seed);
      expect(whole.values.length).toBeGreaterThan(10);
      for (const [i, from] of whole.positions.entries()) {
        const rest = await run(numbers(120, cursors), seed, from);
        expect(rest.values, `seed ${seed}, behind ${i}`).toEqual(whole.values.slice(i + 1));
        expect(rest.positions).toEqual(whole.positions.slice(i + 1));
        const { issued, dropped, quarantined, trained } = rest.summary.ledger;
        expect({
          issued: from.done.issued + issued,
          dropped: from.done.dropped + dropped,
          quarantined: from.done.quarantined + quarantined,
          trained: from.done.issued - from.done.dropped - from.done.quarantined + trained,
        }).toEqual(whole.summary.ledger);
      }
    }
  });

  it('goes on three times in a row, over the edge of an epoch', async () => {
    const source = (): Source<number> => takeSource(repeatSource(numbers(50, true), 3), 130);
    const whole = await run(source(), 99);
    const values: number[][] = [];
    let from: FlowPosition | undefined;
    for (const stopAfter of [3, 9, 14, Infinity]) {
      const part = await run(source(), 99, from, stopAfter);
      values.push(...part.values);
      from = part.positions.at(-1);
    }
    expect(values).toEqual(whole.values);
  });

  it('opens a source with cursors where it stood, and reads one without up to there', async () => {
    const { positions } = await run(numbers(120, true), 3);
    const from = positions.at(-3)!;
    const [far, near] = [numbers(120, false), numbers(120, true)];
    await run(far, 3, { ...from, cursor: undefined });
    await run(near, 3, from);
    expect(far.pulled()).toBe(120);
    expect(near.pulled()).toBe(120 - from.item);
  });

  it('refuses a source that stands elsewhere now', async () => {
    const { positions } = await run(numbers(120, true), 3);
    const from = positions[4]!;
    const moved = numbers(120, true);
    const open: Source<number>['open'] = (signal, cursor) => moved.open(signal, Number(cursor) + 1);
    await expect(run({ name: 'numbers', open }, 3, from)).rejects.toThrow(
      `source numbers, item ${from.item}: expected rows.parquet row ${from.item}, where the run stood that is continued, ` +
        `received rows.parquet row ${from.item + 1}; continue with the same files, seed and options of the source`,
    );
    await expect(run(numbers(3, true), 3, from)).rejects.toThrow('received the end of the source');
  });
});
