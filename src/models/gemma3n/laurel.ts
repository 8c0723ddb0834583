// Learned augmented residual layer (arXiv:2411.07501): a low-rank path beside the residual.

import { Linear, Module, RmsNorm } from '../../nn/index.js';
import { type Tensor, op } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

const joinOp = op('sluice::rms_norm_join');

export class Laurel extends Module {
  linearLeft: Linear;
  linearRight: Linear;
  postLaurelNorm: RmsNorm;

  constructor(config: TextConfig) {
    super();
    this.linearLeft = new Linear(config.hiddenSize, config.laurelRank);
    this.linearRight = new Linear(config.laurelRank, config.hiddenSize);
    this.postLaurelNorm = new RmsNorm(config.hiddenSize, config.rmsNormEps);
  }

  /** The low-rank path. @param x [batch, length, hidden] */
  forward(x: Tensor): Tensor {
    return this.linearRight.forward(this.linearLeft.forward(x));
  }

  /** (active + norm(attended) + x + norm(forward(x))) / sqrt(2): what attention gave and what this path gave, joined.
   *  @param norm of what attention gave; all [batch, length, hidden] */
  join(x: Tensor, active: Tensor, attended: Tensor, norm: RmsNorm): Tensor {
    const own = this.postLaurelNorm;
    const path = this.forward(x);
    const { weight, eps } = norm;
    if (!weight || !own.weight || !norm.isPlain || !own.isPlain || eps !== own.eps) {
      return norm.addTo(active, attended).add(own.addTo(x, path)).div(Math.SQRT2);
    }
    return joinOp(active, x, attended, weight, path, own.weight, eps, Math.SQRT1_2);
  }
}
