// Memory that a model needs: to generate, to fine-tune with low-rank adapters, to fine-tune whole. Weights, gradients and
// the optimizer's state are counted, activations estimated (inspect-activations.ts).

import { type DType, dtypeBytes } from '../../tensor/index.js';
import type { Gemma3nConfig, TextConfig } from './config.js';
import {
  audioBytes,
  headGradient,
  keptForBackward,
  mostForRecomputing,
  recomputedLayer,
  kvCacheBytes,
  visionBytes,
  workOfForward,
  workOfLoss,
  type Load,
} from './inspect-activations.js';
import { PARTS, type ParameterCounts, type PartName } from './inspect-parameters.js';
import { quantisedBytes } from './inspect-quantised.js';
import type { Quantisation } from './quantisation.js';
import { sharesKv } from './config.js';

/** Parts that may be frozen in full fine-tuning, by the words of `freeze`. */
export const FREEZABLE = {
  vision: ['vision'],
  projector: ['visionProjector'],
  audio: ['audio', 'audioProjector'],
  embeddings: ['tokenEmbeddings', 'perLayerEmbeddings', 'outputHead'],
} as const satisfies Record<string, readonly PartName[]>;

export interface MemoryOptions extends Load {
  /** Of low-rank adapters. */
  readonly rank: number;
  readonly freeze: readonly (keyof typeof FREEZABLE)[];
}

/** Bytes. */
export interface MemoryNeed {
  /** Of all that computes, in the batch's dtype. */
  readonly weights: number;
  readonly gradients: number;
  /** AdamW's moments, and float32 master weights of 16-bit parameters. */
  readonly optimizer: number;
  /** What the computation holds beside these at its fullest. */
  readonly activations: number;
  readonly kvCache: number;
  /** The most at one time: not all of the above are there at once. */
  readonly peak: number;
  /** The same where the per-layer embeddings are frozen and stay off the device. */
  readonly peakEmbeddingsOff: number;
}

export interface MemoryFacts {
  readonly options: MemoryOptions;
  readonly inference: MemoryNeed;
  readonly lora: FineTuningNeed & { readonly adapterParameters: number };
  /** LoRA over quantised weights: NF4, NF4 with embeddings and towers, int8. */
  readonly qlora: readonly QloraNeed[];
  readonly full: FineTuningNeed & { readonly trainedParameters: number };
  /** Of all layers' keys and values at this batch: without sharing and windows, and what those save. */
  readonly kvCache: { readonly bytes: number; readonly plainBytes: number };
  /** What leaves the device with the per-layer embeddings; with the input embedding too, where the head is another. */
  readonly perLayerEmbeddings: number;
}

export interface QloraNeed extends FineTuningNeed {
  readonly quantisation: Quantisation;
  readonly adapterParameters: number;
  /** Bytes of what is quantised, beside those that it takes in the model's dtype. */
  readonly share: number;
}

const NF4 = { format: 'nf4', doubleQuantise: true, blockSize: 64, embeddings: false, towers: false } as const;
const QUANTISATIONS: readonly Quantisation[] = [
  NF4,
  { ...NF4, embeddings: true, towers: true },
  { ...NF4, format: 'int8' },
];
/** Numbers of a quantised weight at a time: quantised.cc. */
const STRETCH = 2 ** 22;

/** What fine-tuning may do without, or add. Bytes. */
export interface FineTuningNeed extends MemoryNeed {
  /** `activations` where all layers are computed again in the backward pass. */
  readonly activationsCheckpointed: number;
  /** `peak` and `peakEmbeddingsOff` with them. */
  readonly peakCheckpointed: number;
  readonly peakCheckpointedEmbeddingsOff: number;
  /** What an exponential moving average of all that learns adds to the peak. */
  readonly average: number;
}

/** Adapters and all of AdamW's state are float32. */
const FLOAT_BYTES = 4;

/** @param counts of the same configuration */
export function memoryFacts(
  config: Gemma3nConfig,
  counts: ParameterCounts,
  options: MemoryOptions,
): MemoryFacts {
  const bytes = dtypeBytes(options.dtype);
  const perLayerEmbeddings = counts.parts.perLayerEmbeddings * bytes;
  return {
    options,
    inference: inference(config, counts, options),
    lora: lora(config, counts, options),
    qlora: QUANTISATIONS.map((quantisation) => qlora(config, counts, options, quantisation)),
    full: full(config, counts, options),
    kvCache: {
      bytes: kvCacheBytes(config.text, options).used,
      plainBytes: kvCacheBytes(config.text, options).plain,
    },
    perLayerEmbeddings,
  };
}

/** A prompt's forward with its cache: the logits of the last position alone. */
function inference(config: Gemma3nConfig, counts: ParameterCounts, options: MemoryOptions): MemoryNeed {
  const { text } = config;
  const bytes = dtypeBytes(options.dtype);
  const weights = counts.live * bytes;
  const kvCache = kvCacheBytes(text, options).used;
  const logits = 4 * options.batch * text.vocabSize * bytes;
  const towers = Math.max(visionBytes(config, options).work, audioBytes(config, options).work);
  const activations = Math.max(workOfForward(text, options), towers, logits);
  const peak = weights + kvCache + activations;
  const off = peak - counts.parts.perLayerEmbeddings * bytes;
  return { weights, gradients: 0, optimizer: 0, activations, kvCache, peak, peakEmbeddingsOff: off };
}

/** Adapters on every projection of attention and feed-forward; all else is frozen. */
function lora(config: Gemma3nConfig, counts: ParameterCounts, options: MemoryOptions): MemoryFacts['lora'] {
  const { text } = config;
  const bytes = dtypeBytes(options.dtype);
  const adapterParameters = adapterCount(text, options.rank);
  const weights = counts.live * bytes + adapterParameters * FLOAT_BYTES;
  const gradients = adapterParameters * FLOAT_BYTES;
  const optimizer = 2 * adapterParameters * FLOAT_BYTES;
  const towers = Math.max(visionBytes(config, options).work, audioBytes(config, options).work);
  const passing = Math.max(workOfLoss(text, options, false), towers);
  const activations = keptForBackward(text, options) + passing;
  const activationsCheckpointed = mostForRecomputing(text, options, { passing, hasAdapters: true });
  const held = weights + gradients + optimizer;
  const table = counts.parts.perLayerEmbeddings * bytes;
  return {
    weights,
    gradients,
    optimizer,
    activations,
    activationsCheckpointed,
    average: adapterParameters * FLOAT_BYTES,
    kvCache: 0,
    peak: held + activations,
    peakEmbeddingsOff: held + activations - table,
    peakCheckpointed: held + activationsCheckpointed,
    peakCheckpointedEmbeddingsOff: held + activationsCheckpointed - table,
    adapterParameters,
  };
}

/** As LoRA, with fewer bytes of weights, and a stretch of one weight in numbers while it computes. */
function qlora(
  config: Gemma3nConfig,
  counts: ParameterCounts,
  options: MemoryOptions,
  quantisation: Quantisation,
): QloraNeed {
  const bytes = dtypeBytes(options.dtype);
  const plain = lora(config, counts, options);
  const found = quantisedBytes(config, quantisation, bytes);
  const saved = counts.live * bytes - found.weights;
  const stretch = Math.min(STRETCH, found.largest) * bytes;
  const passing = plain.activations - keptForBackward(config.text, options);
  // The loss computes with a quantised head, and then both are there.
  const head = config.text.tieWordEmbeddings ? counts.parts.tokenEmbeddings : counts.parts.outputHead;
  const more = quantisation.embeddings ? Math.min(STRETCH, head) * bytes : Math.max(0, stretch - passing);
  const peak = plain.peak - saved + more;
  const peakCheckpointed = plain.peakCheckpointed - saved + more;
  return {
    ...plain,
    weights: plain.weights - saved,
    activations: plain.activations + more,
    activationsCheckpointed: plain.activationsCheckpointed + more,
    peak,
    peakEmbeddingsOff: peak - found.perLayerEmbeddings,
    peakCheckpointed,
    peakCheckpointedEmbeddingsOff: peakCheckpointed - found.perLayerEmbeddings,
    quantisation,
    share: found.after / found.before,
  };
}

/** Everything learns but what is frozen, and towers that the batch gives nothing to: they get no gradient. */
function full(config: Gemma3nConfig, counts: ParameterCounts, options: MemoryOptions): MemoryFacts['full'] {
  const { text } = config;
  const frozen = new Set<PartName>(options.freeze.flatMap((name) => FREEZABLE[name]));
  if (options.images === 0) frozen.add('vision').add('visionProjector');
  if (options.clips === 0) frozen.add('audio').add('audioProjector');
  const bytes = dtypeBytes(options.dtype);
  // two moments, and the master copy of 16-bit parameters; moments are as wide as what they update
  const stateBytes = bytes === 2 ? 3 * FLOAT_BYTES : 2 * bytes;

  const learns = (part: PartName): boolean => !frozen.has(part);
  const head = learns(text.tieWordEmbeddings ? 'tokenEmbeddings' : 'outputHead');
  const early = head ? headGradient(text, options) : 0;
  const [vision, audio] = [visionBytes(config, options), audioBytes(config, options)];
  const passing = Math.max(workOfLoss(text, options, head), vision.work, audio.work);
  const ofTowers = (learns('vision') ? vision.kept : 0) + (learns('audio') ? audio.kept : 0);
  const activations = keptForBackward(text, options) + ofTowers + passing;
  // The first layer is the last to be computed again: before its own gradients are there.
  const ofLayer = (counts.parts.text * bytes) / text.numHiddenLayers;
  const layer = Math.max(0, recomputedLayer(text, options) - ofLayer);
  // What towers keep where they learn is told as without it.
  const recomputing = mostForRecomputing(text, options, { passing, hasAdapters: false });
  const activationsCheckpointed = recomputing + ofTowers;
  // A table that is read and multiplied has two gradients for a moment, before they are one.
  const twice = head && text.tieWordEmbeddings ? counts.parts.tokenEmbeddings * bytes : 0;

  // What the forward kept goes as gradients come: the fullest moments are the backward's first and last.
  const peakOf = (trained: number, weights: number, most: number, last = 0): number => {
    const fullest = Math.max(most + early, trained * bytes + Math.max(twice, last));
    return weights + trained * stateBytes + fullest;
  };

  const table = counts.parts.perLayerEmbeddings;
  const trained = PARTS.filter(learns).reduce((sum, part) => sum + counts.parts[part], 0);
  const trainedOff = trained - (learns('perLayerEmbeddings') ? table : 0);
  const weights = counts.live * bytes;
  const weightsOff = (counts.live - table) * bytes;
  return {
    weights,
    gradients: trained * bytes,
    optimizer: trained * stateBytes,
    activations,
    activationsCheckpointed,
    average: trained * Math.max(bytes, FLOAT_BYTES),
    kvCache: 0,
    peak: peakOf(trained, weights, activations),
    peakEmbeddingsOff: peakOf(trainedOff, weightsOff, activations),
    peakCheckpointed: peakOf(trained, weights, activationsCheckpointed, layer),
    peakCheckpointedEmbeddingsOff: peakOf(trainedOff, weightsOff, activationsCheckpointed, layer),
    trainedParameters: trained,
  };
}

/** rank x (inputs + outputs) of each projection; sharing layers have no keys and values. */
function adapterCount(text: TextConfig, rank: number): number {
  const { hiddenSize, numAttentionHeads, numKeyValueHeads, headDim } = text;
  const [queries, keys] = [numAttentionHeads * headDim, numKeyValueHeads * headDim];
  return text.intermediateSize.reduce((sum, width, layer) => {
    const numKeyProjections = sharesKv(text, layer) ? 0 : 2;
    const sizes =
      2 * (hiddenSize + queries) + numKeyProjections * (hiddenSize + keys) + 3 * (hiddenSize + width);
    return sum + rank * sizes;
  }, 0);
}

/** The dtypes that a model computes in. */
export const COMPUTE_DTYPES = [
  'bfloat16',
  'float32',
  'float16',
  'float64',
] as const satisfies readonly DType[];
