// The update of all parameters of the mid configuration, clipped to a norm, beside torch.optim.AdamW(fused=True) and
// clip_grad_norm_ on the same libtorch: the two take turns, and the ratio is of each pair. Of bfloat16 weights, Sluice
// updates float32 masters, which the reference does not have.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, it } from 'vitest';
import { fromConfig } from '../../src/models/gemma3n/index.js';
import { Clipping, optimizerOf } from '../../src/optim/index.js';
import { noGrad, op, scope, setNumThreads, type Tensor } from '../../src/tensor/index.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';
import { MID_CONFIG } from './train-step-jobs.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 9);
const WARM_UP = 2;

const CONFIG = {
  model_type: 'gemma3n_text',
  architectures: ['Gemma3nForCausalLM'],
  ...MID_CONFIG,
};

const rows: BenchRow[] = [];
afterAll(() =>
  printTable(
    `Clipping and update of all parameters, ${THREADS} threads (reference: torch.optim.AdamW, fused)`,
    rows,
  ),
);

const randnLike = op('aten::randn_like');

it.each([
  ['adamw', 'float32', 'nearest'],
  ['adamw', 'bfloat16', 'nearest'],
  ['adamw', 'bfloat16', 'stochastic'],
  ['adamw8bit', 'float32', 'nearest'],
  ['adamw8bit', 'bfloat16', 'stochastic'],
] as const)('%s of %s weights, rounded %s', async (kind, dtype, rounding) => {
  setNumThreads(THREADS);
  const model = fromConfig(CONFIG, { seed: 0, dtype });
  const named = [...model.namedParameters()];
  for (const [, p] of named) scope(() => void (p.grad = noGrad(() => randnLike(p.detach()))));
  const optimizer = optimizerOf({ kind, lr: 1e-4, rounding }, named);
  const clipping = new Clipping(named, { norm: 1 });
  const python = pythonWith('torch');
  const shapes = named.map(([, p]: [string, Tensor]) => p.shape);
  const reference = python ? await startReference(python, { dtype, shapes, threads: THREADS }) : undefined;
  const ours: number[] = [];
  const theirs: number[] = [];
  try {
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      const begun = performance.now();
      optimizer.step({ scale: clipping.measure(1).scale });
      const ms = performance.now() - begun;
      const referenceMs = await reference?.step();
      if (round < 0) continue;
      ours.push(ms);
      if (referenceMs !== undefined) theirs.push(referenceMs);
    }
  } finally {
    await reference?.end();
    optimizer.dispose();
  }
  const megabytes = Math.round(optimizer.stateBytes / 2 ** 20);
  rows.push({
    name: `${kind}, ${dtype}${dtype === 'bfloat16' ? `, ${rounding}` : ''}`,
    ours: `${median(ours).toFixed(1)} ms (${megabytes} MiB of state)`,
    ...(reference && {
      reference: `${median(theirs).toFixed(1)} ms`,
      ratio: median(theirs.map((ms, i) => ms / ours[i]!)),
    }),
  });
});

/** PyTorch in a process of its own, which makes one step at a time. */
async function startReference(python: string, job: object) {
  const script = fileURLToPath(new URL('./optim_step.py', import.meta.url));
  const child = spawn(python, [script, JSON.stringify(job)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<{ ms: number }> => {
    const line = await lines.next();
    if (line.done) throw new Error('optim_step.py ended early');
    return JSON.parse(line.value) as { ms: number };
  };
  await answer(); // the tensors are there
  return {
    step: async () => {
      child.stdin.write('\n');
      return (await answer()).ms;
    },
    end: async () => {
      child.stdin.end();
      await ended;
    },
  };
}
