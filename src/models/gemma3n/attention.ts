// Attention of the text tower: norms on queries, keys and values instead of a scale, rotary positions, grouped heads.
// Sharing layers have queries only, and attend to the keys and values of their source.
//
// Shapes: B batch, T new tokens, S keys, N heads, K key/value heads, D head size.

import { Linear, Module, RmsNorm, attend, forwardAll } from '../../nn/index.js';
import type { Tensor } from '../../tensor/index.js';
import { type TextConfig, sharesKv } from './config.js';
import type { KeysValues, KvCache } from './kv-cache.js';
import type { Sight } from './masks.js';
import { type Rotation, normRotate } from './rotary.js';
import { tokensAt } from './some-tokens.js';

/** What a layer's queries meet. */
export interface AttentionContext {
  /** Of the queries. */
  readonly rotation: Rotation;
  /** What they see of the keys. */
  readonly sight: Sight;
  /** The layer's own, or its source's. */
  readonly keysValues: KeysValues;
  /** The queries' projection, where it is there already. */
  readonly query?: Tensor | undefined;
  /** int64 [rows], places in [B * T]: the outputs of these alone, [1, rows, hidden]. */
  readonly rows?: Tensor | undefined;
}

/** Of the same tokens. */
export interface Projections {
  /** [B, T, N D] */
  readonly query: Tensor;
  /** [B, T, K D] */
  readonly key: Tensor;
  readonly value: Tensor;
}

export class Attention extends Module {
  qProj: Linear;
  kProj: Linear | undefined;
  vProj: Linear | undefined;
  oProj: Linear;
  qNorm: RmsNorm;
  kNorm: RmsNorm | undefined;
  vNorm: RmsNorm | undefined;
  readonly #window: number;

  constructor(
    readonly config: TextConfig,
    readonly layer: number,
  ) {
    super();
    const { hiddenSize, numAttentionHeads, numKeyValueHeads, headDim, rmsNormEps, attentionBias } = config;
    const bias = { bias: attentionBias };
    this.#window = config.layerTypes[layer] === 'sliding_attention' ? config.slidingWindow : Infinity;
    this.qProj = new Linear(hiddenSize, numAttentionHeads * headDim, bias);
    this.qNorm = new RmsNorm(headDim, rmsNormEps);
    if (!sharesKv(config, layer)) {
      this.kProj = new Linear(hiddenSize, numKeyValueHeads * headDim, bias);
      this.vProj = new Linear(hiddenSize, numKeyValueHeads * headDim, bias);
      this.kNorm = new RmsNorm(headDim, rmsNormEps);
      this.vNorm = new RmsNorm(headDim, rmsNormEps, { withScale: false });
    }
    this.oProj = new Linear(numAttentionHeads * headDim, hiddenSize, bias);
  }

  /** Queries of the last tokens against all keys. @param x [B, T, hidden] @returns [B, T, hidden] */
  forward(x: Tensor, { rotation, sight, keysValues, query, rows }: AttentionContext): Tensor {
    const [batch = 1, length = 1] = x.shape;
    const { numAttentionHeads, attentionDropout } = this.config;

    const q_BNTD = normRotate(query ?? this.qProj.forward(x), this.qNorm, rotation, numAttentionHeads);

    const { keys, values } = keysValues;
    const dropout = this.training ? attentionDropout : 0;
    const attended_BNTD = attend(q_BNTD, keys, values, {
      ...sight,
      scale: 1,
      dropout,
      window: this.#window,
    });
    const attended_BTND = length === 1 ? attended_BNTD : attended_BNTD.transpose(1, 2);
    const joined = attended_BTND.reshape([batch, length, -1]);
    return this.oProj.forward(rows ? tokensAt(joined, rows) : joined);
  }

  /** All projections of tokens that are queries and keys both, in one go; undefined in a sharing layer.
   *  @param x [B, T, hidden] */
  project(x: Tensor): Projections | undefined {
    if (!this.kProj || !this.vProj) return undefined;
    const [query = x, key = x, value = x] = forwardAll(x, [this.qProj, this.kProj, this.vProj]);
    return { query, key, value };
  }

  /** What this layer's queries and those of its sharing layers may see: these tokens, and those in the cache.
   *  @param x [B, T, hidden] @param projected of x, where it is there already */
  keysValues(
    x: Tensor,
    rotation: Rotation,
    cache: KvCache | undefined,
    projected?: Pick<Projections, 'key' | 'value'>,
  ): KeysValues {
    if (!this.kProj || !this.vProj || !this.kNorm || !this.vNorm) {
      throw new Error(`layer ${this.layer} shares keys and values, but none were given`);
    }
    const heads = this.config.numKeyValueHeads;
    const fresh = {
      keys: normRotate(projected?.key ?? this.kProj.forward(x), this.kNorm, rotation, heads),
      values: normRotate(projected?.value ?? this.vProj.forward(x), this.vNorm, undefined, heads),
    };
    return cache ? cache.append(this.layer, fresh) : fresh;
  }
}
