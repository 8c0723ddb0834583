// The operators that take another way where nothing learns: in each dtype that has kernels they give what they are
// composed of in float64, for every shape of use; recorded, they have the gradients of the sums written out.

import { beforeAll, describe, expect, it } from 'vitest';
import {
  type DType,
  type Tensor,
  cat,
  gelu,
  grad,
  liveTensors,
  manualSeed,
  noGrad,
  op,
  randn,
  scaledDotProductAttention,
  scope,
  setNumThreads,
  tensor,
} from '../../src/tensor/index.js';
import { settledTensors } from '../live.js';

const linear = op('sluice::linear');
const normAdd = op('sluice::rms_norm_add');
const normJoin = op('sluice::rms_norm_join');
const normRotate = op('sluice::rms_norm_rotate');
const sparseGate = op('sluice::sparse_gate');
const sparseGeluUp = op('sluice::sparse_gelu_up');
const sparseLinear = op('sluice::sparse_linear');
const route = op('sluice::altup_route');
const innovate = op<[Tensor, Tensor]>('sluice::altup_innovate');
const attendLast = op('sluice::attend_last');
const put_ = op('sluice::put_');

const EPS = 1e-6;
const tolerance: Partial<Record<DType, number>> = { float32: 2e-6, bfloat16: 0.006 };

beforeAll(() => setNumThreads(2));

/** @param floor what b counts as at least: gradients that vanish are differences of others */
function difference(a: Tensor, b: Tensor, floor = 1e-30): number {
  expect(a.shape).toEqual(b.shape);
  const [x, y] = [a.to('float64'), b.to('float64')];
  return x.sub(y).square().sum().sqrt().item() / Math.max(y.square().sum().sqrt().item(), floor);
}

type Compute = (...inputs: Tensor[]) => readonly Tensor[];

/** `compute` without recording in `dtype`, against `plain` in float64 on the same numbers; then with recording, its
 *  gradients in both. */
function compare(
  dtype: DType,
  shapes: readonly (readonly number[])[],
  compute: Compute,
  plain: Compute,
): void {
  scope(() => {
    const inputs = shapes.map((shape) => randn(shape, { dtype: 'float64' }).to(dtype).detach());
    const wide = inputs.map((input) => input.to('float64').clone());
    for (const input of wide) input.requiresGrad = true;
    const outputs = noGrad(() => compute(...inputs));
    const [composed, expected] = [compute(...wide), plain(...wide)];
    for (const [i, output] of outputs.entries()) {
      expect(output.dtype).toBe(dtype);
      expect(difference(output, expected[i]!)).toBeLessThan(tolerance[dtype]!);
      expect(difference(composed[i]!, expected[i]!)).toBeLessThan(1e-12);
    }
    const cotangents = expected.map((output) => randn(output.shape, { dtype: 'float64' }).to(dtype));
    const wideCotangents = cotangents.map((cotangent) => cotangent.to('float64'));
    const expectedGradients = grad(expected, wide, wideCotangents);
    const closeTo = (gradients: readonly (Tensor | null)[], within: number): void => {
      for (const [i, gradient] of gradients.entries()) {
        expect(difference(gradient!, expectedGradients[i]!, 1), `gradient ${i}`).toBeLessThan(within);
      }
    };
    closeTo(grad(composed, wide, wideCotangents), 1e-10);
    for (const input of inputs) input.requiresGrad = true;
    const recorded = compute(...inputs);
    for (const [i, output] of recorded.entries()) {
      expect(difference(output, outputs[i]!)).toBeLessThan(tolerance[dtype]!);
    }
    closeTo(grad(recorded, inputs, cotangents), 2 * tolerance[dtype]!);
  });
}

const norm = (x: Tensor, weight?: Tensor): Tensor => {
  const normed = x.mul(x.square().mean(-1, true).add(EPS).rsqrt());
  return weight ? normed.mul(weight) : normed;
};

describe.each(['float32', 'bfloat16'] as const)('in %s', (dtype) => {
  beforeAll(() => manualSeed(1));

  it.each([
    [[1, 1, 512], 300, false],
    [[4, 1, 77], 33, true],
    [[1, 7, 3], 1, true],
    [[8, 64], 1000, false],
    [[2, 3, 40], 5, true],
    [[70, 96], 130, true],
    [[3, 50, 1024], 1100, false],
  ] as const)('linear takes x %j to %i, bias: %s', (shape, columns, hasBias) => {
    const size = shape.at(-1)!;
    compare(
      dtype,
      [shape, [columns, size], ...(hasBias ? [[columns]] : [])],
      (x, weight, bias) => [linear(x, weight, bias)],
      (x, weight, bias) => [
        bias ? x.matmul(weight.transpose(0, 1)).add(bias) : x.matmul(weight.transpose(0, 1)),
      ],
    );
  });

  it('linear has its gradients while something learns, of what learns alone', () => {
    const inputs = [randn([2, 37, 1100]), randn([1003, 1100]), randn([1003])].map((x) =>
      x.to(dtype).detach(),
    );
    const wide = inputs.map((x) => x.to('float64').clone());
    const cotangent = randn([2, 37, 1003]).to(dtype);
    for (const [hasBias, learning] of [
      ...[[0, 1, 2], [0], [1], [2]].map((list) => [true, list] as const),
      ...[[0, 1], [0], [1]].map((list) => [false, list] as const),
    ]) {
      for (const i of [0, 1, 2])
        for (const list of [inputs, wide]) list[i]!.requiresGrad = learning.includes(i);
      const product = wide[0]!.matmul(wide[1]!.transpose(0, 1));
      const [y, expected] = hasBias
        ? [linear(...inputs), product.add(wide[2]!)]
        : [linear(inputs[0], inputs[1]), product];
      expect(difference(y, expected)).toBeLessThan(tolerance[dtype]!);
      const pick = (list: readonly Tensor[]): Tensor[] => learning.map((i) => list[i]!);
      const gradients = grad([y], pick(inputs), [cotangent]);
      const expectedGradients = grad([expected], pick(wide), [cotangent.to('float64')]);
      for (const [i, gradient] of gradients.entries()) {
        expect(gradient!.dtype).toBe(dtype);
        expect(difference(gradient!, expectedGradients[i]!)).toBeLessThan(tolerance[dtype]!);
      }
    }
  });

  it('linear takes some rows of a wider weight', () => {
    const [x, weight] = [
      randn([2, 64]).to(dtype),
      randn([40, 128]).to(dtype).narrow(1, 0, 64).narrow(0, 3, 30),
    ];
    const expected = x.to('float64').matmul(weight.to('float64').transpose(0, 1));
    expect(difference(linear(x, weight), expected)).toBeLessThan(tolerance[dtype]!);
  });

  it.each([1, 8, 19, 512])('rms_norm_add adds a norm of %i numbers', (size) => {
    compare(
      dtype,
      [[2, 3, size], [size], [2, 3, size]],
      (x, weight, residual) => [normAdd(x, weight, residual, EPS)],
      (x, weight, residual) => [residual.add(norm(x, weight))],
    );
  });

  it.each([1, 8, 19, 512])('rms_norm_join adds two numbers and two norms of %i numbers', (size) => {
    const shape = [2, 3, size];
    compare(
      dtype,
      [shape, shape, shape, [size], shape, [size]],
      (a, b, x, w, z, v) => [normJoin(a, b, x, w, z, v, EPS, Math.SQRT1_2)],
      (a, b, x, w, z, v) => [a.add(b).add(norm(x, w)).add(norm(z, v)).mul(Math.SQRT1_2)],
    );
  });

  it.each([
    [1, 5, 8, 64],
    [2, 3, 2, 6],
    [3, 1, 1, 20],
    [2, 70, 4, 128],
  ])('rms_norm_rotate takes %i rows of %i tokens with %i heads of %i', (batch, tokens, heads, size) => {
    const half = size / 2;
    for (const rows of [1, batch]) {
      compare(
        dtype,
        [[batch, tokens, heads * size], [size], [rows, tokens, 1, size], [rows, tokens, 1, size]],
        (x, weight, cos, sin) => [normRotate(x, weight, cos, sin, EPS, heads)],
        (x, weight, cos, sin) => {
          const n = norm(x.view([batch, tokens, heads, size]), weight);
          const swapped = cat([n.narrow(3, half, half), n.narrow(3, 0, half)], 3);
          return [n.mul(cos).add(swapped.mul(sin)).transpose(1, 2)];
        },
      );
    }
    compare(
      dtype,
      [[batch, tokens, heads * size]],
      (x) => [normRotate(x, null, null, null, EPS, heads)],
      (x) => [norm(x.view([batch, tokens, heads, size])).transpose(1, 2)],
    );
  });

  it.each([8, 35, 2048])('sparse_gate keeps what is far above the mean of %i numbers', (size) => {
    compare(
      dtype,
      [[2, 3, size]],
      (x) => [sparseGate(x, 0.75)],
      (x) => {
        const off = x.sub(x.mean(-1, true));
        return [off.sub(off.square().mean(-1, true).sqrt().mul(0.75)).relu()];
      },
    );
  });

  it.each([
    [1, 512, 2048],
    [3, 40, 50],
    [130, 19, 33],
  ])('sparse_gelu_up takes %i tokens of %i numbers to %i units, most of them cut', (tokens, size, units) => {
    compare(
      dtype,
      [
        [1, tokens, units],
        [1, tokens, size],
        [units, size],
      ],
      (gate, x, weight) => [sparseGeluUp(gate.sub(1).relu(), x, weight)],
      (gate, x, weight) => [gelu(gate.sub(1).relu(), 'tanh').mul(x.matmul(weight.transpose(0, 1)))],
    );
  });

  it.each([
    [64, 2048, 512, false],
    [130, 33, 70, true],
    [100, 48, 8, true],
    [5, 64, 64, true],
  ])(
    'sparse_linear takes %i rows of %i numbers, most of them 0, to %i, bias: %s',
    (rows, size, columns, hasBias) => {
      for (const cut of [2, -1]) {
        const open = (x: Tensor): Tensor => x.sub(cut).relu();
        compare(
          dtype,
          [[1, rows, size], [columns, size], ...(hasBias ? [[columns]] : [])],
          (x, weight, bias) => [sparseLinear(open(x), weight, bias)],
          (x, weight, bias) => {
            const product = open(x).matmul(weight.transpose(0, 1));
            return [bias ? product.add(bias) : product];
          },
        );
      }
    },
  );

  it.each([
    [4, 16, 0, 512],
    [2, 2, 1, 19],
    [8, 8, 1, 40],
    [9, 9, 0, 24],
  ])('altup_route takes %i routes to %i coefficients and adds %i', (num, outs, addend, size) => {
    compare(
      dtype,
      [[2, 3, size], [size], [num, size], [outs, num]],
      (x, weight, router, coefs) => [route(x, weight, router, coefs, EPS, 0.25, addend)],
      (x, weight, router, coefs) => {
        const routed = norm(x, weight)
          .mul(0.25)
          .matmul(router.transpose(0, 1))
          .to('float32')
          .tanh()
          .to('float64');
        return [routed.matmul(coefs.transpose(0, 1)).add(addend)];
      },
    );
  });

  it.each([
    [4, 0, true],
    [3, 2, false],
  ])('altup_innovate corrects copy %2$i of %1$i, scaled: %3$s', (num, active, isScaled) => {
    compare(
      dtype,
      [[2, 3, 21], [2, 3, 21], [2, 3, num], ...(isScaled ? [[21]] : [])],
      (activated, predicted, coefs, scale) => innovate(activated, predicted, coefs, active, scale),
      (activated, predicted, coefs, scale) => {
        const innovation = activated.sub(predicted);
        const first = predicted.add(coefs.narrow(2, active, 1).mul(innovation));
        return [innovation, scale ? first.mul(scale) : first];
      },
    );
  });

  it.each([
    [1, 8, 2, 600, 64],
    [3, 4, 4, 17, 8],
    [2, 10, 2, 1, 20],
    [1, 17, 1, 33, 256],
    [2, 40, 2, 50, 16],
  ])(
    'attend_last serves %i x %i queries with %i heads of %i keys of %i',
    (batch, heads, kvHeads, keys, size) => {
      const kv = [batch, kvHeads, keys, size];
      const options = { scale: 0.3, enableGqa: heads !== kvHeads };
      compare(
        dtype,
        [[batch, heads, 1, size], kv, kv],
        (q, k, v) => [attendLast(q, k, v, null, 0.3)],
        (q, k, v) => [scaledDotProductAttention(q, k, v, options)],
      );
      for (const rows of [1, batch]) {
        const mask = randn([rows, 1, 1, keys])
          .gt(-0.5)
          .logicalOr(tensor([true], [1]));
        mask.narrow(3, 0, Math.floor(keys / 3)).fill_(0);
        compare(
          dtype,
          [[batch, heads, 1, size], kv, kv],
          (q, k, v) => [attendLast(q, k, v, mask, 0.3)],
          (q, k, v) => [scaledDotProductAttention(q, k, v, { ...options, mask })],
        );
      }
    },
  );

  it('attend_last reads views, and gives zeros to a query that may see nothing', () => {
    const q = randn([2, 4, 1, 16]).to(dtype);
    const store = randn([2, 2, 2, 30, 16]).to(dtype);
    const [k, v] = [store.select(0, 0).narrow(2, 5, 20), store.select(0, 1).narrow(2, 5, 20)];
    const mask = tensor([true, false], [2, 1, 1, 1]).expand([2, 1, 1, 20]);
    const output = attendLast(q, k, v, mask, 1);
    const expected = scaledDotProductAttention(q.to('float64'), k.to('float64'), v.to('float64'), {
      scale: 1,
      enableGqa: true,
    });
    expect(difference(output.narrow(0, 0, 1), expected.narrow(0, 0, 1))).toBeLessThan(tolerance[dtype]!);
    expect(output.select(0, 1).abs().amax().item()).toBe(0);
  });

  it('let NaN show', () => {
    const x = randn([1, 2, 32]).to(dtype);
    x.narrow(1, 1, 1).narrow(2, 7, 1).fill_(NaN);
    const ones = tensor(new Float32Array(32).fill(1), [32]).to(dtype);
    const isNaNOf = (y: Tensor): boolean[] =>
      [0, 1].map((row) =>
        Array.from(y.select(1, row).to('float32').toTypedArray(), Number).some(Number.isNaN),
      );
    const square = randn([32, 32]).to(dtype);
    for (const y of [
      linear(x, square),
      normAdd(x, ones, x, EPS),
      sparseGate(x, 1),
      route(x, ones, square.narrow(0, 0, 4), square.narrow(0, 0, 4).narrow(1, 0, 4), EPS, 1, 0),
    ]) {
      expect(isNaNOf(y)).toEqual([false, true]);
    }
    const kv = x.view([1, 1, 2, 32]);
    const attended = attendLast(randn([1, 1, 1, 32]).to(dtype), kv, kv, null, 1);
    expect(Number.isNaN(attended.sum().item())).toBe(true);
  });
});

it('put_ writes a stretch in place and gives back its tensor', async () => {
  const before = await settledTensors();
  scope(() => {
    const whole = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
    expect(put_(whole, tensor([8, 9], [2, 1]), 1, 1)).toBe(whole);
    expect(Array.from(whole.toTypedArray(), Number)).toEqual([1, 8, 3, 4, 9, 6]);
    expect(() => put_(whole, tensor([8, 9], [2, 1]), 1, 3)).toThrow('put_');
  });
  expect(liveTensors()).toBe(before);
});
