// Products of the audio tower, of the real frames of each clip: sub-sampling convolutions, conformer layers, what is kept.

import type { AudioTower } from './audio.js';
import { reachOf } from './audio-attention.js';
import { binsAfter } from './audio-config.js';
import type { ConformerBlock, ConformerFeedForward } from './audio-conformer.js';
import { localPairs } from './flops-pairs.js';
import type { Products } from './products.js';

/** @param clips frames of each clip as the processor makes them, without padding
 *  @returns frames that are kept, of all clips, and whether they need a gradient */
export function countAudio(
  products: Products,
  tower: AudioTower,
  clips: readonly number[],
): { readonly frames: number; readonly needs: boolean } {
  const { config } = tower;
  const { conv_0: first, conv_1: second, inputProjLinear } = tower.subsampleConvProjection;
  const { learning } = products;
  const [[firstStride], [secondStride]] = config.sscpConvStrideSize;
  const [firstBins, secondBins] = binsAfter(config);
  const firstFrames = clips.map((length) => Math.ceil(length / firstStride));
  const frames = firstFrames.map((length) => Math.ceil(length / secondStride));
  const { before, behind } = reachOf(config);
  const load = {
    frames: sum(frames),
    pairs: sum(frames.map((length) => localPairs(length, before, behind))),
    distances: before + 1 + behind,
  };

  let x = products.convolution(first.conv.weight, undefined, sum(firstFrames) * firstBins, false);
  x ||= learning.has(first.norm.weight);
  x = products.convolution(second.conv.weight, undefined, load.frames * secondBins, x);
  x = products.linear(inputProjLinear, load.frames, x || learning.has(second.norm.weight));
  for (const block of tower.conformer) x = countBlock(products, block, load, x);
  return { frames: sum(frames.map((length) => Math.ceil(length / config.confReductionFactor))), needs: x };
}

interface Load {
  readonly frames: number;
  readonly pairs: number;
  readonly distances: number;
}

function countBlock(products: Products, block: ConformerBlock, load: Load, x: boolean): boolean {
  const { learning } = products;
  const { frames } = load;
  x = countFeedForward(products, block.ffwLayerStart, frames, x);
  x = countAttention(products, block, load, x);

  const { lconv1d } = block;
  const { weight } = lconv1d.depthwiseConv1d;
  let y = x || learning.has(lconv1d.preLayerNorm.weight);
  y = products.linear(lconv1d.linearStart, frames, y);
  y = products.convolution(weight, undefined, frames, y) || learning.has(lconv1d.convNorm.weight);
  x = products.linear(lconv1d.linearEnd, frames, y) || x;

  return countFeedForward(products, block.ffwLayerEnd, frames, x) || learning.has(block.norm.weight);
}

function countFeedForward(
  products: Products,
  { preLayerNorm, postLayerNorm, ffwLayer_1, ffwLayer_2 }: ConformerFeedForward,
  frames: number,
  x: boolean,
): boolean {
  const { learning } = products;
  const wide = products.linear(ffwLayer_1, frames, x || learning.has(preLayerNorm.weight));
  return products.linear(ffwLayer_2, frames, wide) || x || learning.has(postLayerNorm.weight);
}

/** Queries meet keys, and the embeddings of the distances to them. */
function countAttention(
  products: Products,
  { attention: { attn, preAttnNorm, post, postNorm } }: ConformerBlock,
  { frames, pairs, distances }: Load,
  x: boolean,
): boolean {
  const { learning } = products;
  const size = attn.qProj.outFeatures;
  const given = x || learning.has(preAttnNorm.weight);
  const q = products.linear(attn.qProj, frames, given) || learning.has(attn.perDimScale);
  const k = products.linear(attn.kProj, frames, given);
  const v = products.linear(attn.vProj, frames, given);
  const places = products.linear(attn.relativePositionEmbedding.posProj, distances, false);
  const positions = products.ofPairs(pairs * size, q, places);
  const attended = products.attention(pairs * size, q, k, v, positions);
  return products.linear(post, frames, attended) || x || learning.has(postNorm.weight);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
