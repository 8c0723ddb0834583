// The audio tower, forward and backward, beside transformers' in the same run.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { it } from 'vitest';
import { AudioTower } from '../../src/models/gemma3n/audio.js';
import { decodeAudioConfig } from '../../src/models/gemma3n/audio-config.js';
import { initialiseAudio } from '../../src/models/gemma3n/initialise-audio.js';
import { manualSeed, noGrad, randn, scope, setNumThreads } from '../../src/tensor/index.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const ROUNDS = 3;

interface Job {
  readonly name: string;
  /** As in a config.json; what it leaves out is the published tower's. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly clips: number;
  /** 100 a second. */
  readonly frames: number;
  readonly backward: boolean;
  /** Steps that one measurement takes the mean of. */
  readonly rounds: number;
}

// The published widths with one of twelve layers; and a small tower, where it is calls that cost.
const published = { conf_num_hidden_layers: 1 };
const small = {
  hidden_size: 64,
  conf_num_attention_heads: 4,
  conf_num_hidden_layers: 4,
  sscp_conv_channel_size: [32, 16],
};
const jobs: readonly Job[] = [false, true].flatMap((backward) => {
  const what = backward ? 'forward and backward' : 'forward';
  const wide = { backward, config: published, rounds: 1 };
  return [
    { ...wide, name: `30 s clip, ${what}`, clips: 1, frames: 3000 },
    { ...wide, name: `4 clips of 5 s, ${what}`, clips: 4, frames: 500 },
    {
      ...wide,
      name: `16 clips of 2 s, small tower, ${what}`,
      config: small,
      clips: 16,
      frames: 200,
      rounds: 10,
    },
  ];
});

it('the audio tower', async () => {
  setNumThreads(1);
  const python = pythonWith('torch', 'transformers');
  const reference = python === undefined ? undefined : startReference(python);
  try {
    const rows: BenchRow[] = [];
    for (const job of jobs) {
      const tower = new AudioTower(decodeAudioConfig(job.config));
      manualSeed(0);
      initialiseAudio(tower);
      const [ours, theirs]: [number[], number[]] = [[], []];
      measure(tower, { ...job, rounds: 1 });
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(measure(tower, job));
        if (reference) theirs.push(await reference.measure(job));
      }
      tower.dispose();
      rows.push({
        name: job.name,
        ours: `${median(ours).toFixed(0)} ms`,
        ...(theirs.length > 0 && {
          reference: `${median(theirs).toFixed(0)} ms`,
          ratio: median(ours.map((mine, round) => theirs[round]! / mine)),
        }),
      });
    }
    printTable('The audio tower on one thread, processor time', rows);
  } finally {
    reference?.end();
  }
}, 1_200_000);

/** Processor time of a step, in milliseconds. */
function measure(tower: AudioTower, { clips, frames, backward, rounds }: Job): number {
  const mel = randn([clips, frames, tower.config.inputFeatSize]);
  const step = (): void =>
    scope(() => {
      for (const [, parameter] of tower.namedParameters()) parameter.grad = null;
      if (backward) tower.forward(mel).features.square().sum().backward();
      else noGrad(() => tower.forward(mel));
    });
  const begun = process.cpuUsage();
  for (let round = 0; round < rounds; round++) step();
  const { user, system } = process.cpuUsage(begun);
  mel.dispose();
  return (user + system) / rounds / 1e3;
}

/** One Python for all rounds, so that none waits for torch to load: a line in, a line out. */
function startReference(python: string): { measure: (job: Job) => Promise<number>; end: () => void } {
  const script = fileURLToPath(new URL('./audio_tower.py', import.meta.url));
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    measure: async ({ name: _, ...job }) => {
      child.stdin.write(`${JSON.stringify(job)}\n`);
      const line = await lines.next();
      if (line.done) throw new Error('audio_tower.py ended early');
      return JSON.parse(line.value) as number;
    },
    end: () => child.stdin.end(),
  };
}
