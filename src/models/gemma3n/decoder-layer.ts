// One layer of the text tower: predict the copies, compute on the active one, correct them all, add what the token's
// per-layer embedding says.

import { Linear, Module, RmsNorm, activation } from '../../nn/index.js';
import { type Tensor, cat } from '../../tensor/index.js';
import { AltUp } from './altup.js';
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
  readonly #act: (x: Tensor) => Tensor;

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
    this.#act = activation(config.hiddenActivation);
  }

  /** @param copies [batch, length, altupNumInputs, hidden]
   *  @param perLayerInput [batch, length, hiddenSizePerLayerInput]
   *  @returns the copies after this layer, and the keys and values that sharing layers may use */
  forward(
    copies: Tensor,
    perLayerInput: Tensor,
    context: AttentionContext,
  ): { copies: Tensor; keysValues: KeysValues } {
    const { altupActiveIdx, altupCorrectScale } = this.config;
    const predictions = this.altup.predict(copies);
    const active = predictions.select(2, altupActiveIdx);

    const normed = this.inputLayernorm.forward(active);
    const laurel = this.laurel.forward(normed);
    const { output, keysValues } = this.selfAttn.forward(normed, context);
    const attended = active.add(this.postAttentionLayernorm.forward(output));
    const joined = attended.add(laurel).div(Math.SQRT2);

    const fed = this.mlp.forward(this.preFeedforwardLayernorm.forward(joined));
    const activated = joined.add(this.postFeedforwardLayernorm.forward(fed));
    const corrected = this.altup.correct(predictions, activated);

    let first = corrected.select(2, altupActiveIdx);
    if (altupCorrectScale) first = this.altup.scaleCorrected(first);
    const gated = this.#act(this.perLayerInputGate.forward(first)).mul(perLayerInput);
    const addition = this.postPerLayerInputNorm.forward(this.perLayerProjection.forward(gated));

    return { copies: addToOthers(corrected, addition), keysValues };
  }
}

/** Adds to every copy but copy 0, whichever is active. */
function addToOthers(copies: Tensor, addition: Tensor): Tensor {
  const num = copies.shape[2] ?? 1;
  if (num === 1) return copies;
  const others = copies.narrow(2, 1, num - 1).add(addition.unsqueeze(2));
  return cat([copies.narrow(2, 0, 1), others], 2);
}
