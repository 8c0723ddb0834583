// Several low-rank linears of one input in one operator, beside each by itself in libtorch's own; and plain linears of few
// outputs or few inputs, whose products have the same kernels.

import { describe, expect, it } from 'vitest';
import {
  type Tensor,
  getNumThreads,
  grad,
  linear,
  manualSeed,
  op,
  randn,
  scope,
  setNumThreads,
} from '../../src/tensor/index.js';
import { relativeMax } from '../models/text-reference.js';

const loraGroup = op<Tensor[]>('sluice::lora_group');
const matmul = op('aten::matmul');

const SCALES = [0.7, -1.5, 2];

function learning(tensor: Tensor): Tensor {
  tensor.requiresGrad = true;
  return tensor;
}

/** Three linears of other widths and ranks; the second has a bias, the third a gain. */
function groupOf(rows: number, size: number, dtype: 'float32' | 'bfloat16' | 'float64') {
  manualSeed(5);
  const factor = dtype === 'float64' ? 'float64' : 'float32';
  const outs = [35, 16, 9] as const;
  const ranks = [8, 3, 5] as const;
  return {
    x: learning(randn([2, rows, size]).to(dtype)),
    weights: outs.map((out) => randn([out, size]).to(dtype)),
    biases: [undefined, randn([16]).to(dtype), undefined],
    as: ranks.map((rank) => learning(randn([rank, size]).to(factor))),
    bs: outs.map((out, i) => learning(randn([out, ranks[i]!]).to(factor))),
    gains: [undefined, undefined, learning(randn([9]).to(factor))],
  };
}
type Group = ReturnType<typeof groupOf>;

const fused = ({ x, weights, biases, as, bs, gains }: Group): Tensor[] =>
  loraGroup(x, weights, biases, as, bs, SCALES, gains);
const plain = ({ x, weights, biases, as, bs, gains }: Group): Tensor[] =>
  weights.map((weight, i) => {
    const wide = as[i]!.dtype;
    const given = x.to(wide);
    const sum = linear(given, weight.to(wide)).add(linear(linear(given, as[i]!), bs[i]!).mul(SCALES[i]!));
    const [gain, bias] = [gains[i], biases[i]];
    const y = gain ? sum.mul(gain) : sum;
    return bias ? y.add(bias.to(wide)) : y;
  });
const learners = ({ x, as, bs, gains }: Group): Tensor[] => [x, ...as, ...bs, gains[2]!];

// float64 takes libtorch's own operators: what other devices and dtypes have
describe.each([
  ['float32', 2e-5],
  ['bfloat16', 0.03],
  ['float64', 1e-10],
] as const)('a group in %s', (dtype, bound) => {
  it.each([
    [1, 5],
    [33, 31],
    [70, 64],
  ])('of %i rows of %i gives the values and gradients of each by itself', (rows, size) => {
    setNumThreads(1);
    scope(() => {
      const group = groupOf(rows, size, dtype);
      const [found, expected] = [fused(group), plain(group)];
      const directions = expected.map(({ shape }) => randn(shape));
      for (const [i, y] of found.entries()) {
        expect(y.dtype).toBe(dtype);
        expect(relativeMax(y.to('float32'), expected[i]!.to('float32')), `output ${i}`).toBeLessThan(bound);
      }
      const wanted = learners(group);
      const typed = (tensors: readonly Tensor[]) => directions.map((d, i) => d.to(tensors[i]!.dtype));
      const ours = grad(found, wanted, typed(found));
      const theirs = grad(expected, wanted, typed(expected));
      for (const [i, gradient] of ours.entries()) {
        expect(gradient!.dtype).toBe(wanted[i]!.dtype);
        expect(relativeMax(gradient!.to('float32'), theirs[i]!.to('float32')), `gradient ${i}`).toBeLessThan(
          bound,
        );
      }
    });
  });
});

it('gives gradients where only some of a group is used', () => {
  scope(() => {
    const group = groupOf(4, 12, 'float32');
    const wanted = [group.x, group.as[1]!, group.bs[1]!];
    const ours = grad([fused(group)[1]!.square().sum()], wanted);
    const theirs = grad([plain(group)[1]!.square().sum()], wanted);
    for (const [i, one] of ours.entries()) expect(relativeMax(one!, theirs[i]!)).toBeLessThan(2e-5);
  });
});

it('gives the same bits with any number of threads, and shows what is not finite', () => {
  const before = getNumThreads();
  scope(() => {
    const group = groupOf(600, 64, 'float32');
    const run = (threads: number) => {
      setNumThreads(threads);
      const found = fused(group);
      const [, a, , , b] = grad([found[0]!.square().sum()], learners(group).slice(0, 5));
      return [a, b].map((tensor) => tensor && Array.from(tensor.toTypedArray() as Float32Array));
    };
    expect(run(2)).toEqual(run(1));
    group.as[0]!.detach().fill_(Infinity);
    expect(Number.isFinite(fused(group)[0]!.sum().item())).toBe(false);
  });
  setNumThreads(before);
});

it('refuses factors that do not fit', () => {
  scope(() => {
    const { x, weights, as, bs } = groupOf(2, 8, 'float32');
    const call = () => loraGroup(x, weights.slice(0, 1), [undefined], [bs[0]], [as[0]], [1], [undefined]);
    expect(call).toThrow(/lora: expected x \[\.\., in\], weight \[out, in\], a \[rank, in\] and b/);
  });
});

describe.each(['float32', 'bfloat16'] as const)('a linear in %s', (dtype) => {
  const bound = dtype === 'float32' ? 1e-5 : 0.02;
  it.each([
    [16, 37, 50],
    [4, 64, 9],
    [41, 16, 33],
    [64, 1, 20],
  ])('of %i outputs and %i inputs gives values and gradients of the plain product', (outs, size, rows) => {
    setNumThreads(1);
    scope(() => {
      manualSeed(7);
      const x = learning(randn([rows, size]).to(dtype));
      const weight = learning(randn([outs, size]).to(dtype));
      const direction = randn([rows, outs]).to(dtype);
      const [found, expected] = [
        linear(x, weight),
        matmul(x.to('float32'), weight.to('float32').transpose(0, 1)),
      ];
      expect(relativeMax(found.to('float32'), expected)).toBeLessThan(bound);
      const ours = grad([found], [x, weight], [direction]);
      const theirs = grad([expected], [x, weight], [direction.to('float32')]);
      for (const [i, one] of ours.entries()) {
        expect(one!.dtype).toBe(dtype);
        expect(relativeMax(one!.to('float32'), theirs[i]!.to('float32'))).toBeLessThan(bound);
      }
    });
  });
});
