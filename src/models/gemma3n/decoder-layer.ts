// One layer of the text tower: predict the copies, compute on the active one, correct them all, add what the token's
// per-layer embedding says.

import { Linear, Module, RmsNorm, gated } from '../../nn/index.js';
import type { Tensor } from '../../tensor/index.js';
import { AltUp, type Copies } from './altup.js';
import { Attention, type AttentionContext } from './attention.js';
import type { TextConfig } from './config.js';
import type { KeysValues } from './kv-cache.js';
import { Laurel } from './laurel.js';
import { Mlp } from './mlp.js';

export class DecoderLayer extends Module {
  selfAttn: Attention;
  mlp: Mlp;
  inputLayernorm: RmsNorm;
  postAttentionLayernorm: RmsNorm;
  preFeedforwardLayernorm: RmsNorm;
  postFeedforwardLayernorm: RmsNorm;
  altup: AltUp;
  laurel: Laurel;
  perLayerInputGate: Linear;
  perLayerProjection: Linear;
  postPerLayerInputNorm: RmsNorm;
  readonly #gated: (gate: Tensor, up: Tensor) => Tensor;

  constructor(
    readonly config: TextConfig,
    layer: number,
  ) {
    super();
    const { hiddenSize, hiddenSizePerLayerInput, rmsNormEps } = config;
    const norm = (): RmsNorm => new RmsNorm(hiddenSize, rmsNormEps);
    this.selfAttn = new Attention(config, layer);
    this.mlp = new Mlp(config, layer);
    this.inputLayernorm = norm();
    this.postAttentionLayernorm = norm();
    this.preFeedforwardLayernorm = norm();
    this.postFeedforwardLayernorm = norm();
    this.altup = new AltUp(config);
    this.laurel = new Laurel(config);
    this.perLayerInputGate = new Linear(hiddenSize, hiddenSizePerLayerInput);
    this.perLayerProjection = new Linear(hiddenSizePerLayerInput, hiddenSize);
    this.postPerLayerInputNorm = norm();
    this.#gated = gated(config.hiddenActivation);
  }

  /** @param perLayerInput [batch, length, hiddenSizePerLayerInput]
   *  @returns the copies after this layer, and the keys and values that sharing layers may use */
  forward(
    copies: Copies,
    perLayerInput: Tensor,
    context: AttentionContext,
  ): { copies: Copies; keysValues: KeysValues } {
    const predictions = this.altup.predict(copies);
    const { active } = predictions;

    const normed = this.inputLayernorm.forward(active);
    const laurel = this.laurel.forward(normed);
    const { output, keysValues } = this.selfAttn.forward(normed, context);
    const attended = active.add(this.postAttentionLayernorm.forward(output));
    const joined = attended.add(laurel).div(Math.SQRT2);

    const fed = this.mlp.forward(this.preFeedforwardLayernorm.forward(joined));
    const activated = joined.add(this.postFeedforwardLayernorm.forward(fed));
    const correction = this.altup.correction(predictions, activated);

    let first = correction.active;
    if (this.config.altupCorrectScale) first = this.altup.scaleCorrected(first);
    const chosen = this.#gated(this.perLayerInputGate.forward(first), perLayerInput);
    const addition = this.postPerLayerInputNorm.forward(this.perLayerProjection.forward(chosen));

    return { copies: this.altup.correct(predictions, correction, addition), keysValues };
  }
}
