// A linear layer over a frozen weight in NF4 with double quantisation (arXiv:2305.14314, bitsandbytes' format and values)
// or in int8, a scale a row. The weight is turned into numbers a few rows at a time, forward and backward: what is computed
// is the product with the dequantised weight in x's dtype.

import { ConfigError } from '../errors.js';
import { type DType, type Tensor, cat, noGrad, op, scope, withDefaults } from '../tensor/index.js';
import { Linear } from './linear.js';
import { buffer } from './module.js';

export const WEIGHT_FORMATS = ['nf4', 'int8'] as const;
/** 'nf4': 4.13 bits a number. 'int8': 8, and a float32 a row. */
export type WeightFormat = (typeof WEIGHT_FORMATS)[number];

const nf4Quantise = op<Tensor[]>('sluice::nf4_quantise');
const int8Quantise = op<Tensor[]>('sluice::int8_quantise');
const dequantise = op('sluice::dequantise');
const quantisedLinear = op('sluice::quantised_linear');

const PIECE_BYTES = 16 * 2 ** 20;

export class QuantisedLinear extends Linear {
  /** Codes: uint8 [ceil(out in / 2)], or int8 [out, in]. */
  readonly packed: Tensor;
  /** uint8, of each block of 64; or float32 [out]. */
  readonly absmax: Tensor;
  /** NF4: float32, of each 256 of those. */
  readonly nestedAbsmax: Tensor | undefined;
  /** NF4: float32 [], the mean of the blocks' largest magnitudes. */
  readonly offset: Tensor | undefined;

  private constructor(linear: Linear, parts: readonly Tensor[]) {
    super(linear.inFeatures, linear.outFeatures);
    const [packed, absmax, nestedAbsmax, offset] = parts;
    if (!packed || !absmax) throw new Error('codes and scales');
    // Names, shape and dtype of the weight stay in the tree; its numbers do not.
    this.weight.requiresGrad = false;
    this.bias = linear.bias;
    this.packed = buffer(packed);
    this.absmax = buffer(absmax);
    this.nestedAbsmax = nestedAbsmax && buffer(nestedAbsmax);
    this.offset = offset && buffer(offset);
    this.training = linear.training;
  }

  /** Quantises a linear layer, whose weight is freed; its bias is taken over.
   *  @throws {TensorError} for numbers that are not finite */
  static of(linear: Linear, format: WeightFormat): QuantisedLinear {
    const { dtype } = linear.weight;
    return noGrad(() => {
      const parts = scope(() => (format === 'nf4' ? nf4Quantise : int8Quantise)(linear.weight));
      const made = withDefaults({ dtype, device: 'meta' }, () => new QuantisedLinear(linear, parts));
      linear.weight.dispose();
      return made;
    });
  }

  get format(): WeightFormat {
    return this.offset ? 'nf4' : 'int8';
  }

  /** Of codes and scales. */
  get numBytes(): number {
    const parts = [this.packed, this.absmax, this.nestedAbsmax, this.offset];
    return parts.reduce((sum, tensor) => sum + (tensor ? tensor.numel * bytesOf(tensor.dtype) : 0), 0);
  }

  /** @param x [..., inFeatures] @returns [..., outFeatures]
   *  @throws {ConfigError} where the weight is to learn */
  override product(x: Tensor): Tensor {
    if (this.weight.requiresGrad) throw learns();
    const { packed, absmax, nestedAbsmax, offset, outFeatures, bias } = this;
    return quantisedLinear(x, packed, absmax, nestedAbsmax ?? null, offset ?? null, outFeatures, bias ?? null);
  }

  /** Rows of the weight as numbers, the caller's to free: [count, inFeatures] */
  rows(first: number, count: number, dtype: DType = this.weight.dtype): Tensor {
    const { packed, absmax, nestedAbsmax, offset, outFeatures, inFeatures } = this;
    const [nested, mean] = [nestedAbsmax ?? null, offset ?? null];
    return noGrad(() =>
      dequantise(packed, absmax, nested, mean, outFeatures, inFeatures, first, count, dtype),
    );
  }

  /** What `make` gives of some rows at a time, put together. */
  eachRows(make: (rows: Tensor) => Tensor, dtype: DType = this.weight.dtype): Tensor {
    const step = Math.max(1, Math.floor(PIECE_BYTES / (4 * this.inFeatures)));
    const parts: Tensor[] = [];
    for (let row = 0; row < this.outFeatures; row += step) {
      const count = Math.min(step, this.outFeatures - row);
      parts.push(scope(() => make(this.rows(row, count, dtype))));
    }
    return parts.length === 1 ? parts[0]! : cat(parts, 0);
  }

  /** The whole weight as numbers, in its dtype: [outFeatures, inFeatures] */
  dequantised(): Tensor {
    return this.rows(0, this.outFeatures);
  }
}

function bytesOf(dtype: DType): number {
  return dtype === 'float32' ? 4 : 1;
}

function learns(): ConfigError {
  return new ConfigError({
    where: 'quantised weight',
    expected: 'to be frozen',
    received: 'one that is to learn',
    remedy: 'freeze it, train an adapter beside it, or leave its module out of quantise',
  });
}
