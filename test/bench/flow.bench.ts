// What a sample costs between source and consumer. Prints microseconds of processor time a sample, the least of some
// runs, so that what else the machine does counts little.

import { map as rxMap } from 'rxjs';
import { bench, describe } from 'vitest';
import { lift, map, runFlow, type FlowEntries, type Source } from '../../src/flow/index.js';

const SAMPLES = 200_000;

const source: Source<number> = {
  name: 'numbers',
  maxItemBytes: 8,
  open: async function* () {
    for (let row = 0; row < SAMPLES; row += 1) {
      yield { value: row, bytes: 8, origin: { file: 'numbers', rowGroup: 0, row } };
    }
  },
};

async function time(stages: FlowEntries<number, number>): Promise<number> {
  const before = process.cpuUsage();
  await runFlow({ source, stages, poolBytes: 2 ** 20, consume: () => {} });
  const { user, system } = process.cpuUsage(before);
  return (user + system) / SAMPLES;
}

const flows: Record<string, FlowEntries<number, number>> = {
  'gate + ticket': [],
  'gate + ticket + one lifted RxJS operator': [lift(rxMap((n: number) => n + 1))],
  'gate + ticket + one map': [map((n: number) => n + 1)],
};

describe('flow: microseconds a sample', () => {
  for (const [name, stages] of Object.entries(flows)) {
    const runs: number[] = [];
    bench(
      name,
      async () => {
        runs.push(await time(stages));
      },
      {
        iterations: 5,
        time: 0,
        warmupIterations: 2,
        warmupTime: 0,
        teardown: (_, mode) => {
          if (mode === 'run') console.log(`flow: ${name}: ${Math.min(...runs).toFixed(2)} us a sample`);
        },
      },
    );
  }
});
