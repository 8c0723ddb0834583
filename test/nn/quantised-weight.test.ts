// Frozen weights in few bits: beside bitsandbytes' values, and products beside those with the dequantised weight.

import { describe, expect, it } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/index.js';
import { Embedding, Linear, QuantisedWeight, type WeightQuantisation, lossSum } from '../../src/nn/index.js';
import {
  type DType,
  type Tensor,
  grad,
  linear,
  liveTensors,
  manualSeed,
  noGrad,
  op,
  randn,
  scope,
  tensor,
} from '../../src/tensor/index.js';

const file = new SafetensorsFile('fixtures/reference/nf4.safetensors');
const value = (name: string): Tensor => file.read(name);
const same = op<boolean>('aten::equal');

const NF4 = { format: 'nf4', blockSize: 64, doubleQuantise: true } as const;
const FORMATS: readonly WeightQuantisation[] = [
  NF4,
  { format: 'nf4', blockSize: 128, doubleQuantise: false },
  { format: 'int8', blockSize: 64, doubleQuantise: true },
];

function quantised(weight: Tensor, quantisation: WeightQuantisation, dtype = weight.dtype): QuantisedWeight {
  const facts = { shape: weight.shape, dtype, device: 'cpu' };
  return QuantisedWeight.of(facts, quantisation, (first, count) => weight.detach().narrow(0, first, count));
}

function layer(
  rows: number,
  size: number,
  dtype: DType,
  quantisation: WeightQuantisation,
  bias = false,
): Linear {
  manualSeed(rows + size);
  const made = new Linear(size, rows, { bias });
  scope(() => made.useQuantised(quantised(randn([rows, size]).to(dtype), quantisation)));
  if (bias) made.bias = randn([rows]).to(dtype);
  return made;
}

const difference = (a: Tensor, b: Tensor): number =>
  a.to('float32').sub(b.to('float32')).abs().amax().item() / b.to('float32').abs().amax().item();

describe('NF4 of bitsandbytes', () => {
  it.each([
    ['even', 64, true],
    ['odd', 64, true],
    ['wide', 64, true],
    ['bf16', 64, true],
    ['blocks', 128, true],
    ['small_blocks', 32, false],
    ['single', 256, false],
    ['zero', 64, true],
  ] as const)(
    'has its codes, scales and numbers to the bit (%s: blocks of %i, scales in 8 bits: %s)',
    (name, blockSize, doubleQuantise) => {
      const weight = value(`${name}.weight`);
      const made = quantised(weight, { format: 'nf4', blockSize, doubleQuantise }, 'float32');
      const [rows = 0] = weight.shape;
      expect(same(made.packed, value(`${name}.packed`)), 'packed').toBe(true);
      if (doubleQuantise) {
        expect(same(made.nestedAbsmax, value(`${name}.nested`)), 'nested').toBe(true);
        expect(same(made.offset, value(`${name}.offset`)), 'offset').toBe(true);
      }
      // Where all magnitudes are alike, 0 / 0 stands for any code.
      if (name !== 'zero') expect(same(made.absmax, value(`${name}.absmax`)), 'absmax').toBe(true);
      for (const [dtype, key] of [
        ['float32', 'numbers'],
        ['bfloat16', 'numbers_bf16'],
      ] as const) {
        const all = made.numbers(0, rows, dtype);
        expect(same(all, value(`${name}.${key}`)), key).toBe(true);
        expect(same(made.numbers(1, rows - 2, dtype), all.narrow(0, 1, rows - 2))).toBe(true);
        // float64 takes the path without kernels.
        const plain = made
          .numbers(1, rows - 2, 'float64')
          .to('float32')
          .to(dtype);
        expect(same(plain, all.narrow(0, 1, rows - 2))).toBe(true);
      }
    },
  );

  it.each(['even', 'odd', 'wide', 'bf16', 'blocks'])(
    'has the int8 codes, scales and numbers of its rows (%s)',
    (name) => {
      const made = quantised(value(`${name}.weight`), { ...NF4, format: 'int8' }, 'float32');
      expect(same(made.packed, value(`${name}.int8`)), 'codes').toBe(true);
      expect(same(made.absmax, value(`${name}.int8_absmax`)), 'scales').toBe(true);
      expect(same(made.dequantised(), value(`${name}.int8_numbers`)), 'numbers').toBe(true);
      expect(
        same(made.numbers(0, made.rows, 'float64').to('float32'), made.dequantised()),
        'plain path',
      ).toBe(true);
    },
  );

  it('quantises a weight that is larger than a piece as it does the whole', () => {
    const [rows, size] = [2600, 1999];
    manualSeed(4);
    const weight = randn([rows, size]);
    const [packed, absmax] = op<Tensor[]>('sluice::nf4_quantise')(weight, 64);
    const [codes] = op<Tensor[]>('sluice::nest_scales')(absmax);
    const made = quantised(weight, NF4);
    expect(same(made.packed, packed)).toBe(true);
    expect(same(made.absmax, codes)).toBe(true);
  });
});

describe.each(FORMATS)(
  'a linear layer in $format, blocks of $blockSize, scales in 8 bits: $doubleQuantise',
  (quantisation) => {
    it.each([
      ['float32', 33, 67, 40, true],
      ['float32', 64, 128, 5, false],
      ['bfloat16', 33, 67, 40, true],
      ['bfloat16', 70, 192, 3, true],
      ['float64', 17, 31, 9, false],
      ['float32', 2100, 2048, 9, false],
    ] as const)(
      'computes and derives the product with its numbers (%s, %i x %i, %i rows)',
      (dtype, rows, size, count, bias) => {
        scope(() => {
          const made = layer(rows, size, dtype, quantisation, bias);
          expect(made.isPlain).toBe(false);
          const numbers = made.quantised!.dequantised();
          const x = randn([count, size]).to(dtype);
          x.requiresGrad = true;
          const [ours, theirs] = [made.forward(x), linear(x, numbers, made.bias)];
          const tolerance = dtype === 'bfloat16' ? 1e-2 : 3e-6;
          expect(difference(ours, theirs)).toBeLessThan(tolerance);
          const weights = randn([count, rows]).to(dtype);
          const [our] = grad([ours.mul(weights).sum()], [x]);
          const [their] = grad([theirs.mul(weights).sum()], [x]);
          expect(difference(our!, their!)).toBeLessThan(tolerance);
          expect(
            same(
              ours,
              noGrad(() => made.forward(x)),
            ),
          ).toBe(true);
        });
      },
    );

    it.each([
      ['float32', false, false],
      ['float32', true, true],
      ['bfloat16', true, false],
      ['float64', false, true],
    ] as const)(
      'computes and derives a low-rank update beside it (%s, bias %s, gain %s)',
      (dtype, bias, hasGain) => {
        scope(() => {
          const made = layer(45, 70, dtype, quantisation, bias);
          const wide = dtype === 'float64' ? 'float64' : 'float32';
          const leaf = (shape: number[], as: DType): Tensor => {
            const x = randn(shape).to(as);
            x.requiresGrad = true;
            return x;
          };
          const [x, a, b] = [leaf([2, 11, 70], dtype), leaf([3, 70], wide), leaf([45, 3], wide)];
          const gain = hasGain ? leaf([45], wide) : undefined;
          const ours = made.quantised!.lora(x, made.bias, { a, b, scale: 0.5, gain });
          const update = linear(linear(x, a.to(dtype)), b.mul(0.5).to(dtype));
          const numbers = made.quantised!.dequantised();
          const sum = linear(x, numbers).add(update);
          const gained = gain ? sum.mul(gain.to(dtype)) : sum;
          const theirs = made.bias ? gained.add(made.bias) : gained;
          const tolerance = dtype === 'bfloat16' ? 2e-2 : 3e-6;
          expect(difference(ours, theirs)).toBeLessThan(tolerance);
          const weights = randn([2, 11, 45]).to(dtype);
          const leaves = [x, a, b, ...(gain ? [gain] : [])];
          const [mine, others] = [ours, theirs].map((y) => grad([y.mul(weights).sum()], leaves));
          for (const [i, other] of others!.entries())
            expect(difference(mine![i]!, other!), `${i}`).toBeLessThan(tolerance);
          if (gain) return;
          const known = randn(ours.shape).to(dtype);
          const graph = made.quantised!.lora(x, made.bias, { a, b, scale: 0.5 }, known);
          expect(graph.toTypedArray()).toEqual(known.toTypedArray());
          const again = grad([graph.mul(weights).sum()], leaves);
          expect(again.map((one) => one!.toTypedArray())).toEqual(mine!.map((one) => one!.toTypedArray()));
        });
      },
    );

    it('is the output head of the loss, with the gradient of its numbers', () => {
      const head = layer(97, 34, 'float32', quantisation).quantised!;
      const hidden = randn([2, 6, 34]);
      hidden.requiresGrad = true;
      const labels = tensor([1, 2, -100, 96, 0, 5, 7, -100, -100, 3, 4, 6], [2, 6], 'int64');
      const options = { softcap: 3, chunkBytes: 97 * 4 * 3 };
      const ours = lossSum(hidden, head.placeholder(), labels, { ...options, quantised: head });
      const theirs = lossSum(hidden, head.dequantised(), labels, options);
      expect(ours.loss.item()).toBeCloseTo(theirs.loss.item(), 4);
      expect(ours.numLabels).toBe(theirs.numLabels);
      const [our, their] = [ours, theirs].map(({ loss }) => grad([loss], [hidden])[0]!);
      expect(difference(our!, their!)).toBeLessThan(3e-6);
    });

    it('looks up the rows that its numbers have, and refuses others', () => {
      const made = new Embedding(41, 37, { scale: 3 });
      const weight = quantised(randn([41, 37]), quantisation);
      made.useQuantised(weight);
      const ids = tensor([0, 40, 7, 7], [2, 2], 'int64');
      const rows = op('aten::embedding')(weight.dequantised(), ids);
      expect(same(made.forward(ids), rows.mul(3))).toBe(true);
      expect(made.forward(ids).shape).toEqual([2, 2, 37]);
      expect(() => made.forward(tensor([41], [1], 'int64'))).toThrow(/below 41, received 41/);
    });

    it('keeps a small part of the bytes of bfloat16, and frees them', () => {
      const before = liveTensors();
      const made = layer(512, 1024, 'bfloat16', quantisation);
      const share = made.quantised!.numBytes / (2 * 512 * 1024);
      expect(share).toBeLessThan(
        quantisation.format === 'int8' ? 0.51 : quantisation.doubleQuantise ? 0.26 : 0.27,
      );
      made.dispose();
      expect(liveTensors()).toBe(before);
    });

    it('refuses a weight that is to learn, and numbers that are not finite', () => {
      const made = layer(8, 8, 'float32', quantisation);
      made.weight.requiresGrad = true;
      expect(() => made.forward(randn([2, 8]))).toThrow(/quantised weight: expected to be frozen/);
      expect(() => quantised(tensor([1, Infinity], [1, 2]), quantisation)).toThrow(/finite/);
      expect(() => quantised(tensor([NaN, 1], [1, 2]), quantisation)).toThrow(/finite/);
    });
  },
);
