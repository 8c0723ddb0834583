// Values of fixtures/reference/optim.json come from PyTorch: test/reference/optim.py.

import { describe, expect, test } from 'vitest';
import { parameter } from '../../src/nn/module.js';
import { clipGradNorm, gradNorm } from '../../src/optim/index.js';
import { full, liveTensors, tensor, zeros, type Tensor } from '../../src/tensor/index.js';
import { reference } from './reference.js';
import { settledTensors } from '../live.js';

function withGradients(gradients: readonly number[][]): Tensor[] {
  return gradients.map((values, i) => {
    const p = parameter(zeros(reference.shapes[i]!));
    p.grad = tensor(values, reference.shapes[i]);
    return p;
  });
}

describe('clipGradNorm', () => {
  test.each(reference.clip)('returns the norm $norm and clips to $max as PyTorch does', (wanted) => {
    const tensors = withGradients(wanted.gradients);
    expect(clipGradNorm(tensors, wanted.max)).toBeCloseTo(wanted.norm, 4);
    for (const [i, expected] of wanted.clipped.entries()) {
      const received = tensors[i]!.grad!.toTypedArray() as Float32Array;
      for (const [j, value] of expected.entries()) expect(Math.abs(received[j]! - value)).toBeLessThan(1e-7);
    }
  });

  test('returns a norm that is not finite and leaves the gradients as they are', () => {
    const tensors = withGradients(reference.clip[0]!.gradients);
    tensors[1]!.grad = tensor([1, Number.NaN, 3, 4, 5]);
    expect(clipGradNorm(tensors, 1)).toBeNaN();
    expect(tensors[0]!.grad!.toTypedArray()).toEqual(Float32Array.from(reference.clip[0]!.gradients[0]!));
    tensors[1]!.grad = tensor([1, Infinity, 3, 4, 5]);
    expect(clipGradNorm(tensors, 1)).toBe(Infinity);
  });

  test('passes over tensors without a gradient, and gives 0 for none', () => {
    const p = parameter(zeros([2]));
    expect(clipGradNorm([p], 1)).toBe(0);
    const q = parameter(zeros([2]));
    q.grad = tensor([3, 4]);
    expect(clipGradNorm([p, q], Infinity)).toBe(5);
    expect(q.grad.toTypedArray()).toEqual(Float32Array.of(3, 4));
  });

  test('sums bfloat16 gradients in float32, beside others', () => {
    const [narrow, wide] = [
      parameter(zeros([3000], { dtype: 'bfloat16' })),
      parameter(zeros([1000], { dtype: 'float32' })),
    ];
    narrow.grad = full([3000], 0.1, { dtype: 'bfloat16' });
    wide.grad = full([1000], 0.5);
    const tenth = 0.10009765625; // 0.1 in bfloat16
    expect(clipGradNorm([narrow, wide], 1)).toBeCloseTo(Math.sqrt(3000 * tenth ** 2 + 250), 4);
    expect(gradNorm([narrow.grad, wide.grad])).toBeCloseTo(1, 2);
  });

  test('leaves no tensors behind', async () => {
    const tensors = withGradients(reference.clip[0]!.gradients);
    const before = await settledTensors();
    for (let i = 0; i < 10; i++) clipGradNorm(tensors, 1);
    expect(liveTensors()).toBe(before);
  });

  test.each([0, -1, Number.NaN])('refuses a largest norm of %d', (max) => {
    expect(() => clipGradNorm([], max)).toThrow(
      `clipGradNorm: expected a largest norm above 0, received ${max}; give Infinity to measure without clipping`,
    );
  });
});
