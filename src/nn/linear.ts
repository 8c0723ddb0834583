// Linear: y = x W^T + b.

import { type Tensor, empty, linear } from '../tensor/index.js';
import { Module, parameter } from './module.js';

/** What stands before a linear's own product, and may use it: an adapter. */
export interface LinearAdapter {
  /** @param x [..., inFeatures] @returns [..., outFeatures] */
  forward(x: Tensor, linear: Linear): Tensor;
  /** Several linears of one input, of which this is the first one's adapter; undefined where it is no better than one by
   *  one. @returns [..., outFeatures] of each */
  together?(x: Tensor, linears: readonly Linear[]): Tensor[] | undefined;
}

/** What several linears make of one input. @param x [..., inFeatures] @returns [..., outFeatures] of each */
export function forwardAll(x: Tensor, linears: readonly Linear[]): Tensor[] {
  const together = linears[0]?.adapter?.together?.(x, linears);
  return together ?? linears.map((linear) => linear.forward(x));
}

/** Weights start uninitialised, with the dtype and device of `withDefaults`: a checkpoint or an initialiser fills them. */
export class Linear extends Module {
  /** [outFeatures, inFeatures] */
  weight: Tensor;
  /** [outFeatures] */
  bias: Tensor | undefined;
  /** Not a field of the tree: an adapter's tensors have names of their own. */
  #adapter: LinearAdapter | undefined;

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    options: { readonly bias?: boolean } = {},
  ) {
    super();
    this.weight = parameter(empty([outFeatures, inFeatures]));
    this.bias = options.bias ? parameter(empty([outFeatures])) : undefined;
  }

  /** Whether `forward` is the product with `weight`, and `bias`, and nothing else: then others may compute it their way. */
  get isPlain(): boolean {
    return this.#adapter === undefined && this.forward === Linear.prototype.forward && this.isDense;
  }

  /** Whether `product` is the product with `weight`, and `bias`, and nothing else. */
  get isDense(): boolean {
    return this.product === Linear.prototype.product;
  }

  get adapter(): LinearAdapter | undefined {
    return this.#adapter;
  }
  set adapter(adapter: LinearAdapter | undefined) {
    this.#adapter = adapter;
  }

  /** @param x [..., inFeatures] @returns [..., outFeatures] */
  forward(x: Tensor): Tensor {
    return this.#adapter ? this.#adapter.forward(x, this) : this.product(x);
  }

  /** What the layer computes by itself, without an adapter. */
  product(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
