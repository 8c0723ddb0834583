// The text tower: token and per-layer embeddings, AltUp's copies, decoder layers with shared keys and values, a norm.
// Its output head, and other towers' features among its inputs, belong to the models built on it.

import { ModelError } from '../../errors.js';
import { Embedding, Linear, Module, RmsNorm, roundTo } from '../../nn/index.js';
import { type Tensor, arange, op, scope, stack } from '../../tensor/index.js';
import type { Copies } from './altup.js';
import { type TextConfig, sharesKv } from './config.js';
import { DecoderLayer } from './decoder-layer.js';
import type { KeysValues, KvCache } from './kv-cache.js';
import { attentionMasks } from './masks.js';
import { rotations } from './rotary.js';

export interface TextInputs {
  /** [batch, length, hidden] */
  readonly inputsEmbeds: Tensor;
  /** Of the tokens' ids alone: [batch, length, layers, hiddenSizePerLayerInput]; see `perLayerInputs`. */
  readonly perLayerInputs?: Tensor | undefined;
  /** bool or int [batch, length], of these tokens: false or 0 on padding. */
  readonly attentionMask?: Tensor | undefined;
  /** int64 [batch or 1, length]; by default the place in the row, counted on through a cache. */
  readonly positionIds?: Tensor | undefined;
  /** Keys and values of the tokens before these; extended by these. */
  readonly cache?: KvCache | undefined;
}

/** Above zero in float32 and bfloat16. */
const SMALLEST = 2e-38;

const unbind = op<Tensor[]>('aten::unbind.int');

export class TextModel extends Module {
  embedTokens: Embedding;
  layers: DecoderLayer[];
  norm: RmsNorm;
  embedTokensPerLayer: Embedding;
  perLayerModelProjection: Linear;
  perLayerProjectionNorm: RmsNorm;
  altupProjections: Linear[];
  altupUnembedProjections: Linear[];

  constructor(readonly config: TextConfig) {
    super();
    const { hiddenSize, hiddenSizePerLayerInput, numHiddenLayers, altupNumInputs, rmsNormEps } = config;
    const padding = config.padTokenId === undefined ? {} : { paddingId: config.padTokenId };
    const perLayerSize = numHiddenLayers * hiddenSizePerLayerInput;
    const copyProjections = (): Linear[] =>
      Array.from({ length: altupNumInputs - 1 }, () => new Linear(hiddenSize, hiddenSize));

    this.embedTokens = new Embedding(config.vocabSize, hiddenSize, {
      ...padding,
      scale: Math.sqrt(hiddenSize),
    });
    this.layers = Array.from({ length: numHiddenLayers }, (_, layer) => new DecoderLayer(config, layer));
    this.norm = new RmsNorm(hiddenSize, rmsNormEps);
    this.embedTokensPerLayer = new Embedding(config.vocabSizePerLayerInput, perLayerSize, {
      ...padding,
      scale: Math.sqrt(hiddenSizePerLayerInput),
    });
    this.perLayerModelProjection = new Linear(hiddenSize, perLayerSize);
    this.perLayerProjectionNorm = new RmsNorm(hiddenSizePerLayerInput, rmsNormEps);
    this.altupProjections = copyProjections();
    this.altupUnembedProjections = copyProjections();
  }

  /** Embeddings of ids, of every id below the vocabulary. @param inputIds int64 [batch, length] */
  embed(inputIds: Tensor): Tensor {
    return this.embedTokens.forward(inputIds);
  }

  /** What each layer knows of each token by its id; ids outside the per-layer table take its row 0.
   *  @returns [batch, length, layers, hiddenSizePerLayerInput] */
  perLayerInputs(inputIds: Tensor): Tensor {
    const { vocabSizePerLayerInput, numHiddenLayers, hiddenSizePerLayerInput } = this.config;
    return scope(() => {
      const outside = inputIds.lt(0).logicalOr(inputIds.ge(vocabSizePerLayerInput));
      const rows = this.embedTokensPerLayer.forward(inputIds.maskedFill(outside, 0));
      return rows.reshape([...inputIds.shape, numHiddenLayers, hiddenSizePerLayerInput]);
    });
  }

  /** The last hidden states, normed. @returns [batch, length, hidden] */
  forward(inputs: TextInputs): Tensor {
    return scope(() => {
      const { inputsEmbeds, attentionMask, cache } = inputs;
      const { config } = this;
      const [batch = 1, length = 1] = inputsEmbeds.shape;
      const { device, dtype } = inputsEmbeds;
      const seen = cache?.length ?? 0;

      const perLayer = unbind(this.#projectPerLayer(inputsEmbeds, inputs.perLayerInputs), 2);
      const positionIds = inputs.positionIds ?? arange(seen, seen + length, 1, { device }).unsqueeze(0);
      const rotation = rotations(config, positionIds, dtype);
      const masks = attentionMasks(config, {
        batch,
        length,
        device,
        attentionMask,
        positionIds: inputs.positionIds,
        cache,
      });

      let copies = this.#spread(inputsEmbeds);
      const sources: KeysValues[] = [];
      for (const [i, layer] of this.layers.entries()) {
        const kind = config.layerTypes[i] ?? 'full_attention';
        const kindRotation = rotation[kind];
        if (!kindRotation) throw new Error(`no rotation for ${kind}`);
        const result = scope(() =>
          layer.forward(copies, perLayer[i] ?? inputsEmbeds, {
            rotation: kindRotation,
            mask: masks[kind],
            shared: sharesKv(config, i) ? sources[config.kvSources[i] ?? 0] : undefined,
            cache,
          }),
        );
        // Of no use to later layers; a backward pass holds what it needs by itself.
        if (i > 0) for (const used of Object.values(copies) as Tensor[]) used.dispose();
        copies = result.copies;
        sources.push(result.keysValues);
      }
      cache?.advance(length);
      return this.norm.forward(this.#gather(copies));
    });
  }

  /** Per-layer inputs joined with what the embeddings say: [batch, length, layers, hiddenSizePerLayerInput]. */
  #projectPerLayer(inputsEmbeds: Tensor, perLayerInputs: Tensor | undefined): Tensor {
    const { hiddenSize, numHiddenLayers, hiddenSizePerLayerInput } = this.config;
    const { dtype } = inputsEmbeds;
    const shape = [...inputsEmbeds.shape.slice(0, 2), numHiddenLayers, hiddenSizePerLayerInput];
    const projected = this.perLayerModelProjection
      .forward(inputsEmbeds)
      .mul(roundTo(hiddenSize ** -0.5, dtype));
    const normed = this.perLayerProjectionNorm.forward(projected.reshape(shape));
    if (!perLayerInputs) return normed;
    checkShape('perLayerInputs', perLayerInputs, shape);
    return normed.add(perLayerInputs).mul(roundTo(Math.SQRT1_2, dtype));
  }

  /** AltUp's copies of the embeddings, each projected and brought to the embeddings' magnitude. */
  #spread(embeds: Tensor): Copies {
    return scope(() => {
      const magnitude = rms(embeds);
      const others = this.altupProjections.map((proj) => toMagnitude(proj.forward(embeds), magnitude));
      const copies = [embeds, ...others];
      return { all: stack(copies, 2), active: copies[this.config.altupActiveIdx] ?? embeds };
    });
  }

  /** The mean of the copies, each projected back and brought to the magnitude of copy 0. */
  #gather({ all }: Copies): Tensor {
    return scope(() => {
      const [first = all, ...rest] = unbind(all, 2);
      const magnitude = rms(first);
      const others = rest.map((copy, i) => {
        const projection = this.altupUnembedProjections[i];
        return toMagnitude(projection?.forward(copy) ?? copy, magnitude);
      });
      return stack([first, ...others], 0).mean(0);
    });
  }
}

/** Zeros (a padding token's embedding at the start) pass no gradient, where the reference's square root gives NaN. */
function rms(x: Tensor): Tensor {
  return x.pow(2).mean(-1, true).clamp({ min: SMALLEST }).pow(0.5);
}

function toMagnitude(x: Tensor, magnitude: Tensor): Tensor {
  return x.mul(magnitude).div(x.pow(2).mean(-1, true).clamp({ min: 1e-5 }).sqrt());
}

function checkShape(where: string, tensor: Tensor, shape: readonly number[]): void {
  if (tensor.shape.length === shape.length && tensor.shape.every((size, i) => size === shape[i])) return;
  throw new ModelError({
    where,
    expected: `[${shape.join(', ')}]`,
    received: `[${tensor.shape.join(', ')}]`,
    remedy: 'compute them with perLayerInputs(inputIds)',
  });
}
