// Alternating updates (arXiv:2301.13310): the layer computes on one of N copies of the hidden state; the others are
// predicted from all copies before it, and corrected by what it learnt after it.
//
// Shapes: B batch, T tokens, N copies, H hidden size. The copies are kept as [B, T, N, H], where the reference has
// [N, B, T, H]: mixing the copies of a token is then one small product of neighbours.

import { Linear, Module, RmsNorm, parameter, roundTo } from '../../nn/index.js';
import { type Tensor, empty, linear, noGrad, op, scope } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

const baddbmm = op('aten::baddbmm');
const clamp_ = op('aten::clamp_');
/** The same memory under another version counter, as Python's `.data`: writing it does not invalidate saved tensors. */
const dataOf = op('aten::data');

export class AltUp extends Module {
  /** [H] */
  correctOutputScale: Tensor;
  correctionCoefs: Linear;
  predictionCoefs: Linear;
  modalityRouter: Linear;
  routerNorm: RmsNorm;

  constructor(readonly config: TextConfig) {
    super();
    const { hiddenSize, altupNumInputs } = config;
    this.correctOutputScale = parameter(empty([hiddenSize]));
    this.correctionCoefs = new Linear(altupNumInputs, altupNumInputs);
    this.predictionCoefs = new Linear(altupNumInputs, altupNumInputs ** 2);
    this.modalityRouter = new Linear(hiddenSize, altupNumInputs);
    this.routerNorm = new RmsNorm(hiddenSize, config.rmsNormEps);
  }

  /** @param copies [B, T, N, H] @returns the copies predicted, the same shape */
  predict(copies: Tensor): Tensor {
    const [batch = 1, length = 1, num = 1, hidden = 1] = copies.shape;
    const modalities = this.#modalities(copies.select(2, this.config.altupActiveIdx));
    this.#clampPrediction();

    const flat = copies.reshape([batch * length, num, hidden]);
    const mixing = this.predictionCoefs.forward(modalities).reshape([batch * length, num, num]);
    return baddbmm(flat, mixing, flat).reshape(copies.shape);
  }

  /** @param predictions [B, T, N, H] @param activated [B, T, H], the layer's result
   *  @returns the copies corrected, [B, T, N, H] */
  correct(predictions: Tensor, activated: Tensor): Tensor {
    const [batch = 1, length = 1, num = 1, hidden = 1] = predictions.shape;
    const modalities = this.#modalities(activated);
    const innovation = activated.sub(predictions.select(2, this.config.altupActiveIdx));

    const coefs = linear(modalities, this.#clampedCorrection()).add(1);
    return baddbmm(
      predictions.reshape([batch * length, num, hidden]),
      coefs.reshape([batch * length, num, 1]),
      innovation.reshape([batch * length, 1, hidden]),
    ).reshape(predictions.shape);
  }

  /** @param active [B, T, H], the corrected active copy */
  scaleCorrected(active: Tensor): Tensor {
    return active.mul(this.correctOutputScale);
  }

  /** Router weights in (-1, 1). @returns [B, T, N] */
  #modalities(x: Tensor): Tensor {
    const inputs = this.routerNorm.forward(x).mul(roundTo(1 / this.config.hiddenSize, x.dtype));
    return this.modalityRouter.forward(inputs).to('float32').tanh().to(x.dtype);
  }

  /** In training the reference clamps the prediction's weight itself, frozen or not. */
  #clampPrediction(): void {
    const { altupCoefClip: clip } = this.config;
    if (!this.training || clip === undefined) return;
    noGrad(() => scope(() => clamp_(dataOf(this.predictionCoefs.weight), -clip, clip)));
  }

  /** In training the correction's weight is clamped for the product only, and learns nothing beyond the clip. */
  #clampedCorrection(): Tensor {
    const { altupCoefClip: clip } = this.config;
    const { weight } = this.correctionCoefs;
    return this.training && clip !== undefined ? weight.clamp({ min: -clip, max: clip }) : weight;
  }
}
