// Root mean square normalisation (arXiv:1910.07467), computed in float32 whatever the dtype.

import { type Tensor, empty, op, rmsNorm } from '../tensor/index.js';
import { Module, parameter } from './module.js';

const addOp = op('sluice::rms_norm_add');

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

  /** Whether `addTo` adds x's norm by a weight, and nothing else: then others may compute it their way. */
  get isPlain(): boolean {
    return this.weight !== undefined && this.addTo === RmsNorm.prototype.addTo;
  }

  /** @param x [..., dim] @returns the same shape and dtype */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps);
  }

  /** residual + forward(x). @param x and residual [..., dim] */
  addTo(residual: Tensor, x: Tensor): Tensor {
    return this.weight ? addOp(x, this.weight, residual, this.eps) : residual.add(this.forward(x));
  }
}
