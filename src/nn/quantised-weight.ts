// A frozen weight in NF4 with double quantisation (arXiv:2305.14314, bitsandbytes' format and values) or in int8, a scale a
// row. It is turned into numbers a few rows at a time: what is computed with it, forward and backward, is what the
// dequantised weight in x's dtype gives.
//
// int8's codes and scales are those of bitsandbytes' int8_vectorwise_quant, on the weight as it is; its Linear8bitLt rounds
// a weight to float16 before that. Activations are never quantised here, and there are no outlier columns.

import { ConfigError } from '../errors.js';
import { type DType, type Tensor, cat, empty, noGrad, op, scope } from '../tensor/index.js';
import { Module, buffer, parameter } from './module.js';

export const WEIGHT_FORMATS = ['nf4', 'int8'] as const;
/** 'nf4': 4.13 bits a number. 'int8': 8, and a float32 a row. */
export type WeightFormat = (typeof WEIGHT_FORMATS)[number];

/** Numbers of an NF4 block, as bitsandbytes has them. */
export const BLOCK_SIZES = [32, 64, 128, 256, 512, 1024, 2048, 4096] as const;

export interface WeightQuantisation {
  readonly format: WeightFormat;
  /** Of NF4: numbers that share a scale; 64. */
  readonly blockSize: (typeof BLOCK_SIZES)[number];
  /** Of NF4: whether the scales are quantised in their turn, to 8 bits; else they are float32. */
  readonly doubleQuantise: boolean;
}

/** What a weight is quantised from: some of its rows, [count, size], the caller's to free. */
export type RowsOf = (first: number, count: number) => Tensor;

const nf4Quantise = op<Tensor[]>('sluice::nf4_quantise');
const nestScales = op<Tensor[]>('sluice::nest_scales');
const int8Quantise = op<Tensor[]>('sluice::int8_quantise');
const dequantise = op('sluice::dequantise');
const dequantiseRows = op('sluice::dequantise_rows');
const quantisedLinear = op('sluice::quantised_linear');
const quantisedLora = op('sluice::quantised_lora');
const quantisedProduct = op('sluice::quantised_product');

/** Of numbers in float32 at a time. */
const PIECE_BYTES = 16 * 2 ** 20;

export interface WeightFacts {
  /** Its rows are the first of them; the others are one size. */
  readonly shape: readonly number[];
  /** Of its numbers. */
  readonly dtype: DType;
  readonly device: string;
}

/** Codes and scales. Belongs to the module that holds it. */
export class QuantisedWeight extends Module {
  /** Codes: uint8 [ceil(rows size / 2)], or int8 [rows, size]. */
  readonly packed: Tensor;
  /** Scales: float32 of each block, or uint8 with double quantisation; int8: float32 [rows]. */
  readonly absmax: Tensor;
  /** Double quantisation: float32, of each 256 of those. */
  readonly nestedAbsmax: Tensor | undefined;
  /** Double quantisation: float32 [], the mean of the blocks' largest magnitudes. */
  readonly offset: Tensor | undefined;
  readonly rows: number;
  readonly size: number;

  private constructor(
    readonly facts: WeightFacts,
    readonly quantisation: WeightQuantisation,
    parts: readonly Tensor[],
  ) {
    super();
    const [packed, absmax, nestedAbsmax, offset] = parts;
    if (!packed || !absmax) throw new Error('codes and scales');
    [this.rows, this.size] = matrixOf(facts.shape);
    this.packed = buffer(packed);
    this.absmax = buffer(absmax);
    this.nestedAbsmax = nestedAbsmax && buffer(nestedAbsmax);
    this.offset = offset && buffer(offset);
  }

  /** Quantises a weight some rows at a time: no more than a few of them are numbers at once.
   *  @throws {TensorError} for numbers that are not finite */
  static of(facts: WeightFacts, quantisation: WeightQuantisation, rowsOf: RowsOf): QuantisedWeight {
    return noGrad(() =>
      scope(() => {
        const codes = (quantisation.format === 'nf4' ? nf4Of : int8Of)(facts, quantisation, rowsOf);
        const parts = codes.map((part) => part.to(facts.device));
        return new QuantisedWeight(facts, quantisation, parts);
      }),
    );
  }

  get format(): WeightFormat {
    return this.quantisation.format;
  }

  /** Of codes and scales. */
  get numBytes(): number {
    return [...this.namedBuffers()].reduce((sum, [, { numBytes }]) => sum + numBytes, 0);
  }

  /** What stands in for the weight in its module: name, shape and dtype of it, and no memory. */
  placeholder(): Tensor {
    const { shape, dtype } = this.facts;
    return parameter(empty(shape, { dtype, device: 'meta' }), { requiresGrad: false });
  }

  /** x W^T + bias. @param x [..., size] @returns [..., rows] */
  linear(x: Tensor, bias?: Tensor): Tensor {
    return quantisedLinear(x, ...this.#parts(), this.rows, this.#block, bias ?? null);
  }

  /** gain (x W^T + scale (x a^T) b^T) + bias; a, b and gain may learn.
   *  @param update a [rank, size], b [rows, rank], gain [rows]
   *  @param output what it gives, where that is known and there is no gain: only the graph is made then */
  lora(
    x: Tensor,
    bias: Tensor | undefined,
    update: {
      readonly a: Tensor;
      readonly b: Tensor;
      readonly scale: number;
      readonly gain?: Tensor | undefined;
    },
    output?: Tensor,
  ): Tensor {
    const { a, b, scale, gain } = update;
    return quantisedLora(
      x,
      ...this.#parts(),
      this.rows,
      this.#block,
      bias ?? null,
      a,
      b,
      scale,
      gain ?? null,
      output ?? null,
    );
  }

  /** x W, without a gradient. @param x [..., rows] @returns [..., size] */
  product(x: Tensor): Tensor {
    return noGrad(() => quantisedProduct(x, ...this.#parts(), this.size, this.#block));
  }

  /** Rows by number. @param ids int64 [...] @returns [..., size], in the weight's dtype */
  lookUp(ids: Tensor): Tensor {
    const { rows, size } = this;
    const found = noGrad(() =>
      dequantiseRows(this.packed, ...this.#parts().slice(1), rows, size, this.#block, ids, this.facts.dtype),
    );
    return found;
  }

  /** Some rows as numbers, the caller's to free: [count, size] */
  numbers(first: number, count: number, dtype: DType = this.facts.dtype): Tensor {
    const { rows, size } = this;
    return noGrad(() => dequantise(...this.#parts(), rows, size, this.#block, first, count, dtype));
  }

  /** What `make` gives of some rows at a time, put together. */
  eachRows(make: (rows: Tensor) => Tensor): Tensor {
    const step = Math.max(1, Math.floor(PIECE_BYTES / (4 * this.size)));
    const parts: Tensor[] = [];
    for (let row = 0; row < this.rows; row += step) {
      parts.push(scope(() => make(this.numbers(row, Math.min(step, this.rows - row)))));
    }
    return parts.length === 1 ? parts[0]! : cat(parts, 0);
  }

  /** The whole weight as numbers, of its shape, the caller's to free. */
  dequantised(): Tensor {
    return scope(() => this.numbers(0, this.rows).reshape([...this.facts.shape]));
  }

  get #block(): number {
    return this.format === 'nf4' ? this.quantisation.blockSize : 0;
  }

  #parts(): [Tensor, Tensor, Tensor | null, Tensor | null] {
    return [this.packed, this.absmax, this.nestedAbsmax ?? null, this.offset ?? null];
  }
}

/** Refuses to compute with a quantised weight that is to learn.
 *  @throws {ConfigError} */
export function refuseLearning(weight: Tensor): void {
  if (!weight.requiresGrad) return;
  throw new ConfigError({
    where: 'quantised weight',
    expected: 'to be frozen',
    received: 'one that is to learn',
    remedy: 'freeze it, train an adapter beside it, or leave its module out of quantise',
  });
}

function matrixOf(shape: readonly number[]): [rows: number, size: number] {
  const [rows = 1, ...rest] = shape;
  return [rows, rest.reduce((product, one) => product * one, 1)];
}

/** Pieces of whole blocks, which give what the whole weight at once gives. */
function nf4Of(facts: WeightFacts, quantisation: WeightQuantisation, rowsOf: RowsOf): Tensor[] {
  const { blockSize, doubleQuantise } = quantisation;
  const [rows, size] = matrixOf(facts.shape);
  const numbers = rows * size;
  const packed = empty([Math.ceil(numbers / 2)], { dtype: 'uint8', device: 'cpu' });
  const absmax = empty([Math.ceil(numbers / blockSize)], { dtype: 'float32', device: 'cpu' });
  const together = blockSize / greatestDivisor(size, blockSize);
  eachPiece(facts, together, rowsOf, (piece, first) => {
    const [codes, scales] = nf4Quantise(piece, blockSize);
    packed.narrow(0, (first * size) / 2, codes!.numel).copy_(codes!);
    absmax.narrow(0, (first * size) / blockSize, scales!.numel).copy_(scales!);
  });
  return doubleQuantise ? [packed, ...nestScales(absmax)] : [packed, absmax];
}

function int8Of(facts: WeightFacts, _: WeightQuantisation, rowsOf: RowsOf): Tensor[] {
  const [rows, size] = matrixOf(facts.shape);
  const packed = empty([rows, size], { dtype: 'int8', device: 'cpu' });
  const absmax = empty([rows], { dtype: 'float32', device: 'cpu' });
  eachPiece(facts, 1, rowsOf, (piece, first, count) => {
    const [codes, scales] = int8Quantise(piece);
    packed.narrow(0, first, count).copy_(codes!);
    absmax.narrow(0, first, count).copy_(scales!);
  });
  return [packed, absmax];
}

function eachPiece(
  { shape, dtype }: WeightFacts,
  together: number,
  rowsOf: RowsOf,
  use: (piece: Tensor, first: number, count: number) => void,
): void {
  const [rows, size] = matrixOf(shape);
  const step = Math.max(1, Math.floor(PIECE_BYTES / (4 * size * together))) * together;
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    // As the module would hold it: what rounds there is rounded here.
    scope(() => use(rowsOf(first, count).to('cpu').to(dtype).reshape([count, size]), first, count));
  }
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
