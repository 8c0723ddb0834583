// What an `audio_config` means, and what is refused.

import { describe, expect, test } from 'vitest';
import { AudioTower } from '../../src/models/gemma3n/audio.js';
import { decodeAudioConfig } from '../../src/models/gemma3n/audio-config.js';
import { withDefaults } from '../../src/tensor/index.js';

const faults = (json: unknown): string[] => {
  try {
    decodeAudioConfig(json);
  } catch (error) {
    return (error as Error).message.split('\n');
  }
  return [];
};

describe('audio_config', () => {
  test('has the defaults of the reference, of the published tower', () => {
    expect(decodeAudioConfig({})).toEqual({
      hiddenSize: 1536,
      vocabSize: 128,
      vocabOffset: 262_272,
      rmsNormEps: 1e-6,
      inputFeatSize: 128,
      gradientClipping: 1e10,
      confAttentionChunkSize: 12,
      confAttentionContextLeft: 13,
      confAttentionContextRight: 0,
      confAttentionLogitCap: 50,
      confNumAttentionHeads: 8,
      confNumHiddenLayers: 12,
      confConvKernelSize: 5,
      confReductionFactor: 4,
      confResidualWeight: 0.5,
      sscpConvChannelSize: [128, 32],
      sscpConvGroupNormEps: 1e-3,
      sscpConvKernelSize: [
        [3, 3],
        [3, 3],
      ],
      sscpConvStrideSize: [
        [2, 2],
        [2, 2],
      ],
    });
    // Counted in transformers: sum(p.numel() for p in Gemma3nAudioEncoder(Gemma3nAudioConfig()).parameters())
    const tower = withDefaults({ device: 'meta' }, () => new AudioTower(decodeAudioConfig({})));
    let numParameters = 0;
    for (const [, parameter] of tower.namedParameters()) numParameters += parameter.numel;
    expect(numParameters).toBe(681_348_640);
  });

  test('leaves keys of other programs alone', () => {
    expect(decodeAudioConfig({ model_type: 'gemma3n_audio', torch_dtype: 'bfloat16' }).hiddenSize).toBe(1536);
  });

  test('names every value out of range', () => {
    expect(
      faults({
        conf_attention_chunk_size: 0,
        conf_attention_context_left: -1,
        conf_attention_context_right: 1.5,
        conf_attention_logit_cap: 0,
        conf_reduction_factor: 0,
        gradient_clipping: -1,
        sscp_conv_kernel_size: [[3, 3]],
        sscp_conv_stride_size: [
          [2, 0],
          [2, 2],
        ],
        sscp_conv_group_norm_eps: 'small',
      }).map((line) => line.split(': ')[2]),
    ).toEqual([
      'gradient_clipping',
      'conf_attention_chunk_size',
      'conf_attention_context_left',
      'conf_attention_context_right',
      'conf_attention_logit_cap',
      'conf_reduction_factor',
      'sscp_conv_group_norm_eps',
      'sscp_conv_kernel_size',
      'sscp_conv_stride_size.0.1',
    ]);
  });

  test('names every contradiction', () => {
    expect(faults({ hidden_size: 21, conf_num_attention_heads: 8 })).toEqual([
      'config.json: audio_config: hidden_size: expected a multiple of conf_num_attention_heads (8), received 21; ' +
        'heads share it equally',
      'config.json: audio_config: hidden_size: expected an even number, received 21; ' +
        'positions are embedded as sines and cosines',
    ]);
    const kernels = (first: number, second: number) => ({
      input_feat_size: 8,
      sscp_conv_kernel_size: [
        [3, first],
        [3, second],
      ],
    });
    expect(faults(kernels(11, 3))).toEqual([
      'config.json: audio_config: sscp_conv_kernel_size.0.1: expected at most 10: 8 bins and 1 more at each end, ' +
        'received 11; narrow the kernel, or lower the strides before it',
    ]);
    expect(faults(kernels(10, 4))).toEqual([
      'config.json: audio_config: sscp_conv_kernel_size.1.1: expected at most 3: 1 bins and 1 more at each end, ' +
        'received 4; narrow the kernel, or lower the strides before it',
    ]);
    expect(faults(kernels(10, 3))).toEqual([]);
  });
});
