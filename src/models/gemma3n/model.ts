// Gemma3nForConditionalGeneration: the text tower with images and sound among its tokens. Ids of three vocabularies (text,
// then vision's and audio's hard tokens) become embeddings; features of media take the places of their placeholders.

import { ConfigError, ModelError } from '../../errors.js';
import { Linear, Module, segment } from '../../nn/index.js';
import { type Tensor, cat, full, op, scope, tensor, where } from '../../tensor/index.js';
import { type AudioFrames, AudioTower } from './audio.js';
import { decodeAudioConfig } from './audio-config.js';
import { CausalLm, type Embedded, type ModelInputs } from './causal-lm.js';
import type { Gemma3nConfig } from './config.js';
import { MultimodalEmbedder } from './embedder.js';
import { Gemma3nText } from './gemma3n-text.js';
import { initialise } from './initialise.js';
import { initialiseAudio } from './initialise-audio.js';
import { initialiseVision } from './initialise-vision.js';
import {
  type HardRange,
  type HostIds,
  type Medium,
  anyInRange,
  hostIds,
  placeholderPositions,
} from './placeholders.js';
import { TextModel } from './text-model.js';
import { decodeVisionConfig } from './vision-config.js';
import { VisionTower } from './vision.js';
import { checkVocabularies } from './vocabularies.js';

/** Any Gemma 3n: what `fromPretrained` and `fromConfig` return. */
export type Gemma3n = CausalLm;

/** The model that a configuration describes, its weights uninitialised: load a checkpoint, or call
 *  `initialiseGemma3n`. dtype and device are those of `withDefaults`.
 *  @throws {ConfigError} when a tower cannot be built, or does not fit the rest */
export function createGemma3n(config: Gemma3nConfig): Gemma3n {
  return config.kind === 'text' ? new Gemma3nText(config) : new Gemma3nMultimodal(config);
}

/** Fills a new model with random weights from the engine's generator: seed it before. Audio comes last: text and images
 *  start from the same weights, whatever tower there is for sound. */
export function initialiseGemma3n(model: Gemma3n): void {
  const audioTower = model instanceof Gemma3nMultimodal ? model.model.audioTower : undefined;
  initialise(model, audioTower);
  initialiseVision(model);
  if (audioTower) initialiseAudio(audioTower);
}

/** The towers, under the names of the checkpoint: `model.language_model`, `model.vision_tower`, ... */
export class Towers extends Module {
  readonly visionTower: VisionTower | undefined;
  readonly languageModel: TextModel;
  readonly audioTower: AudioTower | undefined;
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
    this.audioTower = audio && new AudioTower(audio);
    this.embedVision = vision && new MultimodalEmbedder(vision, hiddenSize);
    this.embedAudio = audio && new MultimodalEmbedder(audio, hiddenSize);
  }
}

const indexCopy = op('aten::index_copy');

export class Gemma3nMultimodal extends CausalLm {
  readonly model: Towers;
  readonly #image: Medium;
  readonly #clip: Medium;

  constructor(config: Gemma3nConfig) {
    super(config);
    this.model = new Towers(config);
    this.#image = {
      name: 'image',
      unit: ['image', 'images'],
      input: 'pixelValues',
      tokenId: config.imageTokenId,
      softTokens: config.visionSoftTokensPerImage,
    };
    this.#clip = {
      name: 'audio',
      unit: ['clip', 'clips'],
      input: 'inputFeatures',
      tokenId: config.audioTokenId,
      softTokens: config.audioSoftTokensPerImage,
    };
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

  override get projectors(): readonly MultimodalEmbedder[] {
    const { embedVision, embedAudio } = this.model;
    return [embedVision, embedAudio].filter((one) => one !== undefined);
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
      return segment('vision', features, (x) =>
        embedVision.embedSoft(x.mul(Math.sqrt(visionTower.config.hiddenSize))),
      );
    });
  }

  /** Sound as the text tower takes it. Where the tower is frozen, nothing of it is kept for a backward pass.
   *  @param inputFeatures [clips, inputFrames, melBins], log-mel as the processor makes it
   *  @param inputFeaturesMask [clips, inputFrames], true on real frames; by default all are
   *  @returns features [clips, frames, hidden], 0 on padding, and their mask [clips, frames], true on real frames
   *  @throws {ModelError} when a shape is another, a clip is padding alone, or this model has no audio tower */
  override audioFeatures(inputFeatures: Tensor, inputFeaturesMask?: Tensor): AudioFrames {
    const { audioTower, embedAudio } = this.model;
    if (!audioTower || !embedAudio) return super.audioFeatures(inputFeatures);
    return scope(() => {
      const { features, mask } = audioTower.forward(inputFeatures, inputFeaturesMask);
      return { features: segment('audio', features, (x) => embedAudio.embedSoft(x)), mask };
    });
  }

  protected override embed(inputs: ModelInputs): Embedded {
    const { inputIds, pixelValues, inputFeatures, inputFeaturesMask } = inputs;
    if (!inputIds) throw new Error('checked by CausalLm');
    if (inputFeaturesMask && !inputFeatures) {
      throw new ModelError({
        where: 'inputFeaturesMask',
        expected: 'inputFeatures beside it',
        received: 'none',
        remedy: 'give both, or neither',
      });
    }
    return scope(() => {
      const ids = hostIds(inputIds);
      const imagePlaces = places(ids, this.#image, pixelValues);
      const clipPlaces = places(ids, this.#clip, inputFeatures);
      const image = pixelValues && imagePlaces.length > 0 ? this.imageFeatures(pixelValues) : undefined;
      const sound =
        inputFeatures && clipPlaces.length > 0
          ? this.#softTokens(inputFeatures, inputFeaturesMask)
          : undefined;
      return segment('text', { inputIds, image, sound }, (given) => {
        let embeds = this.#embedWords(given.inputIds, ids);
        if (given.image) embeds = putInto(embeds, imagePlaces, given.image);
        if (given.sound) embeds = putInto(embeds, clipPlaces, given.sound);
        return { inputsEmbeds: embeds, perLayerInputs: this.languageModel.perLayerInputs(given.inputIds) };
      });
    });
  }

  /** A clip's features at its placeholders. Those without a real frame take the last hard token's embedding.
   *  @returns [clips, softTokens, hidden] */
  #softTokens(inputFeatures: Tensor, inputFeaturesMask: Tensor | undefined): Tensor {
    const { embedAudio } = this.model;
    const { features, mask } = this.audioFeatures(inputFeatures, inputFeaturesMask);
    if (!embedAudio) throw new Error('audioFeatures needs it');
    const [clips = 0, frames = 0, hidden = 0] = features.shape;
    const { softTokens } = this.#clip;
    if (frames > softTokens) {
      throw new ModelError({
        where: 'inputFeatures',
        expected: `clips of at most ${softTokens} frames past the tower, one a placeholder`,
        received: `${frames}, from ${inputFeatures.shape[1]} frames`,
        remedy: 'cut the clips, as the processor of this model does',
      });
    }
    const { vocabOffset, vocabSize } = embedAudio.config;
    return segment('audio', { features, mask }, (given) => {
      const last = full([1, 1], vocabOffset + vocabSize - 1, {
        dtype: 'int64',
        device: given.features.device,
      });
      const filler = embedAudio.embedHard(last);
      const filled = where(given.mask.unsqueeze(-1), given.features, filler);
      return cat([filled, filler.expand([clips, softTokens - frames, hidden])], 1);
    });
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

/** Flat positions of a medium's placeholders. A single token a row may be a placeholder that the model itself wrote; a
 *  prompt's must have their media. */
function places(ids: HostIds, medium: Medium, input: Tensor | undefined): BigInt64Array {
  const count = input?.shape[0] ?? 0;
  if (count === 0 && ids.length === 1) return new BigInt64Array();
  return placeholderPositions(ids, medium, count);
}

/** `embeds` [batch, length, hidden] with features [media, softTokens, hidden] at flat positions. */
function putInto(embeds: Tensor, positions: BigInt64Array, features: Tensor): Tensor {
  const { shape, device, dtype } = embeds;
  const hidden = shape[2] ?? 1;
  const rows = tensor(positions, [positions.length], 'int64', device);
  const flat = features.to(dtype).view([-1, hidden]);
  return indexCopy(embeds.view([-1, hidden]), 0, rows, flat).view(shape);
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
