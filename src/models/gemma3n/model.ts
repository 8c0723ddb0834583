// Gemma3nForConditionalGeneration: the text tower with images among its tokens. Ids of three vocabularies (text, then
// vision's and audio's hard tokens) become embeddings; image features take the places of their placeholders.
// Leaves out: the audio tower, whose weights are held unchanged.

import { ConfigError } from '../../errors.js';
import { Linear, Module } from '../../nn/index.js';
import { type Tensor, op, scope, tensor, where } from '../../tensor/index.js';
import { decodeAudioConfig } from './audio-config.js';
import { AudioWeights } from './audio-weights.js';
import { CausalLm, type Embedded, type ModelInputs } from './causal-lm.js';
import type { Gemma3nConfig } from './config.js';
import { MultimodalEmbedder } from './embedder.js';
import { Gemma3nText } from './gemma3n-text.js';
import { initialise } from './initialise.js';
import { initialiseVision } from './initialise-vision.js';
import { type HardRange, type HostIds, anyInRange, hostIds, imagePositions } from './placeholders.js';
import { TextModel } from './text-model.js';
import { decodeVisionConfig } from './vision-config.js';
import { VisionTower } from './vision.js';
import { checkVocabularies } from './vocabularies.js';

/** Any Gemma 3n: what `fromPretrained` and `fromConfig` return. */
export type Gemma3n = CausalLm;

/** The model that a configuration describes, its weights uninitialised: load a checkpoint, or call
 *  `initialiseGemma3n`. dtype and device are those of `withDefaults`.
 *  @throws {ConfigError} when the image tower cannot be built, or does not fit the rest */
export function createGemma3n(config: Gemma3nConfig): Gemma3n {
  return config.kind === 'text' ? new Gemma3nText(config) : new Gemma3nMultimodal(config);
}

/** Fills a new model with random weights from the engine's generator: seed it before. */
export function initialiseGemma3n(model: Gemma3n): void {
  initialise(model);
  initialiseVision(model);
}

/** The towers, under the names of the checkpoint: `model.language_model`, `model.vision_tower`, ... */
export class Towers extends Module {
  readonly visionTower: VisionTower | undefined;
  readonly languageModel: TextModel;
  readonly audioTower: AudioWeights | undefined;
  readonly embedVision: MultimodalEmbedder | undefined;
  readonly embedAudio: MultimodalEmbedder | undefined;

  constructor(config: Gemma3nConfig) {
    super();
    const vision = config.vision && decodeVisionConfig(config.vision);
    const audio = config.audio && decodeAudioConfig(config.audio);
    checkVocabularies(config, vision, audio);
    const { hiddenSize } = config.text;
    this.visionTower = vision && new VisionTower(vision);
    this.languageModel = new TextModel(config.text);
    this.audioTower = audio && new AudioWeights(audio);
    this.embedVision = vision && new MultimodalEmbedder(vision, hiddenSize);
    this.embedAudio = audio && new MultimodalEmbedder(audio, hiddenSize);
  }
}

const indexCopy = op('aten::index_copy');

export class Gemma3nMultimodal extends CausalLm {
  readonly model: Towers;

  constructor(config: Gemma3nConfig) {
    super(config);
    this.model = new Towers(config);
    const { visionTower } = this.model;
    if (visionTower && visionTower.numSoftTokens !== config.visionSoftTokensPerImage) {
      const [height, width] = visionTower.config.tower.msfaOutputResolution;
      throw new ConfigError({
        where: 'config.json: vision_soft_tokens_per_image',
        expected: `${height * width}, the positions of msfa_output_resolution ${height}x${width}`,
        received: String(config.visionSoftTokensPerImage),
        remedy: 'change one of the two',
      });
    }
    const { hiddenSize, vocabSize, tieWordEmbeddings } = config.text;
    if (!tieWordEmbeddings) this.lmHead = new Linear(hiddenSize, vocabSize);
  }

  override get languageModel(): TextModel {
    return this.model.languageModel;
  }

  /** Images as the text tower takes them. Where the tower is frozen, nothing of it is kept for a backward pass.
   *  @param pixelValues [images, 3, height, width], any size, as the processor scales them
   *  @returns [images, softTokens, hidden]
   *  @throws {ModelError} when the shape is another, or this model has no image tower */
  override imageFeatures(pixelValues: Tensor): Tensor {
    const { visionTower, embedVision } = this.model;
    if (!visionTower || !embedVision) return super.imageFeatures(pixelValues);
    return scope(() => {
      const features = visionTower.forward(pixelValues);
      return embedVision.embedSoft(features.mul(Math.sqrt(visionTower.config.hiddenSize)));
    });
  }

  protected override embed({ inputIds, pixelValues, inputFeatures }: ModelInputs): Embedded {
    if (!inputIds) throw new Error('checked by CausalLm');
    if (inputFeatures) this.audioFeatures(inputFeatures);
    return scope(() => {
      const ids = hostIds(inputIds);
      const places = this.#imagePlaces(ids, pixelValues);
      let inputsEmbeds = this.#embedWords(inputIds, ids);
      if (pixelValues && places.length > 0) {
        const { shape, device, dtype } = inputsEmbeds;
        const hidden = shape[2] ?? 1;
        const features = this.imageFeatures(pixelValues).to(dtype).view([-1, hidden]);
        const rows = tensor(places, [places.length], 'int64', device);
        inputsEmbeds = indexCopy(inputsEmbeds.view([-1, hidden]), 0, rows, features).view(shape);
      }
      return { inputsEmbeds, perLayerInputs: this.languageModel.perLayerInputs(inputIds) };
    });
  }

  /** A single token a row may be a placeholder that the model itself wrote; a prompt's must have their images. */
  #imagePlaces(ids: HostIds, pixelValues: Tensor | undefined): BigInt64Array {
    const { imageTokenId, visionSoftTokensPerImage } = this.config;
    const numImages = pixelValues?.shape[0] ?? 0;
    if (numImages === 0 && ids.length === 1) return new BigInt64Array();
    return imagePositions(ids, imageTokenId, visionSoftTokensPerImage, numImages);
  }

  /** Embeddings of ids, each by the vocabulary that it belongs to. */
  #embedWords(inputIds: Tensor, ids: HostIds): Tensor {
    const { embedVision, embedAudio } = this.model;
    let embeds = this.languageModel.embed(inputIds);
    if (embedVision) {
      const end = embedAudio?.config.vocabOffset ?? Infinity;
      embeds = embedHardTokens(embeds, inputIds, ids, embedVision, 'vision', end);
    }
    if (embedAudio) embeds = embedHardTokens(embeds, inputIds, ids, embedAudio, 'audio', Infinity);
    return embeds;
  }
}

/** `embeds` with a modality's own embeddings where the id is one of its words. */
function embedHardTokens(
  embeds: Tensor,
  inputIds: Tensor,
  ids: HostIds,
  embedder: MultimodalEmbedder,
  name: string,
  end: number,
): Tensor {
  const { vocabOffset: first, vocabSize } = embedder.config;
  const range: HardRange = { name, first, last: first + vocabSize - 1, end };
  if (!anyInRange(ids, range)) return embeds;
  return scope(() => {
    const inside = inputIds.ge(first).logicalAnd(inputIds.le(range.last));
    const words = embedder.embedHard(inputIds.maskedFill(inside.logicalNot(), range.last));
    return where(inside.unsqueeze(-1), words.to(embeds.dtype), embeds);
  });
}
