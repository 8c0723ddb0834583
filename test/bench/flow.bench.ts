// What a sample costs between source and consumer: microseconds of processor time a sample, the least of some runs, so that
// what else the machine does counts little. 5 us for gate, ticket and one lifted operator is the goal.

import { map as rxMap } from 'rxjs';
import { it } from 'vitest';
import { batch, lift, map, runFlow, type FlowEntries, type Source } from '../../src/flow/index.js';
import { printTable } from './table.js';

const SAMPLES = 200_000;
const ROUNDS = 7;
const GOAL_US = 5;

const source: Source<number> = {
  name: 'numbers',
  maxItemBytes: 8,
  open: async function* () {
    for (let row = 0; row < SAMPLES; row += 1) {
      yield { value: row, bytes: 8, origin: { file: 'numbers', rowGroup: 0, row } };
    }
  },
};

async function time(stages: FlowEntries<number, unknown>): Promise<number> {
  const before = process.cpuUsage();
  await runFlow({ source, stages, poolBytes: 2 ** 20, consume: () => {} });
  const { user, system } = process.cpuUsage(before);
  return (user + system) / SAMPLES;
}

const lifted = lift(rxMap((n: number) => n + 1));
const flows: Record<string, FlowEntries<number, unknown>> = {
  'gate + ticket': [],
  'gate + ticket + one lifted RxJS operator': [lifted],
  'gate + ticket + one map': [map((n: number) => n + 1)],
  'gate + ticket + one lifted RxJS operator + batches of 8': [
    lifted,
    batch({ size: 8 }, (numbers: readonly number[]) => numbers) as never,
  ],
};

it('a sample in the flow', async () => {
  const least: Record<string, number> = {};
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, stages] of Object.entries(flows)) {
      const us = await time(stages);
      if (round > 0) least[name] = Math.min(us, least[name] ?? Infinity); // the first warms up
    }
  }
  printTable(
    'A sample in the flow, processor time; the reference is the goal',
    Object.entries(least).map(([name, us]) => ({
      name,
      ours: `${us.toFixed(2)} us`,
      reference: `${GOAL_US} us`,
      ratio: GOAL_US / us,
    })),
  );
}, 600_000);
