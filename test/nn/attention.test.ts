// Attention in blocks against the whole in one piece.

import { beforeEach, describe, expect, it } from 'vitest';
import { attend, causalMask } from '../../src/nn/index.js';
import {
  type DType,
  type Tensor,
  manualSeed,
  noGrad,
  ones,
  randn,
  scaledDotProductAttention,
} from '../../src/tensor/index.js';

const BATCH = 2;
const [HEADS, KV_HEADS, DIM] = [4, 2, 16];

interface Case {
  readonly queries: number;
  readonly keys: number;
  readonly window?: number;
  /** Keys that the second row does not have at its start. */
  readonly padding?: number;
}

const cases: Case[] = [
  { queries: 200, keys: 200 },
  { queries: 200, keys: 200, window: 20 },
  { queries: 200, keys: 200, window: 20, padding: 70 },
  { queries: 131, keys: 131, padding: 5 },
  { queries: 70, keys: 150 },
  { queries: 150, keys: 190, window: 33 },
];

function maskOf({ queries, keys, window = Infinity, padding }: Case): Tensor {
  const seen = { start: keys - queries, length: queries };
  const causal = causalMask(seen, { start: 0, length: keys }, window, 'cpu');
  if (padding === undefined) return causal;
  const real = ones([BATCH, 1, 1, keys], { dtype: 'bool' });
  noGrad(() => real.narrow(0, 1, 1).narrow(3, 0, padding).zero_());
  return causal.logicalAnd(real);
}

/** The output, and the gradients of q, k and v, of the same random values. */
function run(given: Case, dtype: DType, how: (q: Tensor, k: Tensor, v: Tensor) => Tensor): Tensor[] {
  manualSeed(1);
  const make = (heads: number, length: number): Tensor => {
    const made = randn([BATCH, length, heads, DIM]).to(dtype).transpose(1, 2);
    made.requiresGrad = true;
    return made;
  };
  const inputs = [
    make(HEADS, given.queries),
    make(KV_HEADS, given.keys),
    make(KV_HEADS, given.keys),
  ] as const;
  const output = how(...inputs);
  output.backward(randn(output.shape).to(dtype));
  return [output.detach(), ...inputs.map((input) => input.grad!)];
}

function relative(a: Tensor, b: Tensor): number {
  const [x, y] = [a.to('float32'), b.to('float32')];
  return x.sub(y).square().sum().sqrt().div(y.square().sum().sqrt()).item();
}

/** Whole, in float32, of the values as `dtype` holds them. */
function expected(given: Case, dtype: DType): Tensor[] {
  const mask = maskOf(given);
  return run(given, dtype, (q, k, v) =>
    scaledDotProductAttention(q.to('float32'), k.to('float32'), v.to('float32'), {
      mask,
      scale: 0.5,
      enableGqa: true,
    }).to(dtype),
  );
}

describe.each(cases)(
  'attention of $queries queries and $keys keys, window $window, padding $padding',
  (given) => {
    let options: { scale: number; window?: number; mask?: Tensor };
    beforeEach(() => {
      const { window } = given;
      options = { scale: 0.5, ...(window !== undefined && { window }), mask: maskOf(given) };
    });

    it('is the same in blocks', () => {
      const got = run(given, 'float32', (q, k, v) => attend(q, k, v, options));
      for (const [i, tensor] of expected(given, 'float32').entries())
        expect(relative(got[i]!, tensor)).toBeLessThan(1e-6);
    });

    it('needs no mask where nothing is padding', () => {
      if (given.padding !== undefined) return;
      const { mask: _mask, ...rest } = options;
      const got = run(given, 'float32', (q, k, v) => attend(q, k, v, rest));
      for (const [i, tensor] of expected(given, 'float32').entries())
        expect(relative(got[i]!, tensor)).toBeLessThan(1e-6);
    });

    it('is the same in bfloat16, to its precision', () => {
      const got = run(given, 'bfloat16', (q, k, v) => attend(q, k, v, options));
      for (const [i, tensor] of expected(given, 'bfloat16').entries())
        expect(relative(got[i]!, tensor)).toBeLessThan(0.01);
    });

    it.each(['float32', 'bfloat16'] as const)(
      'yields zeros and no NaN where a query sees nothing, in %s',
      (dtype) => {
        const { padding = 0 } = given;
        const got = run(given, dtype, (q, k, v) => attend(q, k, v, options));
        for (const tensor of got) expect(tensor.isfinite().all().item()).toBe(1);
        const blind = padding - (given.keys - given.queries);
        if (blind > 0) expect(got[0]!.select(0, 1).narrow(1, 0, blind).abs().amax().item()).toBe(0);
      },
    );
  },
);

describe.each(['float32', 'bfloat16'] as const)('what is not finite, in %s', (dtype) => {
  it.each([
    [6, undefined],
    [64, undefined],
    [64, 4],
    [150, undefined],
  ])('shows in what %i queries see, within a window of %s', (length, window) => {
    manualSeed(2);
    const sizes = (heads: number) => [1, heads, length, DIM];
    const queries = randn(sizes(HEADS)).to(dtype);
    queries.narrow(2, 3, 1).fill_(NaN);
    const [keys, values] = [randn(sizes(KV_HEADS)).to(dtype), randn(sizes(KV_HEADS)).to(dtype)];
    const span = { start: 0, length };
    const mask = window === undefined ? undefined : causalMask(span, span, window, 'cpu');
    const attended = attend(queries, keys, values, { window: window ?? Infinity, ...(mask && { mask }) });
    const isBroken = Array.from({ length }, (_, i) =>
      Number.isNaN(attended.narrow(2, i, 1).to('float32').sum().item()),
    );
    expect(isBroken).toEqual(Array.from({ length }, (_, i) => i === 3));
  });
});
