// The audio tower's weights without the tower: held under the checkpoint's names, frozen, so that a checkpoint that is
// loaded and saved keeps them. Their shapes follow the configuration, so a missing or misshapen one is still noticed.

import { Module, parameter } from '../../nn/index.js';
import { type Tensor, empty } from '../../tensor/index.js';
import type { AudioConfig } from './audio-config.js';

export class AudioWeights extends Module {
  /** By the name below `audio_tower`. Parameters are found as fields, whose names may hold dots. */
  [name: string]: unknown;

  constructor(config: AudioConfig) {
    super();
    for (const [name, shape] of audioWeightShapes(config)) {
      this[name] = parameter(empty(shape), { requiresGrad: false });
    }
  }

  /** Each weight with its name below `audio_tower`. */
  weights(): [string, Tensor][] {
    return [...this.namedParameters()];
  }
}

/** Names and shapes of every weight of the reference's Gemma3nAudioEncoder. */
export function audioWeightShapes(config: AudioConfig): [string, readonly number[]][] {
  const { hiddenSize: size, confNumAttentionHeads: heads } = config;
  const shapes: [string, readonly number[]][] = [];

  let channels = 1;
  let bins = config.inputFeatSize;
  for (const i of [0, 1] as const) {
    const [kernelTime, kernelBins] = config.sscpConvKernelSize[i];
    const next = config.sscpConvChannelSize[i];
    const prefix = `subsample_conv_projection.conv_${i}`;
    shapes.push(
      [`${prefix}.conv.weight`, [next, channels, kernelTime, kernelBins]],
      [`${prefix}.norm.weight`, [next]],
    );
    channels = next;
    bins = Math.floor((bins + 2 - kernelBins) / config.sscpConvStrideSize[i][1]) + 1;
  }
  shapes.push(['subsample_conv_projection.input_proj_linear.weight', [size, channels * bins]]);

  const headDim = Math.floor(size / heads);
  const feedForward: [string, readonly number[]][] = [
    ['pre_layer_norm', [size]],
    ['ffw_layer_1', [4 * size, size]],
    ['ffw_layer_2', [size, 4 * size]],
    ['post_layer_norm', [size]],
  ];
  for (let layer = 0; layer < config.confNumHiddenLayers; layer++) {
    const add = (path: string, shape: readonly number[]) =>
      shapes.push([`conformer.${layer}.${path}`, shape]);
    for (const [name, shape] of feedForward) add(`ffw_layer_start.${name}.weight`, shape);
    add('attention.pre_attn_norm.weight', [size]);
    add('attention.attn.per_dim_scale', [headDim]);
    add('attention.attn.relative_position_embedding.pos_proj.weight', [heads * headDim, size]);
    for (const name of ['q_proj', 'k_proj', 'v_proj'])
      add(`attention.attn.${name}.weight`, [heads * headDim, size]);
    add('attention.post.weight', [size, size]);
    add('attention.post_norm.weight', [size]);
    add('lconv1d.pre_layer_norm.weight', [size]);
    add('lconv1d.linear_start.weight', [2 * size, size]);
    add('lconv1d.depthwise_conv1d.weight', [size, 1, config.confConvKernelSize]);
    add('lconv1d.conv_norm.weight', [size]);
    add('lconv1d.linear_end.weight', [size, size]);
    for (const [name, shape] of feedForward) add(`ffw_layer_end.${name}.weight`, shape);
    add('norm.weight', [size]);
  }
  return shapes;
}
