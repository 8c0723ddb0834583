// `vision_config`: the towers that timm would build, and clear refusals of those that this one cannot.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { MobileNetV5Encoder } from '../../src/models/gemma3n/mobilenet.js';
import { makeDivisible, withBlockDictionaries } from '../../src/models/gemma3n/mobilenet-args.js';
import { planTower } from '../../src/models/gemma3n/mobilenet-plan.js';
import { checkpointName } from '../../src/models/gemma3n/names.js';
import { decodeVisionConfig } from '../../src/models/gemma3n/vision-config.js';
import { withDefaults } from '../../src/tensor/index.js';
import { root } from './reference.js';

const er = { block_type: 'er', out_chs: 8, stride: 2, act_layer: null, exp_kernel_size: 3, exp_ratio: 2 };
const uir = { block_type: 'uir', out_chs: 8, stride: 2, dw_kernel_size_start: 3, exp_ratio: 2 };
const mqa = { block_type: 'mqa', out_chs: 8, stride: 1, num_heads: 2, key_dim: 4, value_dim: 4 };

const towerOf = (model_args: object) => decodeVisionConfig({ model_args }).tower;
const planOf = (model_args: object) => planTower(towerOf(model_args));

interface Shapes {
  readonly model_args: object;
  readonly parameters: number;
  readonly tensors: number;
  readonly sha256: string;
}

describe('the 300M tower and its variants', () => {
  const recorded = JSON.parse(fs.readFileSync(`${root}vision-shapes.json`, 'utf8')) as Shapes[];

  test.each(recorded)('$model_args has the parameters that timm gives it', (expected) => {
    const tower = towerOf(expected.model_args);
    const encoder = withDefaults({ device: 'meta' }, () => new MobileNetV5Encoder(tower));
    const parameters = [...encoder.namedParameters()];
    const lines = parameters
      .map(([path, { shape }]) => `${checkpointName(path)} [${shape.join(',')}]`)
      .sort();
    expect(parameters.reduce((sum, [, { numel }]) => sum + numel, 0)).toBe(expected.parameters);
    expect(lines.length).toBe(expected.tensors);
    expect(createHash('sha256').update(lines.join('\n')).digest('hex')).toBe(expected.sha256);
  });
});

describe('vision_config', () => {
  test('has the defaults of the reference, and leaves keys of other owners alone', () => {
    const config = decodeVisionConfig({
      model_type: 'gemma3n_vision',
      label_names: ['a'],
      do_pooling: false,
    });
    expect(config).toMatchObject({
      hiddenSize: 2048,
      vocabSize: 128,
      vocabOffset: 262_144,
      rmsNormEps: 1e-6,
    });
    const { blockArgs, ...tower } = config.tower;
    expect(blockArgs.map((stage) => stage.length)).toEqual([3, 5, 37, 39]);
    expect(tower).toEqual({
      inChans: 3,
      stemSize: 64,
      stemBias: true,
      fixStem: false,
      channelMultiplier: 1,
      padType: 'same',
      actLayer: 'gelu_tanh',
      layerScaleInitValue: 1e-5,
      seFromExp: true,
      msfaIndices: [-2, -1],
      msfaOutputResolution: [16, 16],
    });
  });

  test("reads timm's block strings as the dictionaries that they stand for", () => {
    const strings = ['er_r1_k3_s2_e2_c8', 'uir_r2_a3_k0_s1_e1.5_c16_nhs', 'mqa_r1_k5_h2_s1_d4_v2_c16_noskip'];
    const dictionaries = [
      { ...er, pw_kernel_size: 1 },
      ...[1, 2].map(() => ({
        block_type: 'uir',
        out_chs: 16,
        stride: 1,
        act_layer: 'hard_swish',
        dw_kernel_size_start: 3,
        dw_kernel_size_mid: 0,
        exp_ratio: 1.5,
      })),
      { ...mqa, out_chs: 16, dw_kernel_size: 5, kv_stride: 2, noskip: true },
    ];
    expect(towerOf({ block_args: [strings] }).blockArgs).toEqual(
      towerOf({ block_args: [dictionaries] }).blockArgs,
    );
  });

  test('is written with dictionaries, the only blocks that timm reads', () => {
    const model_args = {
      stem_size: 8,
      block_args: [['er_r2_k3_s2_e2_c8', { block_type: 'uir', out_chs: 8 }]],
    };
    const er2 = { block_type: 'er', act_layer: null, noskip: false, stride: 2, out_chs: 8 };
    const decoded = { ...er2, exp_kernel_size: 3, exp_ratio: 2 };
    expect(withBlockDictionaries({ hidden_size: 2048, model_args })).toEqual({
      hidden_size: 2048,
      model_args: {
        stem_size: 8,
        block_args: [[decoded, decoded, { block_type: 'uir', out_chs: 8, stride: 1, act_layer: null }]],
      },
    });
    expect(withBlockDictionaries({ model_args: { stem_size: 8 } })).toEqual({ model_args: { stem_size: 8 } });
  });

  test('takes null for absent', () => {
    expect(towerOf({ channel_multiplier: null, block_args: null, msfa_indices: null })).toEqual(towerOf({}));
  });

  test('rounds channels to multiples of eight, losing at most a tenth', () => {
    expect([1, 11, 12, 20, 91, 93].map((n) => makeDivisible(n))).toEqual([8, 16, 16, 24, 88, 96]);
    const args = { block_args: [[er, uir]], channel_multiplier: 0.5, stem_size: 12 };
    expect(planOf(args).stemSize).toBe(12); // a multiplier below one leaves the stem
    expect(planOf({ ...args, fix_stem: false }).stemSize).toBe(8);
    expect(
      planOf({ ...args, channel_multiplier: 0, block_args: [[{ ...er, out_chs: 5 }, uir]] }).fusedChs,
    ).toBe(20);
  });

  test('refuses what timm takes and this tower lacks, by name, all at once', () => {
    const decode = () =>
      decodeVisionConfig({
        architecture: 'mobilenetv5_base',
        hidden_size: 1024,
        model_args: { aa_layer: 'blur', norm_layer: 'batchnorm2d', drop_path_rate: 0.1 },
      });
    expect(decode).toThrow('config.json: vision_config: architecture: ');
    expect(decode).toThrow("hidden_size: expected 2048, the tower's features, received 1024");
    expect(decode).toThrow(
      'model_args.norm_layer: Invalid input: expected "rmsnorm2d", received "batchnorm2d"',
    );
    expect(decode).toThrow('model_args.drop_path_rate: Invalid input: expected 0, received 0.1');
    expect(decode).toThrow('config.json: vision_config: model_args.aa_layer: expected a known key');
  });

  test('refuses blocks of other kinds, and strings that it cannot read, with their place', () => {
    expect(() => towerOf({ block_args: [[er], [{ ...uir, block_type: 'ir' }]] })).toThrow(
      'model_args.block_args.1.0.block_type: expected a block of type "er", "uir" or "mqa", received {"block_type":"ir",',
    );
    expect(() => towerOf({ block_args: [[er, { ...uir, s2d: 1 }]] })).toThrow(
      'model_args.block_args.0.1.s2d',
    );
    expect(() => towerOf({ block_args: [['er_r1_k3_s2_e2_c8', 'ds_r1_k3_s1_c8']] })).toThrow(
      'model_args.block_args.0.1: expected a block of type "er", "uir" or "mqa", found "ds", received "ds_r1_k3_s1_c8"',
    );
    expect(() => towerOf({ block_args: [['uir_r1_k3_s1_c8']] })).toThrow(
      'block_args.0.0: expected the parts e too, received "uir_r1_k3_s1_c8"',
    );
    expect(() => towerOf({ block_args: [['mqa_r1_k3_s1_h2_d8_c8_e2']] })).toThrow(
      'expected no part "e" in a block of type "mqa"',
    );
  });
});

describe('a tower that timm could not build or run', () => {
  const where = 'config.json: vision_config.model_args';

  test('is refused when a strided block has no kernel to stride with', () => {
    const block = { ...uir, dw_kernel_size_start: 0, dw_kernel_size_mid: 0 };
    expect(() => planOf({ block_args: [[er], [block]] })).toThrow(
      `${where}.block_args.1.0: expected a depthwise kernel to carry the stride, received none; ` +
        'give the block a start or middle kernel',
    );
  });

  test('is refused when a stage whose output is a feature ends in attention', () => {
    expect(() => planOf({ block_args: [[er, mqa], [uir]] })).toThrow(
      `${where}.block_args.0: expected a last block of type "er" or "uir", since its output is a feature, ` +
        'received "mqa", of which timm cannot tell the channels; end the stage with a "uir" block',
    );
  });

  test('is refused when it has no such feature, or the features it picks have other channels', () => {
    expect(() => planOf({ block_args: [[er]], msfa_indices: [-3, -1] })).toThrow(
      `${where}.msfa_indices: expected features among the 2 of this tower, received [-3,-1]`,
    );
    const stages = [[{ ...er, stride: 1 }], [{ ...uir, out_chs: 16 }], [{ ...uir, out_chs: 24 }]];
    expect(() => planOf({ block_args: stages })).toThrow(
      `${where}.msfa_indices: expected stages 1, 2 (0 is the stem) with 40 channels together, received 24 channels`,
    );
  });

  test('is refused when groups do not divide its channels', () => {
    expect(() => planOf({ block_args: [[{ ...er, group_size: 6 }]] })).toThrow(
      `${where}.block_args.0.0: expected a group_size whose groups divide 128 channels, received 6`,
    );
  });
});
