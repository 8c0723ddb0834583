// Root mean square normalisation (arXiv:1910.07467), computed in float32 whatever the dtype.

import { type Tensor, empty, rmsNorm } from '../tensor/index.js';
import { Module, parameter } from './module.js';

/** y = x / sqrt(mean(x^2) + eps) * weight. The weight starts uninitialised; see `Linear`. */
export class RmsNorm extends Module {
  /** [dim]; none when built with `withScale: false` */
  weight: Tensor | undefined;

  constructor(
    readonly dim: number,
    readonly eps: number,
    options: { readonly withScale?: boolean } = {},
  ) {
    super();
    this.weight = (options.withScale ?? true) ? parameter(empty([dim])) : undefined;
  }

  /** @param x [..., dim] @returns the same shape and dtype */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps);
  }
}
