// From another modality's space into the text tower's: soft tokens (features of images or sound) and hard tokens (the
// modality's own words, such as "end of image") have norms of their own and share the projection.

import { Embedding, Linear, Module, RmsNorm } from '../../nn/index.js';
import type { Tensor } from '../../tensor/index.js';

export interface EmbedderConfig {
  readonly hiddenSize: number;
  readonly vocabSize: number;
  /** The id of the first hard token. */
  readonly vocabOffset: number;
  readonly rmsNormEps: number;
}

export class MultimodalEmbedder extends Module {
  readonly embedding: Embedding;
  readonly hardEmbeddingNorm: RmsNorm;
  readonly softEmbeddingNorm: RmsNorm;
  readonly embeddingProjection: Linear;
  readonly embeddingPostProjectionNorm: RmsNorm;

  constructor(
    readonly config: EmbedderConfig,
    textHiddenSize: number,
  ) {
    super();
    const { hiddenSize, vocabSize, rmsNormEps } = config;
    this.embedding = new Embedding(vocabSize, hiddenSize);
    this.hardEmbeddingNorm = new RmsNorm(hiddenSize, rmsNormEps);
    this.softEmbeddingNorm = new RmsNorm(hiddenSize, rmsNormEps);
    this.embeddingProjection = new Linear(hiddenSize, textHiddenSize, { bias: false });
    this.embeddingPostProjectionNorm = new RmsNorm(textHiddenSize, rmsNormEps, { withScale: false });
  }

  /** @param features [..., hiddenSize] @returns [..., textHiddenSize] */
  embedSoft(features: Tensor): Tensor {
    return this.project(this.softEmbeddingNorm.forward(features));
  }

  /** @param ids int64 [...], each in vocabOffset ... vocabOffset + vocabSize - 1 @returns [..., textHiddenSize] */
  embedHard(ids: Tensor): Tensor {
    const rows = ids.sub(this.config.vocabOffset);
    const { vocabSize, hiddenSize } = this.config;
    if (ids.numel <= vocabSize) {
      return this.project(this.hardEmbeddingNorm.forward(this.embedding.forward(rows)));
    }
    // Fewer words than ids: each word is projected once, then picked.
    const words = this.hardEmbeddingNorm.forward(this.embedding.weight.view([vocabSize, hiddenSize]));
    return this.project(words)
      .indexSelect(0, rows.flatten())
      .view([...ids.shape, -1]);
  }

  private project(normed: Tensor): Tensor {
    return this.embeddingPostProjectionNorm.forward(this.embeddingProjection.forward(normed));
  }
}
