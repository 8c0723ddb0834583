// The whole training step (forward, loss, backward, clip, AdamW) of the text tower by `pipe run`'s own learner, beside
// transformers and PEFT on the same libtorch: the two take turns, step by step, each in a process of its own, and the ratio
// is of each pair. BENCH_ONLY picks jobs by a part of their names.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, it } from 'vitest';
import { type BenchRow, median, printTable, pythonWith } from './table.js';
import { JOBS, type StepJob, productFlops } from './train-step-jobs.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const ONLY = process.env['BENCH_ONLY'] ?? '';
/** Either side's first steps find no memory of their own yet, and no optimizer state. */
const WARM_UP = 2;
/** Where the reference's step takes longer, as in bfloat16 on a processor without instructions for it, one says enough. */
const SLOW_MS = 60_000;

interface Step {
  readonly ms: number;
  /** Of all threads: what counts where other programs run too. */
  readonly cpuMs: number;
  readonly loss: number;
  readonly peakBytes: number;
  readonly js?: number;
}

const rows: BenchRow[] = [];
afterAll(() =>
  printTable(`Training step, ${THREADS} threads (reference: transformers, PEFT, fused AdamW)`, rows),
);

const chosen = JOBS.filter(({ name }) => name.includes(ONLY));
it.skipIf(chosen.length === 0).each(chosen)('$name', async (job) => {
  const python = pythonWith('torch', 'transformers', 'peft');
  const ours = await startOurs(job);
  const theirs = python ? await startReference(python, job) : undefined;
  const pairs: { readonly ours: Step; readonly theirs: Step | undefined }[] = [];
  let isSlow = false;
  for (let round = -WARM_UP; round < (isSlow ? -WARM_UP + 1 : ROUNDS); round++) {
    const pair = { ours: await ours.step(), theirs: await theirs?.step() };
    isSlow ||= (pair.theirs?.ms ?? 0) > SLOW_MS;
    if (round >= 0 || isSlow) pairs.push(pair);
  }
  const { js = 0 } = await ours.ask<Step>('profile');
  const { gflops } = await ours.ask<{ gflops: number }>('peak');
  await Promise.all([ours.end(), theirs?.end()]);

  const of = (take: (pair: (typeof pairs)[number]) => number | undefined): number =>
    median(pairs.map(take).filter((value) => value !== undefined));
  const tokens = (ms: number): string =>
    `${Math.round((job.batch * job.length * 1000) / ms)} tokens/s (${Math.round(ms)} ms)`;
  const ms = of(({ ours }) => ours.ms);
  rows.push(
    {
      name: job.name,
      ours: tokens(ms),
      ...(theirs && {
        reference: tokens(of(({ theirs }) => theirs?.ms)),
        ratio: of(({ ours, theirs }) => theirs && theirs.ms / ours.ms),
      }),
    },
    {
      name: `${job.name}: processor time`,
      ours: `${Math.round(of(({ ours }) => ours.cpuMs))} ms`,
      ...(theirs && {
        reference: `${Math.round(of(({ theirs }) => theirs?.cpuMs))} ms`,
        ratio: of(({ ours, theirs }) => theirs && theirs.cpuMs / ours.cpuMs),
      }),
    },
    {
      name: `${job.name}: most resident memory`,
      ours: gigabytes(of(({ ours }) => ours.peakBytes)),
      ...(theirs && {
        reference: gigabytes(of(({ theirs }) => theirs?.peakBytes)),
        ratio: of(({ ours, theirs }) => theirs && theirs.peakBytes / ours.peakBytes),
      }),
    },
    ownRow(
      `${job.name}: products with weights`,
      `${percent(productFlops(job) / 1e6 / ms / gflops)} of the step, at the ${Math.round(gflops)} GFLOP/s that one product makes`,
    ),
    ownRow(`${job.name}: outside native code`, percent(js)),
  );
});

it.skipIf(!'mid, DoRA'.includes(ONLY)).each(['float32', 'bfloat16'] as const)(
  'mid, DoRA beside LoRA, %s',
  async (dtype) => {
    const plain = JOBS.find(({ adapter }) => adapter === 'lora')!;
    const [dora, lora] = [
      await startOurs({ ...plain, dtype, adapter: 'dora' }),
      await startOurs({ ...plain, dtype, adapter: 'lora' }),
    ];
    const pairs: { readonly dora: number; readonly lora: number }[] = [];
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      const pair = { dora: (await dora.step()).ms, lora: (await lora.step()).ms };
      if (round >= 0) pairs.push(pair);
    }
    await Promise.all([dora.end(), lora.end()]);
    rows.push({
      name: `mid, DoRA beside LoRA, ${dtype}`,
      ours: `${Math.round(median(pairs.map(({ dora }) => dora)))} ms`,
      reference: `${Math.round(median(pairs.map(({ lora }) => lora)))} ms (LoRA)`,
      ratio: median(pairs.map(({ dora, lora }) => lora / dora)),
    });
  },
);

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const ownRow = (name: string, ours: string): BenchRow => ({ name, ours, reference: '' });

const pathOf = (script: string): string => fileURLToPath(new URL(script, import.meta.url));
const startOurs = (job: StepJob) => start(process.execPath, './train-step-child.mjs', job);
const startReference = (python: string, job: StepJob) => start(python, './train_step.py', job);

/** A process that makes one step at a time. */
async function start(program: string, script: string, job: StepJob) {
  const child = spawn(program, [pathOf(script), JSON.stringify({ ...job, threads: THREADS })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async <T>(): Promise<T> => {
    const line = await lines.next();
    if (line.done) throw new Error(`${script} ended early`);
    return JSON.parse(line.value) as T;
  };
  await answer(); // the model is there
  const ask = <T>(what: string): Promise<T> => {
    child.stdin.write(`${what}\n`);
    return answer<T>();
  };
  return {
    ask,
    step: () => ask<Step>(''),
    end: async () => {
      child.stdin.end();
      await ended;
    },
  };
}
