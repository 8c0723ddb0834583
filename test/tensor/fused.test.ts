// The addon's own operators against the same sums written with libtorch's, in value and gradient, in both dtypes that
// have kernels and in float64, which has none.

import { beforeAll, describe, expect, it } from 'vitest';
import {
  type DType,
  type Tensor,
  cat,
  gelu,
  grad,
  logSoftmax,
  manualSeed,
  noGrad,
  op,
  randn,
  setNumThreads,
  tensor,
} from '../../src/tensor/index.js';

const predict = op<[Tensor, Tensor]>('sluice::altup_predict');
const correct = op<[Tensor, Tensor]>('sluice::altup_correct');
const geluMul = op('sluice::gelu_mul');
const cappedCrossEntropy_ = op('sluice::capped_cross_entropy_');
const tie = op('sluice::tie');

const tolerance: Partial<Record<DType, number>> = { float64: 1e-12, float32: 1e-5, bfloat16: 0.01 };
const dtypes = ['float64', 'float32', 'bfloat16'] as const;

beforeAll(() => setNumThreads(1));

function difference(a: Tensor, b: Tensor): number {
  const [x, y] = [a.to('float64'), b.to('float64')];
  return x.sub(y).square().sum().sqrt().item() / Math.max(y.square().sum().sqrt().item(), 1e-30);
}

/** Compares outputs and gradients of `fused` in `dtype` with those of `plain` in float64. */
function compare(
  dtype: DType,
  shapes: readonly (readonly number[])[],
  fused: (...inputs: Tensor[]) => readonly Tensor[],
  plain: (...inputs: Tensor[]) => readonly Tensor[],
): void {
  const inputs = shapes.map((shape) => randn(shape, { dtype: 'float64' }).to(dtype).detach());
  const wide = inputs.map((input) => input.to('float64').clone());
  for (const input of [...inputs, ...wide]) input.requiresGrad = true;
  const [outputs, expected] = [fused(...inputs), plain(...wide)];
  const cotangents = outputs.map((output) => randn(output.shape, { dtype: 'float64' }).to(dtype).detach());
  const gradients = grad(outputs, inputs, cotangents);
  const wideGradients = grad(
    expected,
    wide,
    cotangents.map((cotangent) => cotangent.to('float64')),
  );
  for (const [i, output] of outputs.entries()) {
    expect(output.dtype).toBe(dtype);
    expect(difference(output, expected[i]!)).toBeLessThan(tolerance[dtype]!);
  }
  for (const [i, gradient] of gradients.entries()) {
    expect(difference(gradient!, wideGradients[i]!)).toBeLessThan(tolerance[dtype]!);
  }
}

describe.each(dtypes)('in %s', (dtype) => {
  it.each([
    [2, 0, 19],
    [3, 2, 32],
    [4, 1, 7],
    [9, 3, 8],
  ])('altup_predict mixes %i copies and gives copy %i by itself', (num, active, size) => {
    manualSeed(1);
    compare(
      dtype,
      [
        [2, 3, num, size],
        [2, 3, num, num],
      ],
      (copies, mixing) => predict(copies, mixing, active),
      (copies, mixing) => {
        const all = copies.add(mixing.matmul(copies));
        return [all, all.select(2, active)];
      },
    );
  });

  it.each([
    [2, 0, 19],
    [3, 2, 32],
    [4, 1, 7],
    [9, 3, 8],
  ])('altup_correct corrects %i copies and gives copy %i by itself', (num, active, size) => {
    manualSeed(2);
    compare(
      dtype,
      [
        [2, 3, num, size],
        [2, 3, size],
        [2, 3, num],
        [2, 3, size],
      ],
      (predictions, innovation, coefs, addition) => correct(predictions, innovation, coefs, addition, active),
      (predictions, innovation, coefs, addition) => {
        const corrected = predictions.add(coefs.unsqueeze(3).mul(innovation.unsqueeze(2)));
        const others = corrected.narrow(2, 1, num - 1).add(addition.unsqueeze(2));
        const all = cat([corrected.narrow(2, 0, 1), others], 2);
        return [all, all.select(2, active)];
      },
    );
  });

  it('altup_predict and altup_correct have the same gradients where their copies are not read', () => {
    manualSeed(5);
    const random = (...shape: number[]): Tensor => {
      const made = randn(shape).to(dtype);
      made.requiresGrad = true;
      return made;
    };
    const [copies, mixing, coefs] = [random(2, 3, 4, 21), random(2, 3, 4, 4), random(2, 3, 4)];
    const [innovation, addition] = [random(2, 3, 21), random(2, 3, 21)];
    const learning = [copies, mixing, coefs, innovation, addition];
    const directions = [randn([2, 3, 4, 21]).to(dtype), randn([2, 3, 21]).to(dtype)];
    const pass = (isRead: boolean): { active: Tensor; gradients: unknown[] } => {
      const [predictions, active] = predict(copies, mixing, 2, isRead);
      const outputs = correct(predictions, innovation, coefs, addition, 2, isRead);
      const gradients = grad([...outputs, active], learning, [...directions, directions[1]!]);
      return { active, gradients: gradients.map((gradient) => gradient!.toTypedArray()) };
    };
    const [read, unread] = [pass(true), pass(false)];
    expect(unread.gradients).toEqual(read.gradients);
    expect(unread.active.toTypedArray()).toEqual(read.active.toTypedArray());
    expect(read.gradients.every((values) => (values as Float32Array).every(Number.isFinite))).toBe(true);
  });

  it('leaves gradients as they were given to those who hold them', () => {
    manualSeed(6);
    const [gate, up, direction] = [randn([33]).to(dtype), randn([33]).to(dtype), randn([33]).to(dtype)];
    for (const input of [gate, up]) input.requiresGrad = true;
    const before = direction.toTypedArray();
    const first = grad([geluMul(gate, up)], [gate, up], [direction]);
    expect(direction.toTypedArray()).toEqual(before);
    // through another node nobody else holds the gradient
    const second = grad([geluMul(gate, up).mul(1)], [gate, up], [direction]);
    const values = (gradients: (Tensor | null)[]): unknown => gradients.map((one) => one!.toTypedArray());
    expect(values(second)).toEqual(values(first));
    expect(direction.toTypedArray()).toEqual(before);
  });

  it.each([1, 8, 1003])('gelu_mul gates %i numbers', (count) => {
    manualSeed(3);
    compare(
      dtype,
      [[count], [count]],
      (gate, up) => [geluMul(gate.mul(3), up)],
      (gate, up) => [gelu(gate.mul(3), 'tanh').mul(up)],
    );
  });

  it.each([0, 3, 30])(
    'capped_cross_entropy_ gives losses, and gradients over its logits, under a cap of %i',
    (cap) => {
      manualSeed(4);
      const logits = randn([5, 1003], { dtype: 'float64' }).mul(5).to(dtype);
      const wide = logits.to('float64').clone();
      wide.requiresGrad = true;
      const targets = tensor(BigInt64Array.of(0n, 1002n, 7n, 8n, 500n), [5]);
      const capped = cap > 0 ? wide.div(cap).tanh().mul(cap) : wide;
      const expected = logSoftmax(capped, -1).gather(1, targets.unsqueeze(1)).squeeze(1).neg();
      expected.sum().backward();

      const untouched = logits.clone();
      expect(difference(cappedCrossEntropy_(untouched, targets, cap, false), expected)).toBeLessThan(1e-5);
      expect(difference(untouched, logits)).toBe(0);
      expect(difference(cappedCrossEntropy_(logits, targets, cap, true), expected)).toBeLessThan(1e-5);
      expect(difference(logits, wide.grad!)).toBeLessThan(tolerance[dtype]!);
    },
  );

  it('capped_cross_entropy_ lets NaN show', () => {
    const logits = randn([2, 40]).to(dtype);
    logits.select(0, 1).select(0, 33).fill_(NaN);
    const losses = cappedCrossEntropy_(
      logits,
      tensor(BigInt64Array.of(1n, 2n), [2]),
      30,
      true,
    ).toTypedArray();
    expect(Array.from(losses, Number).map(Number.isNaN)).toEqual([false, true]);
  });
});

describe('tie', () => {
  it('gives its input the gradient, scaled before it is rounded', () => {
    const input = tensor([1, 2], [2], 'bfloat16');
    input.requiresGrad = true;
    const gradient = tensor([1, -3], [2], 'float32');
    const value = tie(tensor([7.5], []), input, gradient);
    expect(value.item()).toBe(7.5);
    value.div(1009).backward();
    expect(Array.from(input.grad!.toTypedArray(), Number)).toEqual(
      Array.from(gradient.div(1009).to('bfloat16').toTypedArray(), Number),
    );
  });

  it('is its value alone where nothing learns', () => {
    const input = tensor([1, 2], [2]);
    expect(noGrad(() => tie(tensor([2], []), input, input)).requiresGrad).toBe(false);
  });
});
