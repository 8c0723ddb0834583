// The whole training step (forward, loss, backward, clip, AdamW) of the text tower, full fine-tuning, beside transformers
// on the same libtorch: the two take turns, step by step, and the ratio is of each pair.

import { spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, it } from 'vitest';
import type { Batch } from '../../src/data/types.js';
import { fromConfig } from '../../src/models/gemma3n/index.js';
import { adamw, constant } from '../../src/optim/index.js';
import { setNumThreads } from '../../src/tensor/index.js';
import { Learner } from '../../src/train/learner.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const THREADS = cpus().length;
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);

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
  const reference = python ? await referenceStep(python, dtype) : undefined;
  const ours: number[] = [];
  const theirs: number[] = [];
  step();
  await reference?.step();
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(step());
    if (reference) theirs.push(await reference.step());
  }
  reference?.close();
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
  const learner = new Learner(model, {
    model: {
      kind: 'gemma3n',
      path: '',
      dtype,
      device: 'cpu',
      freeze: [],
      weights: 'random',
      projector: 'pretrained',
    },
    step: {
      kind: 'sft',
      optimizer: { ...adamw({ lr: 1e-4 }), kind: 'adamw' },
      schedule: { ...constant(), kind: 'constant' },
      clipNorm: 1,
      maxSteps: 1000,
      accumulate: 1,
    },
    seed: 0,
  });
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

async function referenceStep(python: string, dtype: string) {
  const path = join(mkdtempSync(join(tmpdir(), 'sluice-bench-')), 'job.json');
  writeFileSync(path, JSON.stringify({ ...JOB, dtype }));
  const child = spawn(python, [fileURLToPath(new URL('./train_step.py', import.meta.url)), path], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  return {
    step: async () => {
      child.stdin.write('\n');
      const { value } = (await lines.next()) as { value: string };
      return (JSON.parse(value) as { ms: number }).ms;
    },
    close: () => child.stdin.end(),
  };
}
