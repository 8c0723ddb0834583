// sluice::rms_norm against libtorch's own operators, forward and gradient, on every path of its kernels.

import { afterAll, describe, expect, test } from 'vitest';
import {
  type DType,
  type Tensor,
  gelu,
  getNumThreads,
  manualSeed,
  noGrad,
  op,
  randn,
  rmsNorm,
  scope,
  setNumThreads,
} from '../../src/tensor/index.js';

const libtorchNorm = op('aten::rms_norm');

function plain(x: Tensor, weight: Tensor | undefined, act: 'none' | 'gelu_tanh'): Tensor {
  const normed = libtorchNorm(x, [x.shape.at(-1) ?? 1], weight, 1e-6);
  return act === 'none' ? normed : gelu(normed, 'tanh');
}

function difference(actual: Tensor, expected: Tensor): number {
  expect(actual.shape).toEqual(expected.shape);
  return actual.to('float64').sub(expected).square().sum().div(expected.square().sum()).sqrt().item();
}

/** Largest relative difference of output and gradients from the same in float64. */
function worst(
  x: Tensor,
  weight: Tensor | undefined,
  act: 'none' | 'gelu_tanh',
  view: (x: Tensor) => Tensor = (same) => same,
): number {
  const cotangent = randn(view(x).shape);
  const run = (dtype: DType, norm: typeof plain) => {
    const [input, scale] = [x.detach().to(dtype).clone(), weight?.detach().to(dtype).clone()];
    for (const leaf of [input, scale]) if (leaf) leaf.requiresGrad = true;
    const output = norm(view(input), scale, act);
    output.mul(cotangent.to(x.dtype).to(dtype)).sum().backward();
    return [output.detach(), input.grad, scale?.grad].filter((tensor) => tensor != null);
  };
  const actual = run(x.dtype, (input, scale) => rmsNorm(input, scale, 1e-6, act));
  const expected = run('float64', plain);
  return Math.max(...actual.map((tensor, i) => difference(tensor, expected[i]!)));
}

const threads = getNumThreads();
afterAll(() => setNumThreads(threads));

describe.each([
  ['float32', 1e-6],
  ['bfloat16', 3e-3],
] as const)('rmsNorm in %s', (dtype, tolerance) => {
  test.each([[[3, 5, 33]], [[7, 64]], [[2, 3]], [[300, 257]]])('equals libtorch for shape %s', (shape) => {
    manualSeed(1);
    scope(() => {
      const [x, weight] = [randn(shape).mul(3).to(dtype), randn([shape.at(-1) ?? 1]).to(dtype)];
      expect(worst(x, weight, 'none')).toBeLessThan(tolerance);
      expect(worst(x, weight, 'gelu_tanh')).toBeLessThan(tolerance);
      expect(worst(x, undefined, 'none')).toBeLessThan(tolerance);
    });
  });

  test('takes views, rows of zeros, and large values', () => {
    scope(() => {
      const weight = randn([24]).to(dtype);
      expect(worst(randn([4, 24, 5]).to(dtype), weight, 'none', (x) => x.transpose(1, 2))).toBeLessThan(
        tolerance,
      );
      const extremes = randn([3, 24]).to(dtype);
      extremes.select(0, 0).zero_();
      extremes.select(0, 1).mul_(1e6);
      expect(rmsNorm(extremes, weight, 1e-6, 'gelu_tanh').isfinite().all().item()).toBe(1);
      expect(rmsNorm(extremes, weight.mul(100), 1e-6, 'gelu_tanh').isfinite().all().item()).toBe(1);
    });
  });

  test('gives the same on two threads', () => {
    scope(() => {
      const [x, weight] = [randn([512, 96]).to(dtype), randn([96]).to(dtype)];
      setNumThreads(1);
      const one = rmsNorm(x, weight, 1e-6, 'gelu_tanh');
      setNumThreads(2);
      expect(difference(rmsNorm(x, weight, 1e-6, 'gelu_tanh'), one.to('float64'))).toBe(0);
      expect(worst(x, weight, 'gelu_tanh')).toBeLessThan(tolerance);
    });
  });
});

test('rmsNorm passes NaN on, and records nothing that is not asked for', () => {
  scope(() => {
    const x = randn([2, 8]);
    x.select(0, 1).fill_(NaN);
    expect(
      rmsNorm(x.narrow(0, 0, 1), randn([8]), 1e-6)
        .isfinite()
        .all()
        .item(),
    ).toBe(1);
    expect(
      rmsNorm(x.narrow(0, 1, 1), randn([8]), 1e-6)
        .isfinite()
        .any()
        .item(),
    ).toBe(0);
    const weight = randn([8]);
    expect(rmsNorm(x, weight, 1e-6).requiresGrad).toBe(false);
    weight.requiresGrad = true;
    expect(rmsNorm(x, weight, 1e-6).requiresGrad).toBe(true);
    expect(noGrad(() => rmsNorm(x, weight, 1e-6)).requiresGrad).toBe(false);
  });
});

test('rmsNorm names the shapes that do not fit', () => {
  expect(() => scope(() => rmsNorm(randn([2, 8]), randn([6]), 1e-6))).toThrow(
    /float32 \[2, 8\], float32 \[6\]/,
  );
});
