// Linear: y = x W^T + b.

import { type Tensor, empty, linear } from '../tensor/index.js';
import { Module, parameter } from './module.js';

/** Weights start uninitialised, with the dtype and device of `withDefaults`: a checkpoint or an initialiser fills them. */
export class Linear extends Module {
  /** [outFeatures, inFeatures] */
  weight: Tensor;
  /** [outFeatures] */
  bias: Tensor | undefined;

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
    return this.forward === Linear.prototype.forward;
  }

  /** @param x [..., inFeatures] @returns [..., outFeatures] */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
