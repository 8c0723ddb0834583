// `audio_config` of config.json. The audio tower itself is not built yet: its hard tokens are embedded, its weights are
// held to be written back unchanged.

import { decode, z } from '../../schema.js';

export interface AudioConfig {
  readonly hiddenSize: number;
  /** Hard tokens of this modality: ids vocabOffset ... vocabOffset + vocabSize - 1. */
  readonly vocabSize: number;
  readonly vocabOffset: number;
  readonly rmsNormEps: number;
  /** Mel bins. */
  readonly inputFeatSize: number;
  readonly confNumHiddenLayers: number;
  readonly confNumAttentionHeads: number;
  readonly confConvKernelSize: number;
  /** Of the two convolutions that shorten the input: channels, [time, frequency] kernels and strides. */
  readonly sscpConvChannelSize: readonly [number, number];
  readonly sscpConvKernelSize: readonly [readonly [number, number], readonly [number, number]];
  readonly sscpConvStrideSize: readonly [readonly [number, number], readonly [number, number]];
}

const natural = z.int().min(1);
const pair = z.tuple([natural, natural]);

const audioSchema = z.looseObject({
  hidden_size: natural.default(1536),
  vocab_size: natural.default(128),
  vocab_offset: z.int().min(0).default(262_272),
  rms_norm_eps: z.number().positive().default(1e-6),
  input_feat_size: natural.default(128),
  conf_num_hidden_layers: z.int().min(0).default(12),
  conf_num_attention_heads: natural.default(8),
  conf_conv_kernel_size: natural.default(5),
  sscp_conv_channel_size: pair.default([128, 32]),
  sscp_conv_kernel_size: z.tuple([pair, pair]).default([
    [3, 3],
    [3, 3],
  ]),
  sscp_conv_stride_size: z.tuple([pair, pair]).default([
    [2, 2],
    [2, 2],
  ]),
});

/** @throws {ConfigError} every fault, a line each with its key */
export function decodeAudioConfig(json: unknown, where = 'config.json: audio_config'): AudioConfig {
  const config = decode(audioSchema, json, where);
  return {
    hiddenSize: config.hidden_size,
    vocabSize: config.vocab_size,
    vocabOffset: config.vocab_offset,
    rmsNormEps: config.rms_norm_eps,
    inputFeatSize: config.input_feat_size,
    confNumHiddenLayers: config.conf_num_hidden_layers,
    confNumAttentionHeads: config.conf_num_attention_heads,
    confConvKernelSize: config.conf_conv_kernel_size,
    sscpConvChannelSize: config.sscp_conv_channel_size,
    sscpConvKernelSize: config.sscp_conv_kernel_size,
    sscpConvStrideSize: config.sscp_conv_stride_size,
  };
}
