// What it costs to watch a step: norms by part, update ratios and warnings, and the count of operations, as a share of the
// step that they are part of. Both are timed in the same steps, so that a busy machine changes the share little.

import { cpus } from 'node:os';
import { it } from 'vitest';
import type { Batch } from '../../src/data/types.js';
import { FlopCounter, applyAdapter, fromConfig } from '../../src/models/gemma3n/index.js';
import { lora } from '../../src/peft/index.js';
import { setNumThreads } from '../../src/tensor/index.js';
import { batchShape } from '../../src/train/batch-shape.js';
import { Dynamics } from '../../src/train/dynamics.js';
import { Learner } from '../../src/train/learner.js';
import { learnerSpec } from '../train/learner-spec.js';
import { type BenchRow, printTable } from './table.js';
import { MID_CONFIG } from './train-step-jobs.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
/** Weights are compared at one step of ten, so that a multiple of ten is fair. */
const STEPS = Number(process.env['BENCH_STEPS'] ?? 10);

/** As train-step.bench.ts has it: hidden 512, 10 layers, 32,768 words, 4 x 512 tokens, a quarter of them labelled. */
const CONFIG = {
  model_type: 'gemma3n_text',
  architectures: ['Gemma3nForCausalLM'],
  ...MID_CONFIG,
};
const SHAPE = [4, 512];

it('watching a step', () => {
  setNumThreads(THREADS);
  const rows: BenchRow[] = [];
  for (const kind of ['LoRA', 'full fine-tuning'] as const) {
    const model = fromConfig(CONFIG, { seed: 0, dtype: 'bfloat16' }).train();
    if (kind === 'LoRA') applyAdapter(model, lora({ rank: 8, alpha: 16 }));
    const learner = new Learner(model, learnerSpec({ path: '', dtype: 'bfloat16', lr: 1e-4, clipNorm: 1 }));
    const step = () => {
      learner.accumulate(batch(), []);
      learner.update([]);
    };
    for (let i = 0; i < 2; i++) step();
    const watching = { ms: 0 };
    const undo = [timed(Dynamics, 'beforeUpdate', watching), timed(Dynamics, 'afterUpdate', watching)];
    const counting = { ms: 0 };
    undo.push(timed(FlopCounter, 'count', counting));
    const begun = performance.now();
    for (let i = 0; i < STEPS; i++) step();
    const all = performance.now() - begun;
    for (const each of undo) each();
    const shaped = performance.now();
    for (let i = 0; i < STEPS; i++) batchShape(batch(), 256);
    counting.ms += performance.now() - shaped;
    const share = (ms: number) => `${((100 * ms) / all).toFixed(2)} % (${(ms / STEPS).toFixed(2)} ms a step)`;
    rows.push(
      { name: 'norms, ratios, warnings', ours: share(watching.ms) },
      { name: 'operations counted', ours: share(counting.ms) },
      { name: 'the step', ours: `${(all / STEPS).toFixed(0)} ms` },
    );
    model.dispose();
    printTable(`Watching a step, share of it: ${kind}`, rows.splice(0));
  }
}, 600_000);

/** Adds up what a method takes. @returns how to undo it */
function timed(type: { prototype: object }, method: string, sum: { ms: number }): () => void {
  const prototype = type.prototype as Record<string, (...args: unknown[]) => unknown>;
  const own = prototype[method]!;
  prototype[method] = function (this: unknown, ...args: unknown[]) {
    const begun = performance.now();
    try {
      return own.apply(this, args);
    } finally {
      sum.ms += performance.now() - begun;
    }
  };
  return () => void (prototype[method] = own);
}

function batch(): Batch {
  const [rows = 0, length = 0] = SHAPE;
  const ids = Int32Array.from({ length: rows * length }, () => 3 + Math.floor(Math.random() * 29_997));
  return {
    inputIds: { data: ids, shape: SHAPE },
    attentionMask: { data: new Uint8Array(ids.length).fill(1), shape: SHAPE },
    labels: { data: ids.map((id, i) => (i % length < length - 128 ? -100 : id)), shape: SHAPE },
    numTokens: ids.length,
    numLabels: rows * 128,
    numSamples: rows,
  };
}
