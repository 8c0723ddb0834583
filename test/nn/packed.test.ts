// Sequences of a row attended each by itself, against one mask over the whole row.

import { describe, expect, it } from 'vitest';
import { attend, causalMask, sequenceLengths, sequenceStarts } from '../../src/nn/index.js';
import { type DType, type Tensor, manualSeed, randn, scope, stack, tensor } from '../../src/tensor/index.js';

const [HEADS, KV_HEADS, DIM] = [4, 2, 16];

/** Positions of sequences of these lengths. */
const positionsOf = (lengths: readonly number[]): number[] =>
  lengths.flatMap((length) => [...Array(length).keys()]);

/** bool [rows, 1, length, length], by its definition. */
function denseMask(rows: readonly (readonly number[])[], window: number): Tensor {
  const length = rows[0]!.reduce((sum, n) => sum + n, 0);
  const place = { start: 0, length };
  const causal = causalMask(place, place, window, 'cpu').squeeze(0);
  const masks = rows.map((lengths) => {
    const ids = tensor(
      lengths.flatMap((n, sequence) => new Array<number>(n).fill(sequence)),
      [length],
    );
    return ids.unsqueeze(1).eq(ids.unsqueeze(0)).unsqueeze(0).logicalAnd(causal);
  });
  return stack(masks, 0);
}

/** The output, and the gradients of q, k and v, of the same random values. */
function run(
  batch: number,
  length: number,
  dtype: DType,
  how: (q: Tensor, k: Tensor, v: Tensor) => Tensor,
): Tensor[] {
  manualSeed(1);
  const make = (heads: number): Tensor => {
    const made = randn([batch, length, heads, DIM]).to(dtype).transpose(1, 2);
    made.requiresGrad = true;
    return made;
  };
  const inputs = [make(HEADS), make(KV_HEADS), make(KV_HEADS)] as const;
  const output = how(...inputs);
  output.backward(randn(output.shape).to(dtype));
  return [output.detach(), ...inputs.map((input) => input.grad!)];
}

function relative(a: Tensor, b: Tensor): number {
  const [x, y] = [a.to('float32'), b.to('float32')];
  return x.sub(y).square().sum().sqrt().div(y.square().sum().sqrt()).item();
}

const cases = {
  'short ones alone': [[3, 1, 20, 7, 40, 1, 1]],
  'long ones alone': [[200, 65, 130]],
  'long and short ones': [[1, 90, 3, 5, 300, 64, 2, 63, 1, 30]],
  'two rows': [
    [100, 40, 10, 1],
    [1, 70, 80],
  ],
};

describe.each(Object.entries(cases))('packed sequences, %s', (_, rows) => {
  const length = rows[0]!.reduce((sum, n) => sum + n, 0);

  it.each([
    ['float32', Infinity, 1e-6],
    ['float32', 20, 1e-6],
    ['bfloat16', Infinity, 0.01],
    ['bfloat16', 20, 0.01],
  ] as const)('have the output and gradients of a mask, in %s, window %s', (dtype, window, within) => {
    scope(() => {
      const starts = sequenceStarts(rows.map(positionsOf));
      const [batch, options] = [rows.length, { scale: 0.5, window }];
      const packed = run(batch, length, dtype, (q, k, v) => attend(q, k, v, { ...options, starts }));
      const mask = denseMask(rows, window);
      const dense = run(batch, length, dtype, (q, k, v) => attend(q, k, v, { ...options, mask }));
      for (const [i, tensor] of dense.entries()) expect(relative(packed[i]!, tensor)).toBeLessThan(within);
    });
  });
});

it('one list of positions serves all rows of a batch', () => {
  scope(() => {
    const starts = sequenceStarts([positionsOf([70, 20, 80])]);
    const mask = denseMask([[70, 20, 80]], Infinity);
    const packed = run(3, 170, 'float32', (q, k, v) => attend(q, k, v, { starts }));
    const dense = run(3, 170, 'float32', (q, k, v) => attend(q, k, v, { mask }));
    for (const [i, tensor] of dense.entries()) expect(relative(packed[i]!, tensor)).toBeLessThan(1e-6);
  });
});

it('a sequence begins wherever a position is not one more than the last', () => {
  expect(sequenceLengths([0, 1, 2, 0, 0, 1, 5, 6, 7])).toEqual([3, 1, 2, 3]);
  expect(sequenceLengths([4n, 5n])).toEqual([2]);
  expect(sequenceLengths([])).toEqual([]);
});

it('the start of each token is where its own sequence begins', () => {
  scope(() => {
    const starts = sequenceStarts([positionsOf([3, 1, 2]), positionsOf([2, 4])]);
    expect([...starts.toTypedArray()]).toEqual([0, 0, 0, 3, 4, 4, 0, 0, 2, 2, 2, 2]);
    expect(starts.shape).toEqual([2, 6]);
  });
});
