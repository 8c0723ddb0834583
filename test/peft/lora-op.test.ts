// The linear layer with a low-rank update as one operator, beside the same in libtorch's own operators.

import { describe, expect, it } from 'vitest';
import {
  type Tensor,
  grad,
  linear,
  manualSeed,
  noGrad,
  op,
  randn,
  scope,
  setNumThreads,
} from '../../src/tensor/index.js';
import { relativeMax } from '../models/text-reference.js';

const loraOp = op('sluice::lora');

interface Inputs {
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly bias: Tensor | undefined;
  readonly a: Tensor;
  readonly b: Tensor;
  readonly gain: Tensor | undefined;
}

function inputsOf(
  shape: readonly number[],
  dtype: 'float32' | 'bfloat16',
  hasBias: boolean,
  hasGain: boolean,
): Inputs {
  manualSeed(3);
  const size = shape.at(-1)!;
  const [outs, rank] = [7, 3];
  const plain = (sizes: readonly number[]) => randn(sizes).to(dtype);
  const learning = (tensor: Tensor) => {
    tensor.requiresGrad = true;
    return tensor;
  };
  return {
    x: learning(plain(shape)),
    weight: plain([outs, size]),
    bias: hasBias ? plain([outs]) : undefined,
    a: learning(randn([rank, size])),
    b: learning(randn([outs, rank])),
    gain: hasGain ? learning(randn([outs])) : undefined,
  };
}

const SCALE = 0.7;
const fused = ({ x, weight, bias, a, b, gain }: Inputs): Tensor => loraOp(x, weight, bias, a, b, SCALE, gain);
const plain = ({ x, weight, bias, a, b, gain }: Inputs): Tensor => {
  const wide = x.to('float32');
  const sum = linear(wide, weight.to('float32')).add(linear(linear(wide, a), b).mul(SCALE));
  const y = gain ? sum.mul(gain) : sum;
  return bias ? y.add(bias.to('float32')) : y;
};

describe.each(['float32', 'bfloat16'] as const)('in %s', (dtype) => {
  const bound = dtype === 'float32' ? 1e-5 : 0.03;
  it.each([
    [[1, 5], false, false],
    [[2, 3, 33], true, false],
    [[4, 1, 16], false, true],
    [[2, 65, 31], true, true],
  ] as const)('gives values and gradients of %j, with bias %s and gain %s', (shape, hasBias, hasGain) => {
    setNumThreads(1);
    scope(() => {
      const inputs = inputsOf(shape, dtype, hasBias, hasGain);
      const expected = plain(inputs);
      const found = fused(inputs);
      expect(found.dtype).toBe(dtype);
      expect(found.shape).toEqual(expected.shape);
      expect(relativeMax(found.to('float32'), expected)).toBeLessThan(bound);
      const silent = noGrad(() => fused(inputs));
      expect(relativeMax(silent.to('float32'), expected)).toBeLessThan(bound);

      const direction = randn(expected.shape);
      const names = ['x', 'a', 'b', ...(hasGain ? (['gain'] as const) : [])] as const;
      const of = names.map((name) => inputs[name]!);
      const theirs = grad([expected], of, [direction]);
      const ours = grad([found], of, [direction.to(dtype)]);
      for (const [i, name] of names.entries()) {
        expect(ours[i]!.dtype, name).toBe(of[i]!.dtype);
        expect(relativeMax(ours[i]!.to('float32'), theirs[i]!.to('float32')), name).toBeLessThan(bound);
      }
    });
  });
});

it.each(['float32', 'bfloat16'] as const)(
  'makes the graph alone of an output that is known, in %s',
  (dtype) => {
    scope(() => {
      const inputs = inputsOf([2, 3, 33], dtype, true, false);
      const { x, weight, bias, a, b } = inputs;
      const found = fused(inputs);
      const known = randn(found.shape).to(dtype);
      const again = loraOp(x, weight, bias, a, b, SCALE, undefined, known);
      expect(again.toTypedArray()).toEqual(known.toTypedArray());
      const direction = randn(found.shape).to(dtype);
      const [theirs, ours] = [found, again].map((y) => grad([y], [x, a, b], [direction]));
      expect(ours!.map((one) => one!.toTypedArray())).toEqual(theirs!.map((one) => one!.toTypedArray()));
    });
  },
);

it('refuses a known output of another shape, and one beside a gain', () => {
  scope(() => {
    const { x, weight, bias, a, b, gain } = inputsOf([2, 3, 33], 'float32', true, true);
    const of = (known: Tensor, factor?: Tensor) => loraOp(x, weight, bias, a, b, SCALE, factor, known);
    expect(() => of(randn([2, 3, 8]))).toThrow("expected an output of x's dtype and shape [2, 3, 7]");
    expect(() => of(randn([2, 3, 7]), gain)).toThrow('and a gain');
  });
});

it('makes no gradient that is not asked for', () => {
  scope(() => {
    const inputs = inputsOf([3, 8], 'float32', true, true);
    inputs.x.requiresGrad = false;
    inputs.a.requiresGrad = false;
    fused(inputs).sum().backward();
    expect([inputs.x.grad, inputs.a.grad, inputs.weight.grad]).toEqual([null, null, null]);
    expect(relativeMax(inputs.b.grad!, grad([plain(inputs).sum()], [inputs.b])[0]!)).toBeLessThan(1e-5);
    expect(inputs.gain!.grad).not.toBeNull();
  });
});
