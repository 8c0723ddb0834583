// One layer of the text tower: predict the copies, compute on the active one, correct them all, add what the token's
// per-layer embedding says.

import { Linear, Module, RmsNorm, firstPassEnds, gated } from '../../nn/index.js';
import { type Tensor, scope } from '../../tensor/index.js';
import { AltUp, type Copies } from './altup.js';
import { Attention } from './attention.js';
import type { TextConfig } from './config.js';
import type { KeysValues, KvCache } from './kv-cache.js';
import { Laurel } from './laurel.js';
import type { Sight } from './masks.js';
import { Mlp } from './mlp.js';
import { type Rotation, lastRotation } from './rotary.js';
import { lastToken, tokensAt } from './some-tokens.js';

/** What a layer needs besides the tokens. */
export interface LayerContext {
  /** Of all tokens. */
  readonly rotation: Rotation;
  /** Of the queries. */
  readonly sight: Sight;
  /** The source's keys and values, for a sharing layer. */
  readonly shared: KeysValues | undefined;
  readonly cache: KvCache | undefined;
  /** Keys and values are of all tokens, all else of the last one alone. */
  readonly lastOnly: boolean;
  /** int64 [rows], places in [batch * length]: attention is of all tokens, all after it of these alone. */
  readonly rows?: Tensor | undefined;
}

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

  /** @param perLayerInput [batch, length or 1 with `lastOnly`, hiddenSizePerLayerInput]
   *  @returns the copies after this layer ([1, rows, ...] with `rows`), and the keys and values that sharing layers may
   *    use */
  forward(
    copies: Copies,
    perLayerInput: Tensor,
    context: LayerContext,
  ): { copies: Copies; keysValues: KeysValues } {
    const { keysValues, predictions, joined } = scope(() => this.#attended(copies, context));
    const fed = scope(() => firstPassEnds(this.mlp.forward(this.preFeedforwardLayernorm.forward(joined))));
    const activated = this.postFeedforwardLayernorm.addTo(joined, fed);
    const correction = this.altup.correction(predictions, activated);

    const { rows } = context;
    const own = rows ? tokensAt(perLayerInput, rows) : perLayerInput;
    const opened = this.#gated(this.perLayerInputGate.forward(correction.first), own);
    const addition = this.postPerLayerInputNorm.forward(this.perLayerProjection.forward(opened));

    return { copies: this.altup.correct(predictions, correction, addition), keysValues };
  }

  /** What attention and LAuReL make of the predicted active copy. */
  #attended(
    copies: Copies,
    { rotation, sight, shared, cache, lastOnly, rows }: LayerContext,
  ): { keysValues: KeysValues; predictions: Copies; joined: Tensor } {
    const all = this.altup.predict(copies);
    const allNormed = this.inputLayernorm.forward(all.active);
    const projected = lastOnly || shared ? undefined : this.selfAttn.project(allNormed);
    const keysValues = shared ?? this.selfAttn.keysValues(allNormed, rotation, cache, projected);

    const asking = lastOnly ? lastToken(allNormed) : allNormed;
    const narrow = (x: Tensor): Tensor => (lastOnly ? lastToken(x) : rows ? tokensAt(x, rows) : x);
    const predictions = { all: narrow(all.all), active: narrow(all.active) };
    const { active } = predictions;
    const queryRotation = lastOnly ? lastRotation(rotation) : rotation;
    const output = this.selfAttn.forward(asking, {
      rotation: queryRotation,
      sight,
      keysValues,
      query: projected?.query,
      rows,
    });
    const normed = rows ? tokensAt(allNormed, rows) : asking;
    const joined = this.laurel.join(normed, active, output, this.postAttentionLayernorm);
    return {
      keysValues: shared ?? firstPassEnds(keysValues),
      predictions,
      joined: firstPassEnds(joined),
    };
  }

  /** Only what later layers and tokens may see of these tokens: the first lines of `forward`. */
  keysValues(copies: Copies, rotation: Rotation, cache: KvCache | undefined): KeysValues {
    const { active } = this.altup.predict(copies);
    return this.selfAttn.keysValues(this.inputLayernorm.forward(active), rotation, cache);
  }
}
