// Alternating updates (arXiv:2301.13310): the layer computes on one of N copies of the hidden state; the others are
// predicted from all copies before it, and corrected by what it learnt after it.
//
// Shapes: B batch, T tokens, N copies, H hidden size. The copies are kept as [B, T, N, H], where the reference has
// [N, B, T, H]: mixing the copies of a token is then one small product of neighbours.

import { Linear, Module, RmsNorm, parameter, roundTo } from '../../nn/index.js';
import { type Tensor, empty, linear, noGrad, op, scope } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

const predictOp = op<[Tensor, Tensor]>('sluice::altup_predict');
const correctOp = op<[Tensor, Tensor]>('sluice::altup_correct');
const addcmul = op('aten::addcmul');
const clamp_ = op('aten::clamp_');
/** The same memory under another version counter, as Python's `.data`: writing it does not invalidate saved tensors. */
const dataOf = op('aten::data');

/** AltUp's copies of the hidden state. */
export interface Copies {
  /** [B, T, N, H] */
  readonly all: Tensor;
  /** The active one of them by itself, [B, T, H]. */
  readonly active: Tensor;
}

/** What a layer's result changes. */
export interface Correction {
  /** [B, T, H], the result less what was predicted */
  readonly innovation: Tensor;
  /** [B, T, N], each copy's share of it */
  readonly coefs: Tensor;
  /** [B, T, H], the active copy corrected */
  readonly active: Tensor;
}

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

  /** What the copies are before the layer has computed: a learnt mixture of themselves. */
  predict({ all, active }: Copies): Copies {
    const { altupNumInputs: num, altupActiveIdx } = this.config;
    const [batch = 1, length = 1] = all.shape;
    this.#clampPrediction();

    const mixing = this.predictionCoefs.forward(this.#modalities(active)).view([batch, length, num, num]);
    const [predictions, predicted] = predictOp(all, mixing, altupActiveIdx);
    return { all: predictions, active: predicted };
  }

  /** How to correct the predicted copies. @param activated [B, T, H], the layer's result for the active one */
  correction(predictions: Copies, activated: Tensor): Correction {
    const innovation = activated.sub(predictions.active);
    const coefs = linear(this.#modalities(activated), this.#clampedCorrection()).add(1);
    const own = coefs.narrow(2, this.config.altupActiveIdx, 1);
    return { innovation, coefs, active: addcmul(predictions.active, own, innovation) };
  }

  /** The copies corrected. @param addition [B, T, H], added to every copy but copy 0, whichever is active */
  correct(predictions: Copies, { innovation, coefs }: Correction, addition: Tensor): Copies {
    const { altupActiveIdx } = this.config;
    const [all, active] = correctOp(predictions.all, innovation, coefs, addition, altupActiveIdx);
    return { all, active };
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
