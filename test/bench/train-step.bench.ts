// The whole training step (forward, loss, backward, clip, AdamW) of the text tower, full fine-tuning, beside transformers
// on the same libtorch: the two take turns, step by step, and the ratio is of each pair.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, it } from 'vitest';
import type { Batch } from '../../src/data/types.js';
import { fromConfig } from '../../src/models/gemma3n/index.js';
import { setNumThreads } from '../../src/tensor/index.js';
import { Learner } from '../../src/train/learner.js';
import { learnerSpec } from '../train/learner-spec.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
/** Either side's first steps find no memory of their own yet, and no optimizer state. */
const WARM_UP = 3;

/** Hidden 512, 10 layers of which 5 share, 32,768 words, 4 x 512 tokens, a quarter of them labelled. */
const JOB = {
  config: {
    vocab_size: 32768,
    vocab_size_per_layer_input: 32768,
    hidden_size: 512,
    intermediate_size: 2048,
    num_hidden_layers: 10,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    head_dim: 64,
    sliding_window: 256,
    hidden_size_per_layer_input: 64,
    num_kv_shared_layers: 5,
    laurel_rank: 16,
    activation_sparsity_pattern: [0.95, 0.95, 0.95, 0, 0, 0, 0, 0, 0, 0],
  },
  batch: 4,
  length: 512,
  labelled: 128,
  threads: THREADS,
};

const rows: BenchRow[] = [];
afterAll(() =>
  printTable(
    `Training step, full fine-tuning, ${THREADS} threads (reference: transformers, fused AdamW)`,
    rows,
  ),
);

it.each(['bfloat16', 'float32'] as const)('full fine-tuning in %s', async (dtype) => {
  setNumThreads(THREADS);
  const step = ourStep(dtype);
  const python = pythonWith('torch', 'transformers');
  const reference = python ? await startReference(python, dtype) : undefined;
  const ours: number[] = [];
  const theirs: number[] = [];
  try {
    for (let round = -WARM_UP; round < ROUNDS; round++) {
      const ms = step();
      const referenceMs = await reference?.step();
      if (round < 0) continue;
      ours.push(ms);
      if (referenceMs !== undefined) theirs.push(referenceMs);
    }
  } finally {
    await reference?.end();
  }
  const tokens = (ms: number) =>
    `${Math.round((JOB.batch * JOB.length * 1000) / ms)} tokens/s (${Math.round(ms)} ms)`;
  rows.push({
    name: dtype,
    ours: tokens(median(ours)),
    ...(reference && {
      reference: tokens(median(theirs)),
      ratio: median(theirs.map((ms, i) => ms / ours[i]!)),
    }),
  });
});

function ourStep(dtype: 'bfloat16' | 'float32'): () => number {
  const config = { model_type: 'gemma3n_text', architectures: ['Gemma3nForCausalLM'], ...JOB.config };
  const model = fromConfig(config, { seed: 0, dtype }).train();
  const spec = { path: '', dtype, lr: 1e-4, clipNorm: 1, maxSteps: 1000, seed: 0 } as const;
  const learner = new Learner(model, learnerSpec(spec));
  return () => {
    const batch = ourBatch();
    const begun = performance.now();
    learner.accumulate(batch, []);
    learner.update([]);
    return performance.now() - begun;
  };
}

function ourBatch(): Batch {
  const { batch, length, labelled } = JOB;
  const shape = [batch, length];
  const ids = Int32Array.from({ length: batch * length }, () => 3 + Math.floor(Math.random() * 29_997));
  const labels = ids.map((id, i) => (i % length < length - labelled ? -100 : id));
  return {
    inputIds: { data: ids, shape },
    attentionMask: { data: new Uint8Array(batch * length).fill(1), shape },
    labels: { data: labels, shape },
    numTokens: batch * length,
    numLabels: batch * labelled,
    numSamples: batch,
  };
}

/** transformers in a process of its own, which makes one step at a time. */
async function startReference(python: string, dtype: string) {
  const script = fileURLToPath(new URL('./train_step.py', import.meta.url));
  const child = spawn(python, [script, JSON.stringify({ ...JOB, dtype })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<{ ms: number }> => {
    const line = await lines.next();
    if (line.done) throw new Error('train_step.py ended early');
    return JSON.parse(line.value) as { ms: number };
  };
  await answer(); // the model is there
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
