import { beforeAll, describe, expect, it } from 'vitest';
import { crossEntropyMean, lossSum, softcap } from '../../src/nn/index.js';
import {
  type Tensor,
  liveTensors,
  manualSeed,
  noGrad,
  randn,
  scope,
  setNumThreads,
  tensor,
} from '../../src/tensor/index.js';
import { settledTensors } from '../live.js';

const [batch, length, size, vocab] = [3, 7, 8, 40];

// Row 0 is labelled at its first position, which nothing predicts; row 2 not at all.
const labels = [
  [5, 3, -100, 39, 0, -100, 7],
  [-100, -100, -100, 11, 12, 12, -100],
  [-100, -100, -100, -100, -100, -100, -100],
];
const numLabels = 7;

beforeAll(() => setNumThreads(1));

function int64(rows: readonly (readonly number[])[]): Tensor {
  return tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);
}

function leaf(shape: readonly number[], dtype: 'float32' | 'float64' | 'bfloat16'): Tensor {
  const values = randn(shape, { dtype: 'float64' }).to(dtype).detach();
  values.requiresGrad = true;
  return values;
}

function difference(a: Tensor | null, b: Tensor | null): number {
  if (!a || !b) throw new Error('no gradient');
  const wide = b.to('float64');
  return a.to('float64').sub(wide).abs().amax().item() / wide.abs().amax().item();
}

describe('lossSum', () => {
  it.each([
    { name: 'whole', options: { softcap: 3 } },
    { name: 'two rows a chunk', options: { softcap: 3, chunkBytes: 8 * vocab } },
    { name: 'less than a row a chunk', options: { softcap: 3, chunkBytes: 1 } },
    { name: 'without a cap', options: {} },
  ])('equals the plain loss in value and gradients: $name', ({ options }) => {
    manualSeed(1);
    const [hidden, weight] = [leaf([batch, length, size], 'float64'), leaf([vocab, size], 'float64')];
    const plain = crossEntropyMean(
      softcap(hidden.matmul(weight.transpose(0, 1)), 'softcap' in options ? options.softcap : undefined),
      int64(labels),
    );
    plain.backward();
    const expected = [hidden.grad, weight.grad];
    hidden.grad = null;
    weight.grad = null;

    const sum = lossSum(hidden, weight, int64(labels), options);
    expect(sum.numLabels).toBe(numLabels);
    expect(sum.loss.item() / numLabels).toBeCloseTo(plain.item(), 12);
    sum.loss.div(numLabels).backward();
    expect(difference(hidden.grad, expected[0] ?? null)).toBeLessThan(1e-12);
    expect(difference(weight.grad, expected[1] ?? null)).toBeLessThan(1e-12);
  });

  it('agrees with finite differences', () => {
    manualSeed(2);
    const [hidden, weight] = [leaf([1, 3, size], 'float64'), leaf([vocab, size], 'float64')];
    const target = int64([[0, 4, 9]]);
    lossSum(hidden, weight, target, { softcap: 2 }).loss.backward();
    for (const input of [hidden, weight]) {
      const direction = randn(input.shape, { dtype: 'float64' });
      const at = (step: number): number =>
        noGrad(() => {
          const moved = input.add(direction.mul(step));
          return lossSum(input === hidden ? moved : hidden, input === weight ? moved : weight, target, {
            softcap: 2,
          }).loss.item();
        });
      const slope = (at(1e-5) - at(-1e-5)) / 2e-5;
      expect(input.grad?.mul(direction).sum().item()).toBeCloseTo(slope, 6);
    }
  });

  it('keeps the scale of bfloat16 gradients exact', () => {
    manualSeed(3);
    const [hidden, weight] = [leaf([batch, length, size], 'bfloat16'), leaf([vocab, size], 'bfloat16')];
    const wide = [hidden, weight].map((narrow) => {
      const copy = narrow.detach().to('float64');
      copy.requiresGrad = true;
      return copy;
    }) as [Tensor, Tensor];
    lossSum(...wide, int64(labels), { softcap: 30 })
      .loss.div(1009)
      .backward();
    lossSum(hidden, weight, int64(labels), { softcap: 30 }).loss.div(1009).backward();

    // A scale rounded to bfloat16 would move every entry the same way: 1/1009 by 0.3 %.
    const ratio = (a: Tensor | null, b: Tensor | null): number =>
      (a?.to('float64').mul(b!).sum().item() ?? NaN) / (b?.square().sum().item() ?? NaN);
    expect(Math.abs(ratio(weight.grad, wide[1].grad) - 1)).toBeLessThan(1e-3);
    expect(Math.abs(ratio(hidden.grad, wide[0].grad) - 1)).toBeLessThan(1e-3);
    expect(difference(weight.grad, wide[1].grad)).toBeLessThan(0.02);
  });

  it('is zero with zero gradients when nothing is labelled', () => {
    const [hidden, weight] = [leaf([1, 4, size], 'float32'), leaf([vocab, size], 'float32')];
    const { loss, numLabels } = lossSum(hidden, weight, int64([[3, -100, -100, -100]]), { softcap: 30 });
    expect([loss.item(), numLabels]).toEqual([0, 0]);
    loss.backward();
    expect(hidden.grad?.abs().amax().item()).toBe(0);
    expect(weight.grad?.abs().amax().item()).toBe(0);
  });

  it('gives a frozen head no gradient, and needs none at all under noGrad', () => {
    const [hidden, weight] = [leaf([batch, length, size], 'float32'), leaf([vocab, size], 'float32')];
    weight.requiresGrad = false;
    lossSum(hidden, weight, int64(labels)).loss.backward();
    expect(weight.grad).toBeNull();
    expect(hidden.grad).not.toBeNull();
    expect(noGrad(() => lossSum(hidden, weight, int64(labels)).loss.requiresGrad)).toBe(false);
  });

  it('leaves one tensor behind: the loss', async () => {
    const [hidden, weight] = [leaf([batch, length, size], 'float32'), leaf([vocab, size], 'float32')];
    const target = int64(labels);
    const before = await settledTensors();
    const { loss } = lossSum(hidden, weight, target, { softcap: 30, chunkBytes: 8 * vocab });
    expect(liveTensors()).toBe(before + 1);
    scope(() => loss.backward());
    loss.dispose();
    expect(liveTensors()).toBe(before);
  });

  it('refuses labels outside the vocabulary, and of another shape', () => {
    const [hidden, weight] = [leaf([1, 3, size], 'float32'), leaf([vocab, size], 'float32')];
    expect(() => lossSum(hidden, weight, int64([[0, 1, 40]]))).toThrow(
      'lossSum: label of row 0, position 2: expected -100 or a word below 40, received 40',
    );
    expect(() => lossSum(hidden, weight, int64([[0, 1]]))).toThrow(
      'lossSum: labels: expected [batch, length] as the tokens [1, 3, 8], received [1, 2]',
    );
  });
});
