// What every Gemma 3n language model does with its text tower: logits, loss, the training loss. Subclasses say how
// inputs become embeddings.

import { ModelError } from '../../errors.js';
import {
  type Linear,
  type LossSum,
  Module,
  type QuantisedWeight,
  crossEntropyMean,
  labelledRows,
  lossSumOfRows,
  segment,
  softcap,
} from '../../nn/index.js';
import { adaptersOf, originalOf } from '../../peft/index.js';
import { type Tensor, linear, scope, tensor } from '../../tensor/index.js';
import type { Gemma3nConfig } from './config.js';
import type { KvCache } from './kv-cache.js';
import { checkpointName } from './names.js';
import { type RecomputeOptions, type RecomputedLoss, recomputedLoss } from './recompute.js';
import type { TextModel } from './text-model.js';

/** What a model computes on. Integer tensors are int64. */
export interface ModelInputs {
  /** [batch, length] */
  readonly inputIds?: Tensor | undefined;
  /** [batch, length], bool or int: false or 0 on padding. */
  readonly attentionMask?: Tensor | undefined;
  /** [batch or 1, length]; by default the place in the row. Jumps in them, where no attention mask is given, separate
   *  packed sequences. */
  readonly positionIds?: Tensor | undefined;
  /** Instead of `inputIds`: [batch, length, hidden]. */
  readonly inputsEmbeds?: Tensor | undefined;
  /** With `inputsEmbeds`: [batch, length, layers, hiddenSizePerLayerInput]. */
  readonly perLayerInputs?: Tensor | undefined;
  /** float32 [images, 3, height, width], all images of the batch in the order of their placeholders. */
  readonly pixelValues?: Tensor | undefined;
  /** float32 [clips, frames, melBins], log-mel of all clips of the batch in the order of their placeholders. */
  readonly inputFeatures?: Tensor | undefined;
  /** [clips, frames], bool or int: true or 1 on real frames; by default all are. */
  readonly inputFeaturesMask?: Tensor | undefined;
}

/** Up to this share of labelled tokens the last layer computes them alone; above it, selecting them costs what it saves. */
const FEW_LABELLED = 0.75;

export interface LabelledInputs extends ModelInputs {
  /** [batch, length], unshifted; -100 is ignored. */
  readonly labels?: Tensor | undefined;
}

export interface ModelOutputs {
  /** [batch, length, vocab], soft-capped */
  readonly logits: Tensor;
  /** float32 [], the mean over labelled tokens; only with labels */
  readonly loss?: Tensor;
}

export interface Embedded {
  readonly inputsEmbeds: Tensor;
  readonly perLayerInputs: Tensor | undefined;
}

export abstract class CausalLm extends Module {
  /** Only where the output head is not the token embedding's own table (`tieWordEmbeddings: false`). */
  lmHead: Linear | undefined;

  constructor(readonly config: Gemma3nConfig) {
    super();
  }

  abstract get languageModel(): TextModel;

  /** What brings towers' features, and words of their own, into the text tower's space. */
  get projectors(): readonly Module[] {
    return [];
  }

  /** Parameters by Hugging Face's names, each tensor once: the model's, then its adapters'. */
  override *namedParameters(): Iterable<[string, Tensor]> {
    yield* this.ownParameters();
    yield* adaptersOf(this)?.namedParameters() ?? [];
  }

  /** Without the adapters'. */
  *ownParameters(): Iterable<[string, Tensor]> {
    for (const [path, tensor] of super.namedParameters()) yield [checkpointName(path), tensor];
  }

  override dispose(): void {
    adaptersOf(this)?.dispose();
    super.dispose();
  }

  /** Images as the text tower takes them. @param pixelValues [images, 3, height, width]
   *  @returns [images, softTokens, hidden]
   *  @throws {ModelError} when this model has no image tower */
  imageFeatures(pixelValues: Tensor): Tensor {
    throw noTower('pixelValues', 'images', pixelValues);
  }

  /** Sound as the text tower takes it. @throws {ModelError} when this model has no audio tower */
  audioFeatures(inputFeatures: Tensor, _inputFeaturesMask?: Tensor): { features: Tensor; mask: Tensor } {
    throw noTower('inputFeatures', 'audio', inputFeatures);
  }

  /** Embeddings of ids, with other towers' features in their places. */
  protected abstract embed(inputs: ModelInputs): Embedded;

  /** Whole logits, and the mean loss where labels are given: the reference's `forward`. */
  forward(inputs: LabelledInputs): ModelOutputs {
    return scope(() => {
      const logits = this.logits(this.hiddenStates(inputs));
      return inputs.labels ? { logits, loss: crossEntropyMean(logits, inputs.labels) } : { logits };
    });
  }

  /** The summed loss and the number of labels: the training path, which never holds whole logits.
   *  @throws {ModelError} without labels, or with a label outside the vocabulary */
  lossSum(inputs: LabelledInputs): LossSum {
    const { labels } = inputs;
    if (!labels) {
      throw new ModelError({
        where: 'lossSum',
        expected: 'labels',
        received: 'none',
        remedy: 'encode samples with labels',
      });
    }
    const shape = (inputs.inputIds ?? inputs.inputsEmbeds)?.shape.slice(0, 2) ?? labels.shape;
    const { rows, targets } = labelledRows(labels, shape, this.outputWeight.shape[0] ?? 0);
    return scope(() => {
      const { device } = inputs.inputIds ?? inputs.inputsEmbeds ?? labels;
      const places = tensor(rows, [rows.length], 'int64', device);
      const isFew =
        rows.length > 0 && rows.length <= FEW_LABELLED * shape.reduce((all, size) => all * size, 1);
      const hidden = this.hiddenStates(inputs, undefined, isFew ? { rows: places } : {});
      return segment('loss', { hidden, places }, (given) => {
        const flat = given.hidden.reshape([-1, given.hidden.shape[2] ?? 1]);
        return lossSumOfRows(isFew ? flat : flat.indexSelect(0, given.places), this.outputWeight, targets, {
          softcap: this.config.text.finalLogitSoftcapping,
          quantised: this.#quantisedHead,
        });
      });
    });
  }

  /** `lossSum` and its backward pass, with activation checkpointing: the layers of the chosen parts keep their inputs alone
   *  and are computed again for their gradients. Loss and gradients are those of `lossSum`, and gradients are added to what
   *  is there; without any label nothing is.
   *
   *      const { numLabels } = model.lossSumBackward(batch, { checkpointing: ['text', 'vision'] });
   *      optimizer.step({ scale: 1 / numLabels });
   *
   *  @throws {ModelError} as `lossSum`, when nothing learns, and when an input asks for a gradient of its own */
  lossSumBackward(inputs: LabelledInputs, options: RecomputeOptions = {}): LossSum {
    return scope(() => {
      const recomputed = this.recomputedLoss(inputs, options);
      const { numLabels } = recomputed;
      const loss = recomputed.loss.detach();
      if (numLabels > 0) recomputed.backward();
      else recomputed.dispose();
      return { loss, numLabels };
    });
  }

  /** The forward pass of `lossSumBackward`: the caller makes the backward pass, or disposes of it. */
  recomputedLoss(inputs: LabelledInputs, options: RecomputeOptions = {}): RecomputedLoss {
    return recomputedLoss(this, inputs, options);
  }

  /** The text tower's last hidden states. @param cache of the tokens before these
   *  @param options.lastOnly give those of the last token alone, and compute no more than they need: the same numbers, but
   *  for rounding, as `TextModel.forward` proves
   *  @param options.rows int64 [rows], places in [batch * length]: these tokens' alone, in the same way
   *  @returns [batch, length, hidden]; [batch, 1, hidden] with `lastOnly`; [1, rows, hidden] with `rows` */
  hiddenStates(
    inputs: ModelInputs,
    cache?: KvCache,
    options: { readonly lastOnly?: boolean; readonly rows?: Tensor } = {},
  ): Tensor {
    return scope(() => {
      const { attentionMask, positionIds } = inputs;
      return this.languageModel.forward({
        ...this.#embedded(inputs),
        ...options,
        attentionMask,
        positionIds,
        cache,
      });
    });
  }

  /** @param hidden [..., hidden] @returns [..., vocab], soft-capped */
  logits(hidden: Tensor): Tensor {
    const head = this.#quantisedHead;
    return scope(() =>
      softcap(
        head ? head.linear(hidden) : linear(hidden, this.outputWeight),
        this.config.text.finalLogitSoftcapping,
      ),
    );
  }

  /** [vocab, hidden]. Where it is the token embedding's own table, it stays that when an adapter's copy of it learns: as
   *  PEFT has it. */
  get outputWeight(): Tensor {
    return this.lmHead?.weight ?? originalOf(this.languageModel.embedTokens.weight);
  }

  get #quantisedHead(): QuantisedWeight | undefined {
    return (this.lmHead ?? this.languageModel.embedTokens).quantised;
  }

  #embedded(inputs: ModelInputs): Embedded {
    const { inputIds, inputsEmbeds, perLayerInputs } = inputs;
    if ((inputIds === undefined) === (inputsEmbeds === undefined)) {
      throw new ModelError({
        where: 'forward',
        expected: 'either inputIds or inputsEmbeds',
        received: inputIds ? 'both' : 'neither',
        remedy: 'give one of them',
      });
    }
    if (inputsEmbeds) return { inputsEmbeds, perLayerInputs };
    if (inputIds) checkIds(inputIds, this.config.text.vocabSize);
    return this.embed(inputs);
  }
}

function noTower(where: string, media: string, received: Tensor): ModelError {
  return new ModelError({
    where,
    expected: `no ${media}: this model has no tower for them`,
    received: `[${received.shape.join(', ')}]`,
    remedy: 'load a checkpoint that has one, or leave them out',
  });
}

/** On a CPU only: elsewhere looking at the ids would wait for the device. */
function checkIds(inputIds: Tensor, vocabSize: number): void {
  if (inputIds.ndim !== 2) {
    throw new ModelError({
      where: 'inputIds',
      expected: '[batch, length]',
      received: `[${inputIds.shape.join(', ')}]`,
      remedy: 'give a row a sequence',
    });
  }
  if (inputIds.device !== 'cpu' || inputIds.numel === 0) return;
  const ids = inputIds.toTypedArray();
  for (const id of ids) {
    if (id >= 0 && id < vocabSize) continue;
    throw new ModelError({
      where: 'inputIds',
      expected: `ids below the vocabulary's ${vocabSize}`,
      received: String(id),
      remedy: 'use the tokenizer that belongs to this model',
    });
  }
}
