// Alternating updates (arXiv:2301.13310): the layer computes on one of N copies of the hidden state; the others are
// predicted from all copies before it, and corrected by what it learnt after it.
//
// Shapes: B batch, T tokens, N copies, H hidden size. The copies are kept as [B, T, N, H], where the reference has
// [N, B, T, H]: mixing the copies of a token is then one small product of neighbours.

import { Linear, Module, RmsNorm, isComputedAgain, parameter, roundTo } from '../../nn/index.js';
import { type Tensor, empty, linear, noGrad, op, scope } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

const predictOp = op<[Tensor, Tensor]>('sluice::altup_predict');
const correctOp = op<[Tensor, Tensor]>('sluice::altup_correct');
const routeOp = op('sluice::altup_route');
const innovateOp = op<[Tensor, Tensor]>('sluice::altup_innovate');
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
  /** [B, T, H], the active copy corrected, times the output scale if there is one */
  readonly first: Tensor;
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

    const mixing = this.#route(active, this.predictionCoefs, 0).view([batch, length, num, num]);
    const [predictions, predicted] = predictOp(
      all,
      mixing,
      altupActiveIdx,
      !isComputedAgain(), // only `correct` takes them all
    );
    return { all: predictions, active: predicted };
  }

  /** How to correct the predicted copies. @param activated [B, T, H], the layer's result for the active one */
  correction(predictions: Copies, activated: Tensor): Correction {
    const { altupActiveIdx, altupCorrectScale } = this.config;
    const coefs = this.#route(activated, this.#clampedCorrection() ?? this.correctionCoefs, 1);
    const scale = altupCorrectScale ? this.correctOutputScale : null;
    const [innovation, first] = innovateOp(activated, predictions.active, coefs, altupActiveIdx, scale);
    return { innovation, coefs, first };
  }

  /** The copies corrected. @param addition [B, T, H], added to every copy but copy 0, whichever is active */
  correct(predictions: Copies, { innovation, coefs }: Correction, addition: Tensor): Copies {
    const { altupActiveIdx } = this.config;
    const isRead = !isComputedAgain();
    const [all, active] = correctOp(predictions.all, innovation, coefs, addition, altupActiveIdx, isRead);
    return { all, active };
  }

  /** A product of router weights in (-1, 1) with learnt coefficients, and an addend.
   *  @param coefs [C, N], or the module that holds them @returns [B, T, C] */
  #route(x: Tensor, coefs: Tensor | Linear, addend: number): Tensor {
    const { weight, eps } = this.routerNorm;
    const scale = roundTo(1 / this.config.hiddenSize, x.dtype);
    const router = this.modalityRouter;
    if (router.isPlain && (!(coefs instanceof Linear) || coefs.isPlain)) {
      const matrix = coefs instanceof Linear ? coefs.weight : coefs;
      return routeOp(x, weight, router.weight, matrix, eps, scale, addend);
    }
    const routed = router.forward(this.routerNorm.forward(x).mul(scale)).to('float32').tanh().to(x.dtype);
    const mixed = coefs instanceof Linear ? coefs.forward(routed) : linear(routed, coefs);
    return addend === 0 ? mixed : mixed.add(addend);
  }

  /** In training the reference clamps the prediction's weight itself, frozen or not. */
  #clampPrediction(): void {
    const { altupCoefClip: clip } = this.config;
    if (!this.training || clip === undefined) return;
    noGrad(() => scope(() => clamp_(dataOf(this.predictionCoefs.weight), -clip, clip)));
  }

  /** In training the correction's weight is clamped for the product only, and learns nothing beyond the clip. The reference
   *  takes the bare weight for it: an adapter of this module takes no part then, in PEFT neither. */
  #clampedCorrection(): Tensor | undefined {
    const { altupCoefClip: clip } = this.config;
    if (!this.training || clip === undefined) return undefined;
    return this.correctionCoefs.weight.clamp({ min: -clip, max: clip });
  }
}
