// The training step by itself, on this thread.

import { beforeAll, describe, expect, it } from 'vitest';
import type { Batch } from '../../src/data/types.js';
import type { Gemma3n } from '../../src/models/gemma3n/index.js';
import { type Tensor, liveTensors, noGrad, scope, setNumThreads } from '../../src/tensor/index.js';
import { Learner, type LearnerSpec } from '../../src/train/learner.js';
import { learnerSpec } from './learner-spec.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

/** Rows of ids; a label list shorter than its row is learnt from there on. */
function batch(rows: readonly { ids: number[]; from: number }[]): Batch {
  const width = Math.max(...rows.map(({ ids }) => ids.length));
  const shape = [rows.length, width];
  const fill = (value: (row: { ids: number[]; from: number }, i: number) => number) =>
    rows.flatMap((row) => Array.from({ length: width }, (_, i) => value(row, i)));
  const labels = Int32Array.from(fill(({ ids, from }, i) => (i >= from ? (ids[i] ?? -100) : -100)));
  return {
    inputIds: { data: Int32Array.from(fill(({ ids }, i) => ids[i] ?? 0)), shape },
    attentionMask: { data: Uint8Array.from(fill(({ ids }, i) => (i < ids.length ? 1 : 0))), shape },
    labels: { data: labels, shape },
    numTokens: rows.reduce((sum, { ids }) => sum + ids.length, 0),
    numLabels: labels.filter((label, i) => label !== -100 && i % width !== 0).length,
    numSamples: rows.length,
  };
}

const ROWS = [
  { ids: [2, 40, 41, 42, 43, 44, 45], from: 2 },
  { ids: [2, 50, 51, 52], from: 3 },
  { ids: [2, 60, 61, 62, 63], from: 1 },
  { ids: [2, 70, 71, 72, 73, 74], from: 5 },
];
const MASKED = { ids: [2, 80, 81, 82], from: 99 };

function weights(model: Gemma3n): Map<string, Float32Array> {
  return new Map(
    [...model.namedParameters()].map(([name, tensor]) => [
      name,
      scope(() => tensor.to('float32').toTypedArray()) as Float32Array,
    ]),
  );
}

function largestDifference(a: Map<string, Float32Array>, b: Map<string, Float32Array>): number {
  let largest = 0;
  for (const [name, values] of a) {
    const other = b.get(name)!;
    for (const [i, value] of values.entries()) largest = Math.max(largest, Math.abs(value - other[i]!));
  }
  return largest;
}

function parameter(learner: Learner, name: string): Tensor {
  return [...learner.model.namedParameters()].find(([own]) => own === name)![1];
}

describe('a step', () => {
  it('counts its operations: split, padded or checkpointed as it may be', async () => {
    const spec = learnerSpec({ clipNorm: 1 });
    const checkpointed = { ...spec, step: { ...spec.step!, checkpointing: true } };
    const flopsOf = async (of: LearnerSpec, batches: readonly Batch[]) => {
      const learner = await Learner.open(of);
      for (const each of batches) learner.accumulate(each, ['a']);
      const { flops, mfu, stepMs, waitMs } = learner.update(['a']);
      expect(mfu! / ((1000 * flops!) / (stepMs + waitMs) / learner.facts().peakFlops!)).toBeCloseTo(1, 6);
      learner.model.dispose();
      return flops!;
    };
    const whole = await flopsOf(spec, [batch(ROWS)]);
    expect(whole).toBeGreaterThan(1e6);
    expect(await flopsOf(spec, [batch(ROWS.slice(0, 1)), batch(ROWS.slice(1))])).toBe(whole);
    expect(await flopsOf(checkpointed, [batch(ROWS)])).toBe(whole);
    const masked = await flopsOf(spec, [batch([MASKED])]); // its forward pass alone
    expect(masked / (whole / ROWS.length)).toBeLessThan(0.4);
    const frozen = await flopsOf(learnerSpec({ freeze: ['embeddings', '*.altup.*'] }), [batch(ROWS)]);
    expect(frozen).toBeLessThan(0.95 * whole);
  });

  it('of micro-batches with different numbers of labels equals one of a big batch', async () => {
    const whole = await Learner.open(linear(learnerSpec()));
    const parts = await Learner.open(linear(learnerSpec({ accumulate: 3 })));
    whole.accumulate(batch(ROWS), ['a']);
    const one = whole.update(['a']);
    for (const rows of [ROWS.slice(0, 1), ROWS.slice(1, 3), ROWS.slice(3)])
      parts.accumulate(batch(rows), ['a']);
    const other = parts.update(['a']);

    expect(one.numLabels).toBe(5 + 1 + 4 + 1);
    expect(other.numLabels).toBe(one.numLabels);
    expect(other.loss).toBeCloseTo(one.loss, 5);
    expect(other.gradNorm / one.gradNorm).toBeCloseTo(1, 4);
    expect(largestDifference(weights(whole.model), weights(parts.model))).toBeLessThan(1e-6);
    const start = weights((await Learner.open(learnerSpec())).model);
    expect(largestDifference(weights(whole.model), start)).toBeGreaterThan(1e-2);
  });

  it('has the mean gradient, clipped by its global norm', async () => {
    const clipped = await Learner.open(linear(learnerSpec({ clipNorm: 0.01 })));
    const free = await Learner.open(linear(learnerSpec()));
    const start = weights(free.model);
    for (const learner of [clipped, free]) learner.accumulate(batch(ROWS), ['a']);
    const { gradNorm } = clipped.update(['a']);
    expect(gradNorm).toBeGreaterThan(0.1);
    expect(free.update(['a']).gradNorm).toBe(gradNorm);
    const moved = (learner: Learner) => largestDifference(weights(learner.model), start);
    expect(moved(free) / moved(clipped) / (gradNorm / 0.01)).toBeCloseTo(1, 1);
  });

  it('with all labels masked changes nothing, and is counted', async () => {
    const learner = await Learner.open(learnerSpec({ clipNorm: 1 }));
    const before = weights(learner.model);
    learner.accumulate(batch([MASKED, MASKED]), ['a']);
    const first = learner.update(['a']);
    expect(first).toMatchObject({ step: 1, loss: 0, numLabels: 0, gradNorm: 0, skipped: 1 });
    expect(first.warnings).toMatchObject([
      {
        kind: 'no labels',
        message: expect.stringContaining("of step 1's micro-batches 1 had no token") as string,
      },
    ]);
    expect(largestDifference(weights(learner.model), before)).toBe(0);

    // beside labelled rows it takes no part
    const other = await Learner.open(learnerSpec({ clipNorm: 1 }));
    learner.accumulate(batch([MASKED]), ['a']);
    for (const each of [learner, other]) each.accumulate(batch(ROWS), ['a']);
    const [{ loss, gradNorm, warnings }, alone] = [learner.update(['a']), other.update(['a'])];
    expect(warnings, 'told once').toBeUndefined();
    expect([loss, gradNorm]).toEqual([alone.loss, alone.gradNorm]);
    expect(Number.isFinite(loss)).toBe(true);
  });

  it('is the same bit for bit in two runs, and another from another seed', async () => {
    const train = async (seed: number) => {
      const learner = await Learner.open(learnerSpec({ clipNorm: 1, seed }));
      const losses = [0, 1, 2].map(() => {
        learner.accumulate(batch(ROWS), ['a']);
        return learner.update(['a']).loss;
      });
      return { losses, weights: weights(learner.model) };
    };
    const [a, b, c] = [await train(1), await train(1), await train(2)];
    expect(a.losses).toEqual(b.losses);
    expect(largestDifference(a.weights, b.weights)).toBe(0);
    expect(a.losses).not.toEqual(c.losses);
    expect(a.losses[2]).toBeLessThan(a.losses[0]!);
  });

  it('leaves no tensors behind, and neither does an evaluation', async () => {
    const learner = await Learner.open(learnerSpec({ clipNorm: 1 }));
    const round = async () => {
      learner.accumulate(batch(ROWS), ['a']);
      learner.update(['a']);
      const { labels: _labels, ...prompts } = batch(ROWS.slice(0, 1));
      await learner.generate(prompts, { maxNewTokens: 3, eosTokenIds: [1] });
    };
    await round();
    const live = await settledTensors();
    for (let i = 0; i < 3; i++) await round();
    // what earlier tests left may be collected meanwhile
    expect(liveTensors()).toBeLessThanOrEqual(live);
  });
});

describe('bfloat16 weights', () => {
  it('learn by less than their last bit, through master weights', async () => {
    const learner = await Learner.open(learnerSpec({ dtype: 'bfloat16', lr: 1e-5, maxSteps: 100 }));
    const name = 'model.language_model.layers.0.mlp.up_proj.weight';
    const start = weights(learner.model).get(name)!;
    for (let i = 0; i < 3; i++) {
      learner.accumulate(batch(ROWS), ['a']);
      learner.update(['a']);
    }
    const state = new Map(learner.optimizer!.namedState(learner.trainable.map(([own]) => own)));
    const master = state.get(`${name}.master`)!;
    expect(master.dtype).toBe('float32');
    const moved = (master.toTypedArray() as Float32Array).filter((value, i) => value !== start[i]);
    expect(moved.length).toBeGreaterThan(start.length / 2);
    // nearly all weights still round to what they were
    const same = weights(learner.model)
      .get(name)!
      .filter((value, i) => value === start[i]);
    expect(same.length).toBeGreaterThan(start.length / 2);
    expect(parameter(learner, name).dtype).toBe('bfloat16');
  });
});

describe('freeze', () => {
  it('gives no gradient, no optimizer state and unchanged weights', async () => {
    const learner = await Learner.open(learnerSpec({ freeze: ['vision', 'embeddings', '*.layers.1.mlp.*'] }));
    const frozen = (name: string) => /vision_tower|embed_tokens|layers\.1\.mlp\./.test(name);
    const before = weights(learner.model);
    learner.accumulate(batch(ROWS), ['a']);
    for (const [name, tensor] of learner.model.namedParameters()) {
      if (frozen(name)) expect([name, tensor.requiresGrad, tensor.grad]).toEqual([name, false, null]);
    }
    learner.update(['a']);
    const stored = [...learner.optimizer!.namedState(learner.trainable.map(([name]) => name))];
    expect(stored.length).toBeGreaterThan(0);
    expect(stored.filter(([name]) => frozen(name))).toEqual([]);
    const after = weights(learner.model);
    const changed = [...after].filter(([name, values]) =>
      values.some((value, i) => value !== before.get(name)![i]),
    );
    expect(changed.length).toBeGreaterThan(0);
    expect(changed.filter(([name]) => frozen(name))).toEqual([]);
    const { numParameters, numTrainable } = learner.facts();
    expect(numTrainable).toBeLessThan(numParameters);
  });

  it('of everything is refused where something is to learn', async () => {
    await expect(Learner.open(learnerSpec({ freeze: ['*'] }))).rejects.toThrow(
      'model.freeze: expected some parameters left to learn, received all of them frozen by *; freeze fewer parts, or ' +
        'leave out step to evaluate only',
    );
  });
});

describe('a number that is not finite', () => {
  const ROW_NAMES = Array.from({ length: 10 }, (_, i) => `a.parquet row group 0 row ${i}`);
  const poison = (learner: Learner, name: string, value: number) =>
    noGrad(() => scope(() => parameter(learner, name).fill_(value)));

  it('as a loss stops before the update, names step and rows, and stops what is queued behind', async () => {
    const learner = await Learner.open(learnerSpec({ clipNorm: 1 }));
    learner.accumulate(batch(ROWS), ROW_NAMES);
    learner.update(ROW_NAMES);
    poison(learner, 'model.language_model.norm.weight', NaN);
    const before = weights(learner.model);
    const message =
      'step 2, loss: expected a finite number, received NaN; the model was not updated and the last checkpoint is ' +
      'intact; lower the learning rate or look at the rows of this step: ' +
      `${ROW_NAMES.slice(0, 8).join(', ')} and 2 more`;
    expect(() => learner.accumulate(batch(ROWS), ROW_NAMES)).toThrow(message);
    expect(() => learner.update(ROW_NAMES)).toThrow(message);
    poison(learner, 'model.language_model.norm.weight', 1);
    expect(() => learner.accumulate(batch(ROWS), ['b'])).toThrow(message);
    expect(() => learner.update(['b'])).toThrow(message);
    poison(learner, 'model.language_model.norm.weight', NaN);
    expect(String([...weights(learner.model).values()])).toBe(String([...before.values()]));
    expect(learner.state.step).toBe(1);
  });

  it('as a gradient stops before the update', async () => {
    const learner = await Learner.open(learnerSpec({ clipNorm: 1 }));
    learner.accumulate(batch(ROWS), ROW_NAMES);
    scope(() => parameter(learner, 'model.language_model.norm.weight').grad!.fill_(Infinity));
    const before = weights(learner.model);
    expect(() => learner.update(ROW_NAMES.slice(0, 2))).toThrow(
      'step 1, gradient norm: expected a finite number, received Infinity; the model was not updated and the last ' +
        'checkpoint is intact; lower the learning rate or look at the rows of this step: a.parquet row group 0 row 0, ' +
        'a.parquet row group 0 row 1',
    );
    expect(largestDifference(weights(learner.model), before)).toBe(0);
    expect([...learner.optimizer!.namedState()]).toEqual([]);
  });

  it('is not the only failure after which nothing is updated', async () => {
    const learner = await Learner.open(learnerSpec());
    const before = weights(learner.model);
    const { labels: _labels, ...unlabelled } = batch(ROWS);
    expect(() => learner.accumulate(unlabelled, ['a'])).toThrow('lossSum: expected labels, received none');
    expect(() => learner.update(['a'])).toThrow('lossSum: expected labels, received none');
    expect(largestDifference(weights(learner.model), before)).toBe(0);
  });
});

/** Nearly in proportion to the gradient. AdamW's first update is else lr * sign(g), which rounding can turn. */
function linear(given: LearnerSpec): LearnerSpec {
  const optimizer = { kind: 'adamw', lr: 10, eps: 100, weightDecay: 0 } as const;
  return { ...given, step: { ...given.step!, optimizer } };
}
