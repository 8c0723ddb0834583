// The floating point operations that training on a batch needs: every matrix product and convolution of the forward pass,
// and of the backward pass those whose factors need a gradient, so that frozen parts and adapters count as they are.
//
// Counted is what the configuration asks for, once: of padding, pairs that attention masks, positions without labels and
// what checkpointing computes again, nothing; of a gate that cuts most of its units all of them, as the reference computes
// them. Words of the images' and the sound's own vocabularies, one or two a medium, are left out.

import { causalPairs } from './flops-pairs.js';
import type { MultimodalEmbedder } from './embedder.js';
import { countAudio } from './flops-audio.js';
import { type TextLoad, countText } from './flops-text.js';
import { countVision } from './flops-vision.js';
import { type Gemma3n, Gemma3nMultimodal } from './model.js';
import { Learning, Products } from './products.js';

/** What of a batch the count depends on. */
export interface BatchShape extends TextLoad {
  /** Positions that the loss counts. */
  readonly labels: number;
  readonly images: number;
  readonly imageSize: readonly [height: number, width: number];
  /** Of each clip, the frames that are sound, as the processor makes them. */
  readonly clips: readonly number[];
}

/** Floating point operations; a multiplication with its addition is two. */
export interface Flops {
  readonly forward: number;
  readonly backward: number;
  /** Of both, those of attention's pairs. */
  readonly attended: number;
}

/** @param lengths tokens of each sample: those that see each other @param window of sliding layers */
export function textLoad(lengths: readonly number[], window: number): TextLoad {
  return {
    tokens: lengths.reduce((sum, length) => sum + length, 0),
    pairs: { full_attention: causalPairs(lengths), sliding_attention: causalPairs(lengths, window) },
  };
}

/** Counts batches for a model with what learns in it, and its adapters, as they are when this is made. */
export class FlopCounter {
  readonly #learning: Learning;

  constructor(private readonly model: Gemma3n) {
    this.#learning = new Learning(model);
  }

  /** Of one batch's forward and backward pass. */
  count(batch: BatchShape): Flops {
    const products = new Products(this.#learning);
    const hidden = countText(products, this.model.languageModel, batch, this.#embeds(products, batch));
    const head = this.model.outputWeight;
    const [vocab = 0, size = 0] = head.shape;
    products.product(batch.labels * vocab * size, hidden, this.#learning.has(head));
    const { forward, backward, attended } = products;
    return { forward, backward, attended };
  }

  /** Towers and projectors. @returns whether the embedded tokens need a gradient */
  #embeds(products: Products, { images, imageSize, clips }: BatchShape): boolean {
    const { model } = this;
    let embeds = this.#learning.has(model.languageModel.embedTokens.weight);
    if (!(model instanceof Gemma3nMultimodal)) return embeds;
    const { visionTower, embedVision, audioTower, embedAudio } = model.model;
    if (visionTower && embedVision && images > 0) {
      const needs = countVision(products, visionTower, images, imageSize);
      embeds = this.#projected(products, embedVision, images * visionTower.numSoftTokens, needs) || embeds;
    }
    if (audioTower && embedAudio && clips.length > 0) {
      const { frames, needs } = countAudio(products, audioTower, clips);
      embeds = this.#projected(products, embedAudio, frames, needs) || embeds;
    }
    return embeds;
  }

  #projected(
    products: Products,
    { softEmbeddingNorm, embeddingProjection, embeddingPostProjectionNorm }: MultimodalEmbedder,
    rows: number,
    x: boolean,
  ): boolean {
    const normed = x || this.#learning.has(softEmbeddingNorm.weight);
    const projected = products.linear(embeddingProjection, rows, normed);
    return projected || this.#learning.has(embeddingPostProjectionNorm.weight);
  }
}
