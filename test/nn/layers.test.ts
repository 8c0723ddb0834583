import { beforeAll, describe, expect, it } from 'vitest';
import { Embedding, Linear, RmsNorm, attend, roundTo } from '../../src/nn/index.js';
import {
  type Tensor,
  manualSeed,
  noGrad,
  ones,
  randn,
  scaledDotProductAttention,
  setNumThreads,
  tensor,
  withDefaults,
} from '../../src/tensor/index.js';

beforeAll(() => setNumThreads(1));

const values = (t: Tensor | null | undefined): number[] => Array.from(t?.toTypedArray() as Float32Array);

describe('RmsNorm', () => {
  it('computes in float32 and rounds once, whatever the dtype', () => {
    manualSeed(1);
    const norm = withDefaults({ dtype: 'bfloat16' }, () => new RmsNorm(6, 1e-6));
    noGrad(() => norm.weight?.copy_(randn([6])));
    const x = randn([4, 6]).mul(50).to('bfloat16');
    const wide = x.to('float32');
    const expected = wide
      .mul(wide.pow(2).mean(-1, true).add(1e-6).pow(-0.5))
      .mul(norm.weight?.to('float32') ?? 1)
      .to('bfloat16');
    expect(norm.forward(x).dtype).toBe('bfloat16');
    expect(values(norm.forward(x))).toEqual(values(expected));
  });

  it('maps zeros to zeros, with finite gradients', () => {
    const norm = new RmsNorm(4, 1e-6, { withScale: false });
    const x = tensor([0, 0, 0, 0], [1, 4]);
    x.requiresGrad = true;
    norm.forward(x).sum().backward();
    expect(values(norm.forward(x))).toEqual([0, 0, 0, 0]);
    expect(values(x.grad).every(Number.isFinite)).toBe(true);
  });
});

describe('Embedding', () => {
  it('scales its rows by the constant as their dtype holds it, and teaches the padding row nothing', () => {
    const table = new Embedding(3, 2, { paddingId: 0, scale: Math.sqrt(3072) });
    noGrad(() => table.weight.fill_(1));
    const rows = table.forward(tensor(BigInt64Array.of(0n, 2n, 2n), [3]));
    expect(values(rows)[0]).toBeCloseTo(55.4256, 3);
    rows.sum().backward();
    expect(values(table.weight.grad).map((g) => Math.round(g))).toEqual([0, 0, 0, 0, 111, 111]);
    expect(roundTo(Math.sqrt(3072), 'bfloat16')).toBe(55.5);
  });
});

describe('Linear', () => {
  it('adds its bias', () => {
    const linear = new Linear(2, 1, { bias: true });
    noGrad(() => {
      linear.weight.copy_(tensor([2, 3], [1, 2]));
      linear.bias?.fill_(10);
    });
    expect(values(linear.forward(tensor([1, 1], [1, 2])))).toEqual([15]);
    expect(Array.from(linear.namedParameters(), ([name]) => name)).toEqual(['weight', 'bias']);
  });
});

describe('attend', () => {
  const make = (heads: number, length: number): Tensor => randn([1, heads, length, 8]);

  it('lets each key/value head serve its group of query heads', () => {
    manualSeed(2);
    const [q, k, v] = [make(4, 5), make(2, 5), make(2, 5)];
    const repeat = (x: Tensor): Tensor => x.indexSelect(1, tensor(BigInt64Array.of(0n, 0n, 1n, 1n)));
    const expected = scaledDotProductAttention(q, repeat(k), repeat(v), { isCausal: true, scale: 1 });
    expect(attend(q, k, v, { scale: 1 }).sub(expected).abs().amax().item()).toBeLessThan(1e-6);
  });

  it('sees all keys with one query', () => {
    manualSeed(3);
    const [q, k, v] = [make(2, 1), make(2, 5), make(2, 5)];
    const expected = scaledDotProductAttention(q, k, v, { scale: 1 });
    expect(attend(q, k, v, { scale: 1 }).sub(expected).abs().amax().item()).toBeLessThan(1e-6);
  });

  it('yields zeros and no NaN gradients where a query sees nothing', () => {
    manualSeed(4);
    const [q, k, v] = [make(2, 3), make(1, 3), make(1, 3)];
    q.requiresGrad = true;
    const mask = ones([1, 1, 3, 3], { dtype: 'bool' });
    mask.select(2, 0).zero_();
    const out = attend(q, k, v, { mask, scale: 1 });
    expect(out.select(2, 0).abs().amax().item()).toBe(0);
    out.square().sum().backward();
    expect(q.grad?.isfinite().all().item()).toBe(1);
  });
});
