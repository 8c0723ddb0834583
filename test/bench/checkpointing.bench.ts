// Activation checkpointing on the forward and backward pass of LoRA and of full fine-tuning, plain and computed again by
// turns: what the activations take at their fullest, and the time that it costs. Of full fine-tuning the memory is left
// out: its gradients are among it in both passes.

import { cpus } from 'node:os';
import { afterAll, it } from 'vitest';
import { applyAdapter, fromConfig } from '../../src/models/gemma3n/index.js';
import { lora } from '../../src/peft/index.js';
import { type Tensor, scope, setNumThreads, tensor, tensorMemory } from '../../src/tensor/index.js';
import { type BenchRow, median, printTable } from './table.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const [BATCH, LENGTH, LABELLED] = [4, 512, 128];

const rows: BenchRow[] = [];
afterAll(() =>
  printTable(`Activation checkpointing, ${THREADS} threads (reference: the plain backward pass)`, rows),
);

it.each([
  ['LoRA', 'bfloat16', 10],
  ['LoRA', 'float32', 10],
  ['LoRA', 'bfloat16', 30],
  ['LoRA', 'float32', 30],
  ['full', 'bfloat16', 10],
  ['full', 'float32', 10],
] as const)('%s, %s, %i layers', (kind, dtype, numLayers) => {
  setNumThreads(THREADS);
  const config = {
    model_type: 'gemma3n_text',
    vocab_size: 32768,
    vocab_size_per_layer_input: 32768,
    hidden_size: 512,
    intermediate_size: 2048,
    num_hidden_layers: numLayers,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    head_dim: 64,
    sliding_window: 256,
    hidden_size_per_layer_input: 64,
    num_kv_shared_layers: numLayers / 2,
    laurel_rank: 16,
    activation_sparsity_pattern: Array.from({ length: numLayers }, (_, i) => (i < 3 ? 0.95 : 0)),
  };
  const model = fromConfig(config, { seed: 0, dtype });
  if (kind === 'LoRA') applyAdapter(model, lora({ rank: 8, alpha: 16 }));
  model.train();
  const { inputIds, labels } = words();

  const run = (again: boolean): { ms: number; bytes: number } => {
    const { used } = tensorMemory({ restart: true });
    const begun = performance.now();
    scope(() => {
      if (again) model.lossSumBackward({ inputIds, labels });
      else model.lossSum({ inputIds, labels }).loss.backward();
    });
    const ms = performance.now() - begun;
    const bytes = tensorMemory().most - used;
    for (const [, parameter] of model.namedParameters()) parameter.grad = null;
    return { ms, bytes };
  };
  const times: { again: number; plain: number }[] = [];
  let bytes = { again: 0, plain: 0 };
  for (let round = -1; round < ROUNDS; round++) {
    const [again, plain] = [run(true), run(false)];
    bytes = { again: again.bytes, plain: plain.bytes };
    if (round >= 0) times.push({ again: again.ms, plain: plain.ms });
  }
  const name = `${kind}, ${dtype}, ${numLayers} layers`;
  const of = (take: (one: { again: number; plain: number }) => number): number => median(times.map(take));
  const mb = (count: number): string => `${(count / 1e6).toFixed(0)} MB`;
  if (kind === 'LoRA') {
    rows.push({
      name: `${name}: activations`,
      ours: mb(bytes.again),
      reference: mb(bytes.plain),
      ratio: bytes.plain / bytes.again,
    });
  }
  rows.push({
    name: `${name}: time`,
    ours: `${of(({ again }) => again).toFixed(0)} ms`,
    reference: `${of(({ plain }) => plain).toFixed(0)} ms`,
    ratio: of(({ again, plain }) => plain / again),
  });
  model.dispose();
});

function words(): { inputIds: Tensor; labels: Tensor } {
  const shape = [BATCH, LENGTH];
  const ids = BigInt64Array.from({ length: BATCH * LENGTH }, () =>
    BigInt(3 + Math.floor(Math.random() * 29_997)),
  );
  const labels = ids.map((id, i) => (i % LENGTH < LENGTH - LABELLED ? -100n : id));
  return { inputIds: tensor(ids, shape), labels: tensor(labels, shape) };
}
