// `audio_config` of config.json -> the audio tower's checked definition: a Universal Speech Model (arXiv:2303.01037).

import { ConfigError, describeFault } from '../../errors.js';
import { decode, z } from '../../schema.js';

export interface AudioConfig {
  readonly hiddenSize: number;
  /** Hard tokens of this modality: ids vocabOffset ... vocabOffset + vocabSize - 1. */
  readonly vocabSize: number;
  readonly vocabOffset: number;
  readonly rmsNormEps: number;
  /** Mel bins. */
  readonly inputFeatSize: number;
  /** Activations are clamped to +-this at some places of a layer, whatever the name says. */
  readonly gradientClipping: number;
  /** Queries that attend together. */
  readonly confAttentionChunkSize: number;
  /** Frames that a frame sees to its left, its own included; 0 is 1. */
  readonly confAttentionContextLeft: number;
  /** Frames that a frame sees to its right. */
  readonly confAttentionContextRight: number;
  readonly confAttentionLogitCap: number;
  readonly confNumAttentionHeads: number;
  readonly confNumHiddenLayers: number;
  readonly confConvKernelSize: number;
  /** Of the tower's frames, one in so many is kept. */
  readonly confReductionFactor: number;
  /** What a feed-forward's result is multiplied by. */
  readonly confResidualWeight: number;
  /** Of the two convolutions that shorten the input: channels, [time, frequency] kernels and strides. */
  readonly sscpConvChannelSize: readonly [number, number];
  readonly sscpConvGroupNormEps: number;
  readonly sscpConvKernelSize: readonly [Extent, Extent];
  readonly sscpConvStrideSize: readonly [Extent, Extent];
}

/** [time, frequency] */
export type Extent = readonly [number, number];

/** Zeros before and behind the mel bins, whatever the kernel. */
export const FREQUENCY_PADDING = 1;

// A stranger's config.json may not make us reckon with more.
const count = z
  .int()
  .min(1)
  .max(2 ** 20);
const frames = z
  .int()
  .min(0)
  .max(2 ** 16);
const small = z.int().min(1).max(1024);
const pair = z.tuple([small, small]);

const audioSchema = z.looseObject({
  hidden_size: count.default(1536),
  vocab_size: count.default(128),
  vocab_offset: z.int().min(0).default(262_272),
  rms_norm_eps: z.number().positive().default(1e-6),
  input_feat_size: count.default(128),
  gradient_clipping: z.number().positive().default(1e10),
  conf_attention_chunk_size: frames.min(1).default(12),
  conf_attention_context_left: frames.default(13),
  conf_attention_context_right: frames.default(0),
  conf_attention_logit_cap: z.number().positive().default(50),
  conf_num_attention_heads: count.default(8),
  conf_num_hidden_layers: z.int().min(0).max(1024).default(12),
  conf_conv_kernel_size: small.default(5),
  conf_reduction_factor: small.default(4),
  conf_residual_weight: z.number().default(0.5),
  sscp_conv_channel_size: z.tuple([count, count]).default([128, 32]),
  sscp_conv_group_norm_eps: z.number().positive().default(1e-3),
  sscp_conv_kernel_size: z.tuple([pair, pair]).default([
    [3, 3],
    [3, 3],
  ]),
  sscp_conv_stride_size: z.tuple([pair, pair]).default([
    [2, 2],
    [2, 2],
  ]),
});

/** Decodes `audio_config`. Keys beside those of the reference's Gemma3nAudioConfig are left alone.
 *  @throws {ConfigError} every fault, a line each with its key */
export function decodeAudioConfig(json: unknown, where = 'config.json: audio_config'): AudioConfig {
  const config = decode(audioSchema, json, where);
  const decoded: AudioConfig = {
    hiddenSize: config.hidden_size,
    vocabSize: config.vocab_size,
    vocabOffset: config.vocab_offset,
    rmsNormEps: config.rms_norm_eps,
    inputFeatSize: config.input_feat_size,
    gradientClipping: config.gradient_clipping,
    confAttentionChunkSize: config.conf_attention_chunk_size,
    confAttentionContextLeft: config.conf_attention_context_left,
    confAttentionContextRight: config.conf_attention_context_right,
    confAttentionLogitCap: config.conf_attention_logit_cap,
    confNumAttentionHeads: config.conf_num_attention_heads,
    confNumHiddenLayers: config.conf_num_hidden_layers,
    confConvKernelSize: config.conf_conv_kernel_size,
    confReductionFactor: config.conf_reduction_factor,
    confResidualWeight: config.conf_residual_weight,
    sscpConvChannelSize: config.sscp_conv_channel_size,
    sscpConvGroupNormEps: config.sscp_conv_group_norm_eps,
    sscpConvKernelSize: config.sscp_conv_kernel_size,
    sscpConvStrideSize: config.sscp_conv_stride_size,
  };
  refuseContradictions(decoded, where);
  return decoded;
}

/** Mel bins that are left after each of the two convolutions. */
export function binsAfter(config: AudioConfig): [number, number] {
  const bins = [config.inputFeatSize, 0, 0] as [number, number, number];
  for (const i of [0, 1] as const) {
    const [[, kernel], [, stride]] = [config.sscpConvKernelSize[i], config.sscpConvStrideSize[i]];
    bins[i + 1] = Math.floor((bins[i] + 2 * FREQUENCY_PADDING - kernel) / stride) + 1;
  }
  return [bins[1], bins[2]];
}

/** Frames of the input to one of the tower's, before the reduction. */
export function subSampling({ sscpConvStrideSize: [[first], [second]] }: AudioConfig): number {
  return first * second;
}

function refuseContradictions(config: AudioConfig, where: string): void {
  const { hiddenSize: size, confNumAttentionHeads: heads, inputFeatSize, sscpConvKernelSize } = config;
  const faults: string[] = [];
  const fault = (key: string, expected: string, received: string, remedy: string): void => {
    faults.push(describeFault({ where: `${where}: ${key}`, expected, received, remedy }));
  };

  if (size % heads !== 0) {
    const multiple = `a multiple of conf_num_attention_heads (${heads})`;
    fault('hidden_size', multiple, String(size), 'heads share it equally');
  }
  if (size % 2 !== 0) {
    fault('hidden_size', 'an even number', String(size), 'positions are embedded as sines and cosines');
  }
  const bins = [inputFeatSize, ...binsAfter(config)];
  const narrow = bins.findIndex((left) => left < 1);
  if (narrow > 0) {
    const before = bins[narrow - 1] ?? 0;
    const widest = before + 2 * FREQUENCY_PADDING;
    fault(
      `sscp_conv_kernel_size.${narrow - 1}.1`,
      `at most ${widest}: ${before} bins and ${FREQUENCY_PADDING} more at each end`,
      String(sscpConvKernelSize[narrow - 1]?.[1]),
      'narrow the kernel, or lower the strides before it',
    );
  }
  if (faults.length > 0) throw new ConfigError(faults.join('\n'));
}
