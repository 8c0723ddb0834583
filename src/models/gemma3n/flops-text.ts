// Products of the text tower and its output head, layer by layer as TextModel and DecoderLayer compute them.

import type { LayerType } from './config.js';
import { sharesKv } from './config.js';
import type { DecoderLayer } from './decoder-layer.js';
import type { Products } from './products.js';
import type { TextModel } from './text-model.js';

export interface TextLoad {
  readonly tokens: number;
  /** Of queries and keys, by the kind of layer; see `causalPairs`. */
  readonly pairs: Readonly<Record<LayerType, number>>;
}

/** @param embeds whether the embedded tokens need a gradient
 *  @returns whether the last hidden states do */
export function countText(products: Products, text: TextModel, load: TextLoad, embeds: boolean): boolean {
  const { config, perLayerModelProjection, perLayerProjectionNorm, embedTokensPerLayer, norm } = text;
  const { learning } = products;
  const { tokens } = load;
  const anyOf = (results: readonly boolean[]): boolean => results.includes(true);

  const projected = products.linear(perLayerModelProjection, tokens, embeds);
  const perLayer = projected || learning.has(perLayerProjectionNorm.weight, embedTokensPerLayer.weight);
  let copies = anyOf([embeds, ...text.altupProjections.map((each) => products.linear(each, tokens, embeds))]);

  /** Whether each layer's keys and values need a gradient. */
  const sources: KeysValues[] = [];
  for (const [i, layer] of text.layers.entries()) {
    const shared = sharesKv(config, i) ? sources[config.kvSources[i] ?? 0] : undefined;
    const pairs = load.pairs[config.layerTypes[i] ?? 'full_attention'];
    const result = countLayer(products, layer, { tokens, pairs, copies, perLayer, shared });
    copies = result.copies;
    sources.push(result.keysValues);
  }

  const gathered = text.altupUnembedProjections.map((each) => products.linear(each, tokens, copies));
  return anyOf([copies, ...gathered, learning.has(norm.weight)]);
}

interface KeysValues {
  readonly k: boolean;
  readonly v: boolean;
}

interface LayerLoad {
  readonly tokens: number;
  readonly pairs: number;
  readonly copies: boolean;
  readonly perLayer: boolean;
  readonly shared: KeysValues | undefined;
}

function countLayer(
  products: Products,
  layer: DecoderLayer,
  { tokens, pairs, copies, perLayer, shared }: LayerLoad,
): { copies: boolean; keysValues: KeysValues } {
  const { learning } = products;
  const { altup, selfAttn, laurel, mlp } = layer;
  const { numAttentionHeads, headDim, hiddenSize, altupNumInputs, altupCorrectScale } = layer.config;
  const route = (x: boolean): boolean =>
    products.linear(altup.modalityRouter, tokens, x || learning.has(altup.routerNorm.weight));

  const mixing = products.linear(altup.predictionCoefs, tokens, route(copies));
  const predicted = products.product(tokens * hiddenSize * altupNumInputs ** 2, copies, mixing);
  const x = predicted || learning.has(layer.inputLayernorm.weight);

  const narrow = products.linear(laurel.linearLeft, tokens, x);
  const wide = products.linear(laurel.linearRight, tokens, narrow);
  const residual = x || wide || learning.has(laurel.postLaurelNorm.weight);

  const q = products.linear(selfAttn.qProj, tokens, x) || learning.has(selfAttn.qNorm.weight);
  const keysValues = shared ?? {
    k: (selfAttn.kProj && products.linear(selfAttn.kProj, tokens, x)) || learning.has(selfAttn.kNorm?.weight),
    v: (selfAttn.vProj && products.linear(selfAttn.vProj, tokens, x)) ?? false,
  };
  const { k, v } = keysValues;
  const attended = products.attention(pairs * numAttentionHeads * headDim, q, k, v);
  const output = products.linear(selfAttn.oProj, tokens, attended);
  const joined = predicted || output || residual || learning.has(layer.postAttentionLayernorm.weight);

  const fed = joined || learning.has(layer.preFeedforwardLayernorm.weight);
  const gate = products.linear(mlp.gateProj, tokens, fed);
  const up = products.linear(mlp.upProj, tokens, fed);
  const down = products.linear(mlp.downProj, tokens, gate || up);
  const activated = joined || down || learning.has(layer.postFeedforwardLayernorm.weight);

  const coefs = products.linear(altup.correctionCoefs, tokens, route(activated));
  const corrected = predicted || activated || coefs;
  const first = corrected || (altupCorrectScale && learning.has(altup.correctOutputScale));
  const chosen = products.linear(layer.perLayerInputGate, tokens, first) || perLayer;
  const addition = products.linear(layer.perLayerProjection, tokens, chosen);
  return {
    copies: corrected || addition || learning.has(layer.postPerLayerInputNorm.weight),
    keysValues,
  };
}
