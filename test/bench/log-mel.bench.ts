// Waves to log-mel features, on the thread that a run uses for it, beside the reference's extractor in the same run.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { it } from 'vitest';
import { audioFeaturesInThread, featureSettings } from '../../src/audio/index.js';
import { wave } from '../reference/waves.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const ROUNDS = 5;
const IN_FLIGHT = 4;

interface Job {
  readonly samples: number;
  /** Clips a round. */
  readonly count: number;
}

interface Rate {
  readonly clipsPerSecond: number;
  /** What the processor's time is worth, also on a machine that has other work. */
  readonly clipsPerCpuSecond: number;
}

const jobs: readonly Job[] = [
  { samples: 16_000, count: 300 },
  { samples: 80_000, count: 100 },
  { samples: 480_000, count: 20 },
];

it('log-mel', async () => {
  const python = pythonWith('transformers', 'numpy');
  const reference = python === undefined ? undefined : startReference(python);
  const rows: BenchRow[] = [];
  try {
    for (const job of jobs) {
      await measure(job);
      const ours: Rate[] = [];
      const theirs: Rate[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(await measure(job));
        if (reference) theirs.push(await reference.measure(job));
      }
      const name = `${job.samples / 16_000} s of sound`;
      rows.push(
        row(`${name}, clips/s`, ours, theirs, (rate) => rate.clipsPerSecond),
        row(`${name}, clips a CPU second`, ours, theirs, (rate) => rate.clipsPerCpuSecond),
      );
    }
  } finally {
    reference?.end();
  }
  printTable('Log-mel features, one thread', rows);
}, 600_000);

function row(
  name: string,
  ours: readonly Rate[],
  theirs: readonly Rate[],
  of: (rate: Rate) => number,
): BenchRow {
  return {
    name,
    ours: median(ours.map(of)).toFixed(0),
    ...(theirs.length > 0 && {
      reference: median(theirs.map(of)).toFixed(0),
      ratio: median(ours.map((rate, round) => of(rate) / of(theirs[round]!))),
    }),
  };
}

async function measure({ samples, count }: Job): Promise<Rate> {
  const settings = featureSettings({}, 'bench');
  const clip = { data: wave({ kind: 'noise', samples }), sampleRateHz: 16_000 };
  let left = count;
  const work = async (): Promise<void> => {
    while (left-- > 0) await audioFeaturesInThread([clip], settings);
  };
  const begun = performance.now();
  const usage = process.cpuUsage();
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
  const { user, system } = process.cpuUsage(usage);
  return {
    clipsPerSecond: (count / (performance.now() - begun)) * 1e3,
    clipsPerCpuSecond: (count / (user + system)) * 1e6,
  };
}

/** One Python for all rounds: a line in, a line out. */
function startReference(python: string): { measure: (job: Job) => Promise<Rate>; end: () => void } {
  const script = fileURLToPath(new URL('./log_mel.py', import.meta.url));
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    measure: async (job) => {
      child.stdin.write(`${JSON.stringify(job)}\n`);
      const line = await lines.next();
      if (line.done) throw new Error('log_mel.py ended early');
      return JSON.parse(line.value) as Rate;
    },
    end: () => child.stdin.end(),
  };
}
