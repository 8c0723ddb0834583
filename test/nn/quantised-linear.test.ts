// Frozen weights in few bits: beside bitsandbytes' values, and products beside those with the dequantised weight.

import { describe, expect, it } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/index.js';
import { Linear, QuantisedLinear } from '../../src/nn/index.js';
import { type Tensor, grad, linear, manualSeed, noGrad, op, randn, scope, tensor } from '../../src/tensor/index.js';

const file = new SafetensorsFile('fixtures/reference/nf4.safetensors');
const value = (name: string): Tensor => file.read(name);
const same = op<boolean>('aten::equal');
const nf4 = op<Tensor[]>('sluice::nf4_quantise');
const int8 = op<Tensor[]>('sluice::int8_quantise');
const dequantise = op('sluice::dequantise');

function layer(rows: number, size: number, dtype: 'float32' | 'bfloat16' | 'float64', bias = false): Linear {
  manualSeed(rows + size);
  const made = new Linear(size, rows, { bias });
  made.weight = randn([rows, size]).to(dtype);
  if (bias) made.bias = randn([rows]).to(dtype);
  return made;
}

const difference = (a: Tensor, b: Tensor): number =>
  a.to('float32').sub(b.to('float32')).abs().amax().item() / b.to('float32').abs().amax().item();

describe('NF4 of bitsandbytes', () => {
  it.each(['even', 'odd', 'wide', 'zero'])('has its codes, scales and numbers to the bit (%s)', (name) => {
    const weight = value(`${name}.weight`);
    const [rows = 0, size = 0] = weight.shape;
    const [packed, absmax, nested, offset] = nf4(weight) as [Tensor, Tensor, Tensor, Tensor];
    for (const [key, made] of Object.entries({ packed, nested, offset })) {
      expect(same(made, value(`${name}.${key}`)), key).toBe(true);
    }
    // Where all magnitudes are alike, 0 / 0 stands for any code.
    expect(same(absmax, value(`${name}.absmax`)), 'absmax').toBe(name !== 'zero' || same(absmax, value('zero.absmax')));
    for (const [dtype, key] of [['float32', 'numbers'], ['bfloat16', 'numbers_bf16']] as const) {
      const made = dequantise(packed, absmax, nested, offset, rows, size, 0, rows, dtype);
      expect(same(made, value(`${name}.${key}`)), key).toBe(true);
      const some = dequantise(packed, absmax, nested, offset, rows, size, 1, rows - 2, dtype);
      expect(same(some, made.narrow(0, 1, rows - 2))).toBe(true);
      // float64 takes the path without kernels.
      const plain = dequantise(packed, absmax, nested, offset, rows, size, 1, rows - 2, 'float64');
      expect(same(plain.to('float32').to(dtype), some)).toBe(true);
    }
  });

  it.each(['even', 'odd', 'wide'])('has the int8 codes and scales of its rows (%s)', (name) => {
    const [packed, absmax] = int8(value(`${name}.weight`)) as [Tensor, Tensor];
    expect(same(packed, value(`${name}.int8`))).toBe(true);
    expect(same(absmax, value(`${name}.int8_absmax`))).toBe(true);
  });
});

describe.each(['nf4', 'int8'] as const)('a linear layer in %s', (format) => {
  it.each([
    ['float32', 33, 67, 40, true],
    ['float32', 64, 128, 5, false],
    ['bfloat16', 33, 67, 40, true],
    ['bfloat16', 70, 192, 3, true],
    ['float64', 17, 31, 9, false],
    ['float32', 2100, 2048, 9, false],
  ] as const)('computes and derives the product with its numbers (%s, %i x %i, %i rows)', (dtype, rows, size, count, bias) => {
    scope(() => {
      const made = QuantisedLinear.of(layer(rows, size, dtype, bias), format);
      expect(made.isPlain).toBe(false);
      const numbers = made.dequantised();
      const x = randn([count, size]).to(dtype);
      x.requiresGrad = true;
      const [ours, theirs] = [made.forward(x), linear(x, numbers, made.bias)];
      const tolerance = dtype === 'bfloat16' ? 1e-2 : 3e-6;
      expect(difference(ours, theirs)).toBeLessThan(tolerance);
      const weights = randn([count, rows]).to(dtype);
      const [our] = grad([ours.mul(weights).sum()], [x]);
      const [their] = grad([theirs.mul(weights).sum()], [x]);
      expect(difference(our!, their!)).toBeLessThan(tolerance);
      expect(same(ours, noGrad(() => made.forward(x)))).toBe(true);
    });
  });

  it('keeps a small part of the bytes of bfloat16', () => {
    const made = QuantisedLinear.of(layer(512, 1024, 'bfloat16'), format);
    expect(made.numBytes / (2 * 512 * 1024)).toBeLessThan(format === 'nf4' ? 0.26 : 0.51);
  });

  it('refuses a weight that is to learn, and numbers that are not finite', () => {
    const made = QuantisedLinear.of(layer(8, 8, 'float32'), format);
    made.weight.requiresGrad = true;
    expect(() => made.forward(randn([2, 8]))).toThrow(/quantised weight: expected to be frozen/);
    const broken = new Linear(2, 1);
    broken.weight = tensor([1, Infinity], [1, 2]);
    expect(() => QuantisedLinear.of(broken, format)).toThrow(/finite/);
  });
});
