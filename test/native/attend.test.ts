// Attention's kernels, in every way that they compute products, against the same sums written out in float64.

import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type DType,
  type Tensor,
  arange,
  grad,
  getNumThreads,
  liveTensors,
  manualSeed,
  op,
  randn,
  scope,
  setNumThreads,
  tensor,
  where,
} from '../../src/tensor/index.js';

const attend = op('sluice::attend');

interface Case {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly queries: number;
  readonly keys?: number;
  readonly size: number;
  readonly window?: number;
  readonly scale?: number;
  /** The first and last key that each row has. */
  readonly real?: readonly (readonly [number, number])[];
  /** A mask of each query: whether it takes part in the key. */
  readonly sees?: (row: number, query: number, key: number) => boolean;
  /** Lengths of the sequences in each row. */
  readonly packed?: readonly (readonly number[])[];
}

const cases: Record<string, Case> = {
  'two tokens': { batch: 1, heads: 1, kvHeads: 1, queries: 2, size: 16 },
  'fewer than a block, groups of four': { batch: 2, heads: 4, kvHeads: 1, queries: 13, size: 64 },
  'an odd number of blocks, groups of two': { batch: 2, heads: 4, kvHeads: 2, queries: 150, size: 32 },
  'whole blocks': { batch: 1, heads: 2, kvHeads: 2, queries: 128, size: 64, scale: 1 },
  'heads of 80': { batch: 1, heads: 2, kvHeads: 1, queries: 70, size: 80 },
  'heads of 256': { batch: 1, heads: 4, kvHeads: 2, queries: 97, size: 256, scale: 0.1 },
  'a window of itself alone': { batch: 1, heads: 2, kvHeads: 1, queries: 77, size: 16, window: 1 },
  'a window': { batch: 1, heads: 2, kvHeads: 1, queries: 203, size: 16, window: 65 },
  'a window wider than all': { batch: 1, heads: 2, kvHeads: 1, queries: 33, size: 16, window: 500 },
  'more keys than queries': { batch: 2, heads: 2, kvHeads: 1, queries: 45, keys: 161, size: 16 },
  'more keys than are met at once': { batch: 1, heads: 1, kvHeads: 1, queries: 70, keys: 1100, size: 16 },
  'padding on either side, and a row of nothing else': {
    batch: 3,
    heads: 2,
    kvHeads: 1,
    queries: 90,
    size: 16,
    window: 50,
    real: [
      [70, 90],
      [0, 20],
      [0, 0],
    ],
  },
  'a mask with gaps, whole tiles among them': {
    batch: 1,
    heads: 2,
    kvHeads: 1,
    queries: 200,
    size: 16,
    sees: (_, query, key) => key >> 6 !== 1 && (query * 7 + key * 3) % 5 > 1 && query !== 100,
  },
  'a mask of each row': {
    batch: 2,
    heads: 2,
    kvHeads: 2,
    queries: 70,
    keys: 80,
    size: 32,
    window: 30,
    sees: (row, query, key) => (row === 0 ? key % 3 !== 0 : query % 4 !== 0),
  },
  'sequences in a row': {
    batch: 2,
    heads: 2,
    kvHeads: 1,
    queries: 170,
    size: 16,
    packed: [
      [1, 70, 1, 1, 64, 33],
      [5, 5, 160],
    ],
  },
  'the same sequences in all rows, with a window': {
    batch: 2,
    heads: 2,
    kvHeads: 1,
    queries: 100,
    size: 16,
    window: 20,
    packed: [[1, 2, 3, 94]],
  },
};

const ways = [
  ['float32', 'best', 2e-6],
  ['float32', 'plain', 2e-6],
  ['bfloat16', 'best', 0.01],
  ['bfloat16', 'float32', 0.01],
  ['bfloat16', 'plain', 0.01],
] as const;

function seenBy({ batch, queries, keys = queries, window = Infinity, real, sees, packed }: Case): Tensor {
  const seen = new Int32Array(batch * queries * keys);
  for (let row = 0; row < batch; row++) {
    const lengths = packed?.[packed.length > 1 ? row : 0];
    const sequences = lengths?.flatMap((length, i) => new Array<number>(length).fill(i));
    const [first, last] = real?.[row] ?? [0, keys];
    for (let query = 0; query < queries; query++) {
      const place = keys - queries + query;
      for (let key = 0; key < keys; key++) {
        const takesPart =
          key <= place &&
          key > place - window &&
          key >= first &&
          key < last &&
          (sees?.(row, query, key) ?? true) &&
          sequences?.[place] === sequences?.[key];
        seen[(row * queries + query) * keys + key] = Number(takesPart);
      }
    }
  }
  return tensor(seen, [batch, 1, queries, keys]).to('bool');
}

/** softmax(scale q k^T) v of what is seen, zeros where nothing is, by its definition. */
function plain(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: number): Tensor {
  const [batch = 1, heads = 1, , size = 1] = q.shape;
  const [, kvHeads = 1, keys = 1] = k.shape;
  const repeat = (x: Tensor): Tensor =>
    x
      .unsqueeze(2)
      .expand([batch, kvHeads, heads / kvHeads, keys, size])
      .reshape([batch, heads, keys, size]);
  const scores = q.matmul(repeat(k).transpose(2, 3)).mul(scale);
  const weights = scores.exp().mul(seen.to('float64'));
  const total = weights.sum(-1, true);
  const isBlind = total.eq(0);
  return weights.div(where(isBlind, total.mul(0).add(1), total)).matmul(repeat(v));
}

interface Inputs {
  readonly tensors: readonly [Tensor, Tensor, Tensor];
  readonly cotangent: Tensor;
}

function inputsOf({ batch, heads, kvHeads, queries, keys = queries, size }: Case, dtype: DType): Inputs {
  manualSeed(3);
  const make = (count: number, length: number): Tensor => randn([batch, count, length, size]).to(dtype);
  return {
    // as projections leave them, and as heads of their own
    tensors: [make(heads, queries), make(keys, kvHeads).transpose(1, 2), make(kvHeads, keys)],
    cotangent: make(heads, queries),
  };
}

/** The output and the gradients of q, k and v. */
function results({ tensors, cotangent }: Inputs, how: (q: Tensor, k: Tensor, v: Tensor) => Tensor): Tensor[] {
  const own = tensors.map((x) => x.detach());
  for (const x of own) x.requiresGrad = true;
  const [q, k, v] = own as [Tensor, Tensor, Tensor];
  const output = how(q, k, v);
  return [output.detach(), ...grad([output], own, [cotangent.to(output.dtype)]).map((x) => x!)];
}

function run(given: Case, inputs: Inputs, products: string): Tensor[] {
  const { batch, queries, keys = queries, size, window = keys, scale = size ** -0.5 } = given;
  const { real, sees, packed } = given;
  const starts = packed?.map((lengths) => {
    let start = 0;
    return lengths.flatMap((length) => new Array<number>(length).fill((start += length) - length));
  });
  const mask = sees
    ? seenBy({ ...given, window: Infinity })
    : real &&
      tensor(
        Int32Array.from(
          real.flatMap(([first, last]) => Array.from({ length: keys }, (_, i) => +(i >= first && i < last))),
        ),
        [batch, 1, 1, keys],
      ).to('bool');
  const begins = starts && tensor(Int32Array.from(starts.flat()), [starts.length, queries]);
  return results(inputs, (q, k, v) =>
    attend(q, k, v, mask, begins, Math.min(window, keys), scale, 0, products),
  );
}

function difference(a: Tensor, b: Tensor): number {
  const [x, y] = [a.to('float64'), b.to('float64')];
  const norm = (tensor: Tensor): number => tensor.square().sum().sqrt().item();
  const least = 0.1 * Math.sqrt(x.shape.reduce((product, n) => product * n, 1)); // where the gradient is 0
  return norm(x.sub(y)) / Math.max(norm(y), least);
}

const bits = (x: Tensor): string =>
  createHash('sha256').update(x.contiguous().to('float32').toTypedArray()).digest('hex');

let threads = 1;
beforeAll(() => {
  threads = getNumThreads();
  setNumThreads(2);
});
afterAll(() => setNumThreads(threads));

describe.each(Object.entries(cases))('attention over %s', (_, given) => {
  it.each(ways)(
    'has the output and gradients of its definition, in %s with %s products',
    (dtype, how, within) => {
      scope(() => {
        const inputs = inputsOf(given, dtype);
        const wide = inputs.tensors.map((x) => x.to('float64')) as [Tensor, Tensor, Tensor];
        const seen = seenBy(given);
        const expected = results({ ...inputs, tensors: wide }, (q, k, v) =>
          plain(q, k, v, seen, given.scale ?? given.size ** -0.5),
        );
        const got = run(given, inputs, how);
        for (const [i, each] of expected.entries()) {
          expect(got[i]!.dtype).toBe(dtype);
          expect(got[i]!.shape).toEqual(each.shape);
          expect(difference(got[i]!, each)).toBeLessThan(within);
        }
        // nothing at all, where nothing is seen
        const blind = seen.to('int32').sum(-1, true).eq(0);
        expect(got[0]!.mul(blind.to(dtype)).abs().amax().item()).toBe(0);
      });
    },
  );
});

describe('attention', () => {
  const given: Case = { batch: 1, heads: 4, kvHeads: 1, queries: 300, size: 32, window: 130 };

  it.each(['float32', 'bfloat16'] as const)('gives the same bits whenever it is asked, in %s', (dtype) => {
    scope(() => {
      const inputs = inputsOf(given, dtype);
      const first = run(given, inputs, 'best').map(bits);
      for (let i = 0; i < 5; i++) expect(run(given, inputs, 'best').map(bits)).toEqual(first);
    });
  });

  it('gives the same bits without gradients, and the same output on one thread', () => {
    scope(() => {
      const inputs = inputsOf(given, 'bfloat16');
      const [output] = run(given, inputs, 'best');
      const { window = 1, size } = given;
      const again = attend(...inputs.tensors, undefined, undefined, window, size ** -0.5, 0, 'best');
      expect(bits(again)).toEqual(bits(output!));
      setNumThreads(1);
      expect(bits(run(given, inputs, 'best')[0]!)).toEqual(bits(output!));
      setNumThreads(2);
    });
  });

  it.each(ways)('hides no NaN, in %s with %s products', (dtype, products) => {
    scope(() => {
      const inputs = inputsOf({ ...given, window: 300 }, dtype);
      const [q, k] = inputs.tensors;
      q.narrow(2, 20, 1).fill_(NaN);
      k.narrow(2, 250, 1).fill_(NaN);
      const [output, ...grads] = run({ ...given, window: 300 }, inputs, products);
      const sums = output!.to('float32').sum(-1).select(0, 0).select(0, 0).toTypedArray();
      const isBroken = Array.from(sums as Float32Array, (sum) => Number(Number.isNaN(sum)));
      // tiles are of 64 keys: NaN of a key may break what precedes it in its own
      expect(isBroken.slice(0, 192)).toEqual(Array.from({ length: 192 }, (_, i) => Number(i === 20)));
      expect(isBroken.slice(250)).toEqual(new Array<number>(50).fill(1));
      for (const each of grads) expect(each.to('float32').sum().item()).toBeNaN();
    });
  });

  it('frees what it makes', () => {
    const before = liveTensors();
    scope(() => void run(given, inputsOf(given, 'float32'), 'best'));
    expect(liveTensors()).toBe(before);
  });

  it('lies with its heads beside each other', () => {
    scope(() => {
      const { tensors } = inputsOf(given, 'float32');
      const y = attend(...tensors, undefined, undefined, 130, 1, 0, 'best');
      expect(y.transpose(1, 2).view([1, 300, 4 * 32]).shape).toEqual([1, 300, 128]);
    });
  });

  it('goes to libtorch for what it has no kernels for', () => {
    scope(() => {
      const odd: Case = { ...given, size: 20, packed: [[100, 200]] };
      const inputs = inputsOf(odd, 'float64');
      const expected = results(inputs, (q, k, v) => plain(q, k, v, seenBy(odd), 20 ** -0.5));
      for (const [i, each] of run(odd, inputs, 'best').entries())
        expect(difference(each, expected[i]!)).toBeLessThan(1e-10);
    });
  });

  it('says what does not fit', () => {
    scope(() => {
      const [q, k, v] = inputsOf(given, 'float32').tensors;
      const ask = (mask?: Tensor, starts?: Tensor, window = 9): Tensor =>
        attend(q, k, v, mask, starts, window, 1, 0, 'best');
      expect(() => attend(k, q, q, undefined, undefined, 9, 1, 0, 'best')).toThrow('attend: expected q');
      expect(() => ask(arange(0, 300))).toThrow(
        'attend: expected a mask of bool [batch or 1, 1, queries or 1',
      );
      expect(() => ask(undefined, arange(0, 300).unsqueeze(0))).toThrow('expected starts of int32');
      expect(() => ask(undefined, undefined, 0)).toThrow('expected a window of one key or more, received 0');
      expect(() => attend(q, k, v, undefined, undefined, 9, 1, 0, 'fast')).toThrow("received 'fast'");
    });
  });
});
