import { describe, expect, test } from 'vitest';
import { parameter } from '../../src/nn/module.js';
import { Clipping, squareSums } from '../../src/optim/index.js';
import { full, tensor, zeros, type Tensor } from '../../src/tensor/index.js';

function named(): [string, Tensor][] {
  const [matrix, norm] = [parameter(tensor([3, 4, 0.3, 0.4], [2, 2])), parameter(tensor([6, 8]))];
  matrix.grad = tensor([30, 40, 0.03, 0.04], [2, 2]);
  norm.grad = tensor([0, 5]);
  return [
    ['layer.weight', matrix],
    ['norm.weight', norm],
  ];
}

describe('clipping', () => {
  test('by one norm scales all alike, after the division by the number of labels', () => {
    const clipping = new Clipping(named(), { norm: 1 });
    const { norm, scale, clipped } = clipping.measure(10);
    expect(norm).toBeCloseTo(Math.sqrt(2500.0025 + 25) / 10, 6);
    expect(scale).toBeCloseTo(1 / (10 * norm), 6);
    expect(clipped).toBe(true);
    expect(new Clipping(named(), { norm: 100 }).measure(1)).toMatchObject({ scale: 1, clipped: false });
  });

  test('by group scales each by its own norm, and leaves what is in none', () => {
    const { scale, clipped } = new Clipping(named(), { perGroup: { 'layer.*': 5 } }).measure(1);
    expect(clipped).toBe(true);
    expect((scale as number[])[0]).toBeCloseTo(0.1, 5);
    expect((scale as number[])[1]).toBe(1);
    expect(() => new Clipping(named(), { perGroup: { bias: 1 } })).toThrow(
      "step.clip.perGroup 'bias': expected a pattern that matches a parameter that learns, received one that matches none of 2: layer.weight, norm.weight",
    );
  });

  test('adaptively holds each row, or vector, to a share of its own norm', () => {
    const parameters = named();
    const { scale, clipped } = new Clipping(parameters, { adaptive: 0.2 }).measure(1);
    expect([scale, clipped]).toEqual([1, true]);
    const [rows, vector] = parameters.map(([, p]) => Array.from(p.grad!.toTypedArray(), Number));
    // row 0 of norm 5 has a gradient of 50: held to 1; row 1 of norm 0.5 has 0.05: left; the vector of norm 10 has 5: to 2
    for (const [i, value] of [0.6, 0.8, 0.03, 0.04].entries()) expect(rows![i]).toBeCloseTo(value, 5);
    expect(vector![1]).toBeCloseTo(2, 5);
    expect(new Clipping(named(), { adaptive: 100 }).measure(1).clipped).toBe(false);
  });

  test('tells a norm that is not finite, and clips nothing', () => {
    const parameters = named();
    parameters[0]![1].grad = full([2, 2], Number.NaN);
    expect(new Clipping(parameters, { norm: 1 }).measure(2)).toMatchObject({
      norm: Number.NaN,
      scale: 0.5,
      clipped: false,
    });
  });
});

test('squareSums sums each tensor by itself, of any size, dtype and layout', () => {
  const long = Float32Array.from({ length: 70_003 }, (_, i) => Math.sin(i));
  const sum = long.reduce((total, value) => total + value * value, 0);
  const sums = squareSums([
    tensor(long, [long.length]),
    full([1000], 0.5, { dtype: 'bfloat16' }),
    tensor([1, 2, 3, 4, 5, 6], [2, 3]).transpose(0, 1),
    tensor([1.5, 2], [2], 'float64'),
    zeros([0]),
  ]);
  expect(Math.abs(sums[0]! / sum - 1)).toBeLessThan(1e-6);
  expect(sums.slice(1)).toEqual([250, 91, 6.25, 0]);
});
