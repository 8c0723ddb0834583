// Gemma3nForCausalLM: the text tower with its output head.

import { ModelError } from '../../errors.js';
import { Linear, segment } from '../../nn/index.js';
import { CausalLm, type Embedded, type ModelInputs } from './causal-lm.js';
import type { Gemma3nConfig } from './config.js';
import { TextModel } from './text-model.js';

/** Weights start uninitialised: load a checkpoint into it, or call `initialise`. */
export class Gemma3nText extends CausalLm {
  model: TextModel;

  constructor(config: Gemma3nConfig) {
    super(config);
    const { hiddenSize, vocabSize, tieWordEmbeddings } = config.text;
    this.model = new TextModel(config.text);
    if (!tieWordEmbeddings) this.lmHead = new Linear(hiddenSize, vocabSize);
  }

  override get languageModel(): TextModel {
    return this.model;
  }

  protected override embed({ inputIds, pixelValues, inputFeatures }: ModelInputs): Embedded {
    if (pixelValues || inputFeatures) {
      throw new ModelError({
        where: 'forward',
        expected: 'text alone: this model is a Gemma3nForCausalLM',
        received: pixelValues ? 'pixelValues' : 'inputFeatures',
        remedy: 'load a checkpoint with the tower, or leave the media out',
      });
    }
    if (!inputIds) throw new Error('checked by CausalLm');
    return segment('text', inputIds, (ids) => ({
      inputsEmbeds: this.model.embed(ids),
      perLayerInputs: this.model.perLayerInputs(ids),
    }));
  }
}
