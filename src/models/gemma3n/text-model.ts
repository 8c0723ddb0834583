// The text tower: token and per-layer embeddings, AltUp's copies, decoder layers with shared keys and values, a norm.
// Its output head, and other towers' features among its inputs, belong to the models built on it.

import { ModelError } from '../../errors.js';
import { Embedding, Linear, Module, RmsNorm, foundIn, roundTo, segment } from '../../nn/index.js';
import { type DType, type Tensor, arange, linear, op, scope, stack } from '../../tensor/index.js';
import type { Copies } from './altup.js';
import { type LayerType, type TextConfig, sharesKv } from './config.js';
import { DecoderLayer } from './decoder-layer.js';
import type { KeysValues, KvCache } from './kv-cache.js';
import { attentionMasks } from './masks.js';
import { type Rotation, type Rotations, lastRotation, rotations } from './rotary.js';
import { lastToken } from './some-tokens.js';

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
  /** Give the last token's hidden states alone; see `forward`. */
  readonly lastOnly?: boolean | undefined;
  /** int64 [rows], places in [batch * length]: give these tokens' hidden states alone, which is exact as `lastOnly` is.
   *  Without a cache. */
  readonly rows?: Tensor | undefined;
}

/** How many tokens of a prompt are read at once into a cache where only the last one's hidden states are asked for: it
 *  bounds the memory of masks and activations, and keeps the copies of the hidden states in the processor's cache. */
export const PIECE = 1024;

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

  /** The last hidden states, normed.
   *
   *  With `lastOnly` those of the last token alone, which is exact: a token's hidden states meet those of others in
   *  attention only, as keys and values, and these are made of a layer's input. Let L be the last layer with keys and
   *  values of its own. The last token's output of the layers after L depends on its own output of L and on the keys and
   *  values of L and before; its output of L on its own input of L and on those; so that of L other tokens' keys and values
   *  are needed, of later layers nothing, and of earlier layers everything. The same holds for what a cache keeps. What is
   *  computed is computed as in a whole forward, token by token, but for the order in which a product adds.
   *
   *  @returns [batch, length, hidden]; [batch, 1, hidden] with `lastOnly`; [1, rows, hidden] with `rows` */
  forward(inputs: TextInputs): Tensor {
    return scope(() => {
      const { length } = sizesOf(inputs);
      let start = 0;
      if (inputs.lastOnly && inputs.cache) {
        for (; length - start > PIECE; start += PIECE) {
          scope(() => void this.#layersOf(piece(inputs, start, PIECE), 'nothing'));
        }
      }
      const rest = start === 0 ? inputs : piece(inputs, start, length - start);
      const copies = this.#layersOf(rest, inputs.lastOnly ? 'last' : 'all');
      // Derived right after it was computed: computing it again would save nothing.
      return segment('end', { all: copies.all }, ({ all }) => this.norm.forward(this.#gather(all)));
    });
  }

  /** The copies after all layers, of all tokens or the last; or nothing but what the cache keeps of them. */
  #layersOf(inputs: TextInputs, wanted: 'all' | 'last' | 'nothing'): Copies {
    const { inputsEmbeds, cache } = inputs;
    const { config } = this;
    const { batch, length, device, dtype } = sizesOf(inputs);
    const seen = cache?.length ?? 0;
    /** From here on, a layer's queries are the last token's. */
    const narrowFrom = wanted === 'all' || length === 1 ? Infinity : this.#lastOwnKeys;

    const positionIds = inputs.positionIds ?? arange(seen, seen + length, 1, { device }).unsqueeze(0);
    const rotation = rotations(config, positionIds, dtype);
    const masks = attentionMasks(config, { ...inputs, batch, length, device, cache });
    const tokens = { inputsEmbeds, perLayerInputs: inputs.perLayerInputs };
    const { perLayer, ...spread } = segment('text', tokens, (given) => ({
      perLayer: this.#projectPerLayer(given, narrowFrom),
      ...this.#spread(given.inputsEmbeds),
    }));

    let copies: Copies = spread;
    const sources: KeysValues[] = [];
    for (const [i, layer] of this.layers.entries()) {
      foundIn(copies.active, copies.all, (all) => all.select(2, config.altupActiveIdx));
      const kind = config.layerTypes[i] ?? 'full_attention';
      const rotationOfAll = rotationOf(rotation, kind);
      if (wanted === 'nothing' && i === this.#lastOwnKeys) {
        layer.keysValues(copies, rotationOfAll, cache);
        break;
      }
      const given = {
        copies,
        perLayerInput: perLayer[i] ?? inputsEmbeds,
        rotation: i > narrowFrom ? lastRotation(rotationOfAll) : rotationOfAll,
        sight: (i < narrowFrom ? masks.all[kind] : masks.last[kind]) ?? {},
        shared: sharesKv(config, i) ? sources[config.kvSources[i] ?? 0] : undefined,
        rows: i === this.layers.length - 1 ? inputs.rows : undefined,
      };
      const result = segment('text', given, ({ copies, perLayerInput, ...context }) =>
        layer.forward(copies, perLayerInput, { ...context, cache, lastOnly: i === narrowFrom }),
      );
      // Of no use to later layers; a backward pass holds what it needs by itself.
      if (i > 0) for (const used of Object.values(copies) as Tensor[]) used.dispose();
      copies = result.copies;
      sources.push(given.shared ?? result.keysValues);
    }
    cache?.advance(length);
    return copies;
  }

  /** The last layer with keys and values of its own. */
  get #lastOwnKeys(): number {
    const { config } = this;
    return config.kvSources.findLastIndex((_, layer) => !sharesKv(config, layer));
  }

  /** Each layer's inputs, joined with what the embeddings say: [batch, length, hiddenSizePerLayerInput], from layer
   *  `narrowFrom` on of the last token alone. */
  #projectPerLayer(
    inputs: Pick<TextInputs, 'inputsEmbeds' | 'perLayerInputs'>,
    narrowFrom: number,
  ): readonly Tensor[] {
    const { numHiddenLayers, hiddenSizePerLayerInput } = this.config;
    const { inputsEmbeds, perLayerInputs } = inputs;
    if (perLayerInputs) {
      const shape = [...inputsEmbeds.shape.slice(0, 2), numHiddenLayers, hiddenSizePerLayerInput];
      checkShape('perLayerInputs', perLayerInputs, shape);
    }
    const ofLayers = (tokens: Tensor, own: Tensor | undefined, first: number, count: number): Tensor[] =>
      count === 0 ? [] : unbind(this.#projectLayers(tokens, own?.narrow(2, first, count), first, count), 2);

    if (narrowFrom >= numHiddenLayers || !this.perLayerModelProjection.isPlain) {
      const whole = ofLayers(inputsEmbeds, perLayerInputs, 0, numHiddenLayers);
      return whole.map((ofLayer, i) => (i < narrowFrom ? ofLayer : lastToken(ofLayer)));
    }
    const last = lastToken(inputsEmbeds);
    const rest = numHiddenLayers - narrowFrom;
    return [
      ...ofLayers(inputsEmbeds, perLayerInputs, 0, narrowFrom),
      ...ofLayers(last, perLayerInputs && lastToken(perLayerInputs), narrowFrom, rest),
    ];
  }

  /** [batch, length, count, hiddenSizePerLayerInput] of `count` layers. @param own the tokens' own, of these layers */
  #projectLayers(tokens: Tensor, own: Tensor | undefined, first: number, count: number): Tensor {
    const { hiddenSize, hiddenSizePerLayerInput: size, numHiddenLayers } = this.config;
    const { dtype } = tokens;
    const projection = this.perLayerModelProjection;
    const product =
      count === numHiddenLayers
        ? projection.forward(tokens)
        : linear(tokens, projection.weight.narrow(0, first * size, count * size));
    const shape = [...tokens.shape.slice(0, 2), count, size];
    const scaled = product.mul(roundTo(hiddenSize ** -0.5, dtype));
    const normed = this.perLayerProjectionNorm.forward(scaled.reshape(shape));
    return own ? normed.add(own).mul(roundTo(Math.SQRT1_2, dtype)) : normed;
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
  #gather(all: Tensor): Tensor {
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

interface Sizes {
  readonly batch: number;
  readonly length: number;
  readonly device: string;
  readonly dtype: DType;
}

function sizesOf({ inputsEmbeds }: TextInputs): Sizes {
  const [batch = 1, length = 1] = inputsEmbeds.shape;
  return { batch, length, device: inputsEmbeds.device, dtype: inputsEmbeds.dtype };
}

/** Some of the tokens. */
function piece(inputs: TextInputs, start: number, length: number): TextInputs {
  const cut = (x: Tensor | undefined): Tensor | undefined => x?.narrow(1, start, length);
  return {
    inputsEmbeds: inputs.inputsEmbeds.narrow(1, start, length),
    perLayerInputs: cut(inputs.perLayerInputs),
    attentionMask: cut(inputs.attentionMask),
    positionIds: cut(inputs.positionIds),
    cache: inputs.cache,
  };
}

function rotationOf(rotation: Rotations, kind: LayerType): Rotation {
  const found = rotation[kind];
  if (!found) throw new Error(`no rotation for ${kind}`);
  return found;
}
