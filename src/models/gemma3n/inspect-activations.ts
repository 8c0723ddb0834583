// What a computation keeps beside weights, in bytes, by formulas over the configuration. They count the tensors of
// decoder-layer.ts, attention.ts and loss.ts; test/models/inspect-memory.test.ts holds them against the engine's own
// count on two models. For images and clips they are coarser.

import { type DType, dtypeBytes } from '../../tensor/index.js';
import { binsAfter, decodeAudioConfig } from './audio-config.js';
import { sharesKv, type Gemma3nConfig, type TextConfig } from './config.js';
import { expandedChs, type BlockArgs } from './mobilenet-args.js';
import { planTower } from './mobilenet-plan.js';
import { PIECE } from './text-model.js';
import { VISION_FEATURES, decodeVisionConfig, type TowerConfig } from './vision-config.js';

/** A batch and the dtype that it is computed in. */
export interface Load {
  readonly batch: number;
  readonly length: number;
  /** Images and clips of the whole batch. */
  readonly images: number;
  readonly clips: number;
  /** Of every image, as the processor makes them. */
  readonly imageSize: readonly [height: number, width: number];
  readonly dtype: DType;
}

const FLOAT_BYTES = 4;

/** Keys and values of a whole batch in generation: of unshared layers alone, of sliding ones only their window. */
export function kvCacheBytes(
  text: TextConfig,
  { batch, length, dtype }: Load,
): { used: number; plain: number } {
  const each = 2 * batch * text.numKeyValueHeads * text.headDim * dtypeBytes(dtype);
  let used = 0;
  for (const [layer, type] of text.layerTypes.entries()) {
    if (sharesKv(text, layer)) continue;
    used += each * (type === 'sliding_attention' ? Math.min(length, text.slidingWindow) : length);
  }
  return { used, plain: each * length * text.numHiddenLayers };
}

/** What the text tower's forward keeps for its backward pass, all layers together. */
export function keptForBackward(text: TextConfig, load: Load): number {
  const { layers, around } = keptElements(text, load);
  return (layers.reduce((sum, elements) => sum + elements, 0) + around) * dtypeBytes(load.dtype);
}

/** The most in use with activation checkpointing: each layer's inputs, with adapters also what its feed-forward gives, and
 *  either the layer that is just being derived with the gradients of its outputs, or what passes before the first is.
 *  @param passing bytes of loss and towers */
export function mostForRecomputing(
  text: TextConfig,
  load: Load,
  { passing, hasAdapters }: { readonly passing: number; readonly hasAdapters: boolean },
): number {
  const { hiddenSize: H, altupNumInputs: N, hiddenSizePerLayerInput: P, numHiddenLayers, kvSources } = text;
  const tokens = load.batch * load.length;
  const K = text.numKeyValueHeads * text.headDim;
  const shared = new Set(kvSources.filter((source, layer) => source !== layer)).size;
  const each = (hasAdapters ? N + 1 : N) * H + 2 * P;
  const inputs = tokens * (numHiddenLayers * each + H + 2 * shared * K);
  return inputs * dtypeBytes(load.dtype) + Math.max(recomputedLayer(text, load), passing);
}

/** One layer computed again, the largest, and the gradients of its outputs. */
export function recomputedLayer(text: TextConfig, load: Load): number {
  const { hiddenSize: H, altupNumInputs: N } = text;
  const gradients = load.batch * load.length * (N + 2) * H;
  return (Math.max(...keptElements(text, load).layers) + gradients) * dtypeBytes(load.dtype);
}

/** Elements that each layer's forward keeps, and what stands around the layers. */
function keptElements(text: TextConfig, load: Load): { readonly layers: number[]; readonly around: number } {
  const {
    hiddenSize: H,
    altupNumInputs: N,
    hiddenSizePerLayerInput: P,
    laurelRank: R,
    numHiddenLayers,
  } = text;
  const [Q, K] = [text.numAttentionHeads * text.headDim, text.numKeyValueHeads * text.headDim];
  const tokens = load.batch * load.length;
  const layers = text.layerTypes.map((_, layer) => {
    const I = text.intermediateSize[layer] ?? 0;
    const isSparse = (text.activationSparsityPattern[layer] ?? 0) > 0;
    // copies; inputs of ten norms and routers, of projections; the correction's own
    let elements = tokens * ((N + 15) * H + R + 2 * P + 4 * N + N ** 2);
    elements += tokens * (isSparse ? 4 : 3) * I;
    elements += tokens * (2 * Q + (sharesKv(text, layer) ? 0 : 2 * K));
    return elements + attention(text, layer, load).kept;
  });
  // embeddings, their projections to copies and back; per-layer inputs before and after their norm
  return { layers, around: tokens * (6 * N * H + 3 * numHiddenLayers * P) };
}

/** The most that reading a prompt has in use: one layer over a piece of it, with what it is given. */
export function workOfForward(text: TextConfig, load: Load): number {
  const {
    hiddenSize: H,
    altupNumInputs: N,
    hiddenSizePerLayerInput: P,
    laurelRank: R,
    numHiddenLayers,
  } = text;
  const [Q, K] = [text.numAttentionHeads * text.headDim, text.numKeyValueHeads * text.headDim];
  const piece = Math.min(load.length, PIECE);
  const tokens = load.batch * piece;
  const layers = text.layerTypes.map((_, layer) => {
    const I = text.intermediateSize[layer] ?? 0;
    const own = sharesKv(text, layer) ? 0 : K;
    const { kept, passing } = attention(text, layer, load, piece);
    // copies as given and predicted, and what stands beside them while it attends, feeds forward, and corrects
    const attends = tokens * (2 * H + R + 4 * Q + 5 * own) + kept + passing;
    const feeds = tokens * (3 * H + 3 * I + 2 * own);
    const corrects = tokens * ((N + 9) * H + 2 * P + 2 * own);
    return tokens * 2 * (N + 1) * H + Math.max(attends, feeds, corrects);
  });
  // later layers see the last token alone
  const whole = 1 + text.kvSources.findLastIndex((source, layer) => source === layer);
  // the whole prompt's embeddings wait; a piece of them is spread to copies, and projected for each layer
  const embedded = load.batch * load.length * (H + numHiddenLayers * P);
  const spreads = tokens * (2 * N * H + 3 * whole * P);
  return (embedded + Math.max(spreads, ...layers) + tokens * whole * P) * dtypeBytes(load.dtype);
}

/** Elements of one layer's attention that are kept for backward beside the inputs of norms and of the output's projection,
 *  and those that only pass through. @param queries how many of the last tokens ask */
function attention(
  text: TextConfig,
  layer: number,
  { batch, length, dtype }: Load,
  queries = length,
): { kept: number; passing: number } {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = text;
  const [Q, K] = [heads * headDim, kvHeads * headDim];
  const logSums = (batch * queries * heads * FLOAT_BYTES) / dtypeBytes(dtype);
  const kept = batch * queries * (Q + (sharesKv(text, layer) ? 0 : 2 * K)) + logSums;
  return { kept, passing: 2 * batch * length * K };
}

/** The most that the summed loss has in use: a chunk's logits and its gradients. */
export function workOfLoss(text: TextConfig, load: Load, learnsHead: boolean): number {
  const { vocabSize, hiddenSize } = text;
  const bytes = dtypeBytes(load.dtype);
  const rows = load.batch * load.length;
  const chunkRows = Math.max(1, Math.floor((64 * 2 ** 20) / (FLOAT_BYTES * vocabSize)));
  const isWhole = rows <= chunkRows;
  const logits = Math.min(rows, chunkRows) * vocabSize * bytes;
  const head = learnsHead ? vocabSize * hiddenSize * (isWhole ? 0 : bytes) : 0;
  return logits + head + 2 * rows * hiddenSize * bytes;
}

/** The gradient of the output head, which the loss makes in the forward pass: float32 where it sums over chunks. */
export function headGradient(text: TextConfig, load: Load): number {
  const chunkRows = Math.max(1, Math.floor((64 * 2 ** 20) / (FLOAT_BYTES * text.vocabSize)));
  const isWhole = load.batch * load.length <= chunkRows;
  return text.vocabSize * text.hiddenSize * (isWhole ? dtypeBytes(load.dtype) : FLOAT_BYTES);
}

/** The image tower over the batch's images: what it has in use at once, and what it keeps for backward where it learns. */
export function visionBytes(config: Gemma3nConfig, load: Load): { work: number; kept: number } {
  if (!config.vision || load.images === 0) return { work: 0, kept: 0 };
  const { most, all } = towerElements(decodeVisionConfig(config.vision).tower, load.imageSize);
  const each = load.images * dtypeBytes(load.dtype);
  return { work: most * each, kept: all * each };
}

/** Elements an image: the most that one block has in use, with the features that wait to be fused; and what all blocks'
 *  convolutions and norms keep of their inputs. */
function towerElements(
  tower: TowerConfig,
  imageSize: readonly [number, number],
): { most: number; all: number } {
  const plan = planTower(tower);
  const last = Math.max(...plan.fusedStages);
  let stride = 2;
  const sizeNow = () => {
    const [height, width] = [Math.ceil(imageSize[0] / stride), Math.ceil(imageSize[1] / stride)];
    return { height, width, area: height * width };
  };
  const featureOf = (channels: number) => ({ ...sizeNow(), elements: channels * sizeNow().area });

  let all = 3 * imageSize[0] * imageSize[1] + 2 * plan.stemSize * sizeNow().area;
  let most = all;
  const fused = plan.fusedStages.includes(0) ? [featureOf(plan.stemSize)] : [];
  for (const [stage, blocks] of plan.stages.slice(0, last).entries()) {
    for (const { args, inChs } of blocks) {
      const { area } = sizeNow();
      stride *= args.stride;
      const outArea = sizeNow().area;
      const kept = blockElements(args, inChs, area, outArea);
      most = Math.max(most, sumOf(fused) + inChs * area + kept + args.outChs * outArea);
      all += kept;
    }
    if (plan.fusedStages.includes(stage + 1)) fused.push(featureOf(blocks.at(-1)?.args.outChs ?? 0));
  }

  // The adapter works at the resolution of the largest feature, before it pools; then come the soft tokens' norms.
  const [outHeight, outWidth] = tower.msfaOutputResolution;
  const largest = fused[0] ?? { height: 1, width: 1, elements: 0 };
  const largestArea = largest.height * largest.width;
  const isPooled = largest.height % outHeight === 0 && largest.width % outWidth === 0;
  const held = sumOf(fused);
  const softTokens = 4 * outHeight * outWidth * VISION_FEATURES;
  const inside = largestArea * (2 * plan.fusedChs + 2 * 2 * plan.fusedChs + VISION_FEATURES);
  const pooled = largestArea * VISION_FEATURES;
  return {
    most: Math.max(most, held + inside + pooled + largestArea * plan.fusedChs + softTokens),
    all: all + inside + (isPooled ? pooled : 0) + softTokens,
  };
}

function sumOf(features: readonly { readonly elements: number }[]): number {
  return features.reduce((sum, { elements }) => sum + elements, 0);
}

/** What a block keeps: the input of each convolution and of each norm but the block's own input. */
function blockElements(args: BlockArgs, inChs: number, area: number, outArea: number): number {
  const { outChs } = args;
  const padded = args.stride > 1 ? inChs * area : 0;
  switch (args.blockType) {
    case 'er':
      return padded + (2 * expandedChs(args, inChs) + 2 * outChs) * outArea;
    case 'uir': {
      const midChs = expandedChs(args, inChs);
      const start = args.dwKernelSizeStart > 0 ? 2 * inChs : 0;
      const startArea = args.dwKernelSizeMid > 0 ? area : outArea;
      const middle = args.dwKernelSizeMid > 0 ? 2 * midChs * outArea : 0;
      const end = args.dwKernelSizeEnd > 0 ? 2 * outChs * outArea : 0;
      return padded + (start + 2 * midChs) * startArea + middle + end + 3 * outChs * outArea;
    }
    case 'mqa': {
      const heads = args.numHeads ?? inChs / args.keyDim;
      const keys = area / args.kvStride ** 2;
      const reduced = args.kvStride > 1 ? 2 * 2 * inChs : 0;
      const queries = heads * (args.keyDim + args.valueDim) * area;
      return inChs * area + queries + keys * (reduced + args.keyDim + args.valueDim) + 2 * outChs * outArea;
    }
  }
}

/** The audio tower over the batch's clips, each as long as its soft tokens allow. */
export function audioBytes(config: Gemma3nConfig, { clips, dtype }: Load): { work: number; kept: number } {
  if (!config.audio || clips === 0) return { work: 0, kept: 0 };
  const audio = decodeAudioConfig(config.audio);
  const [[firstStride], [secondStride]] = audio.sscpConvStrideSize;
  const places = config.audioSoftTokensPerImage * audio.confReductionFactor;
  const bins = binsAfter(audio);
  const elements = [0, 1].map((i) => {
    const frames = i === 0 ? places * secondStride : places;
    return frames * (bins[i] ?? 0) * (audio.sscpConvChannelSize[i] ?? 0);
  });
  const convolved = elements.reduce((sum, count) => sum + count, 0);
  const frames = places * firstStride * secondStride * audio.inputFeatSize;

  // The norms of the convolutions compute in float32: bytes an element, of 16-bit and of wider ones.
  const bytes = dtypeBytes(dtype);
  const ofNorms = bytes === 2 ? { work: 31, kept: 12 } : { work: 7 * bytes, kept: 4 * bytes };
  // A layer's clips, norms and projections, feed-forwards of four times its size among them.
  const layer = (wide: number): number => places * wide * audio.hiddenSize * bytes;
  return {
    work: clips * Math.max(frames * bytes + convolved * ofNorms.work, layer(70)),
    kept: clips * (frames * bytes + convolved * ofNorms.kept + audio.confNumHiddenLayers * layer(51)),
  };
}
