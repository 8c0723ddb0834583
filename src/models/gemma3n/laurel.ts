// Learned augmented residual layer (arXiv:2411.07501): a low-rank path beside the residual.

import { Linear, Module, RmsNorm } from '../../nn/index.js';
import type { Tensor } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

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

  /** @param x [batch, length, hidden] */
  forward(x: Tensor): Tensor {
    return this.postLaurelNorm.addTo(x, this.linearRight.forward(this.linearLeft.forward(x)));
  }
}
