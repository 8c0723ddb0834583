// `vision_config` of config.json -> the image tower's checked definition. `model_args` are the keyword arguments that
// the reference hands to timm's `mobilenetv5_300m_enc`; what this tower lacks (other norms, anti-aliasing, stochastic
// depth, other blocks) is refused by name. Without model_args it is the 300M tower.

import { decode, z } from '../../schema.js';
import { type BlockArgs, activation, blockArgsSchema, defaultBlocks } from './mobilenet-args.js';
import type { ActivationName, PadType } from './mobilenet-layers.js';

/** Channels of the fused features, whatever the tower's own widths. */
export const VISION_FEATURES = 2048;

export interface TowerConfig {
  readonly inChans: number;
  readonly stemSize: number;
  readonly stemBias: boolean;
  /** The stem's channels are not multiplied. */
  readonly fixStem: boolean;
  readonly channelMultiplier: number;
  readonly blockArgs: readonly (readonly BlockArgs[])[];
  readonly padType: PadType;
  readonly actLayer: ActivationName;
  readonly layerScaleInitValue: number;
  /** Squeezed channels are counted from a block's expanded channels. */
  readonly seFromExp: boolean;
  /** Features that are fused: places from the first or (negative) the last, or the number of last ones. */
  readonly msfaIndices: number | readonly number[];
  /** Height and width of the fused features. */
  readonly msfaOutputResolution: readonly [number, number];
}

export interface VisionConfig {
  /** Of the soft tokens before projection. */
  readonly hiddenSize: number;
  /** Hard tokens of this modality: ids vocabOffset ... vocabOffset + vocabSize - 1. */
  readonly vocabSize: number;
  readonly vocabOffset: number;
  readonly rmsNormEps: number;
  readonly tower: TowerConfig;
}

const natural = z.int().min(1);
const ignored = z.unknown().optional(); // what timm drops for this encoder

const modelArgsSchema = z.strictObject({
  channel_multiplier: z.number().min(0).nullish(),
  group_size: z.int().min(0).nullish(),
  block_args: blockArgsSchema.nullish(),
  in_chans: natural.nullish(),
  stem_size: natural.nullish(),
  stem_bias: z.boolean().nullish(),
  fix_stem: z.boolean().nullish(),
  pad_type: z.enum(['same', 'valid', '']).nullish(),
  msfa_indices: z.union([natural.max(1024), z.array(z.int()).min(1)]).nullish(),
  msfa_output_resolution: z
    .union([natural.transform((n): [number, number] => [n, n]), z.tuple([natural, natural])])
    .nullish(),
  act_layer: activation.nullish(),
  norm_layer: z.literal('rmsnorm2d').nullish(),
  layer_scale_init_value: z.number().nullish(),
  se_from_exp: z.boolean().nullish(),
  drop_path_rate: z.literal(0).nullish(),
  drop_rate: ignored,
  num_features: ignored,
  global_pool: ignored,
  head_conv: ignored,
  head_bias: ignored,
  head_norm: ignored,
});

const visionSchema = z.looseObject({
  architecture: z.literal('mobilenetv5_300m_enc').default('mobilenetv5_300m_enc'),
  hidden_size: z
    .literal(VISION_FEATURES, { error: `expected ${VISION_FEATURES}, the tower's features` })
    .default(VISION_FEATURES),
  vocab_size: natural.default(128),
  vocab_offset: z.int().min(0).default(262_144),
  rms_norm_eps: z.number().positive().default(1e-6),
  model_args: modelArgsSchema.nullish(),
});

/** Decodes `vision_config`. Keys beside those of the reference's Gemma3nVisionConfig are left alone, `model_args`
 *  may hold only arguments that this tower implements.
 *  @throws {ConfigError} every fault, a line each with its key */
export function decodeVisionConfig(json: unknown, where = 'config.json: vision_config'): VisionConfig {
  const config = decode(visionSchema, json, where);
  const args = config.model_args ?? {};
  const channelMultiplier = args.channel_multiplier ?? 1;
  return {
    hiddenSize: config.hidden_size,
    vocabSize: config.vocab_size,
    vocabOffset: config.vocab_offset,
    rmsNormEps: config.rms_norm_eps,
    tower: {
      inChans: args.in_chans ?? 3,
      stemSize: args.stem_size ?? 64,
      stemBias: args.stem_bias ?? true,
      fixStem: args.fix_stem ?? channelMultiplier < 1,
      channelMultiplier,
      blockArgs: args.block_args ?? defaultBlockArgs(args.group_size ?? undefined, where),
      padType: args.pad_type ?? 'same',
      actLayer: args.act_layer ?? 'gelu_tanh',
      layerScaleInitValue: args.layer_scale_init_value ?? 1e-5,
      seFromExp: args.se_from_exp ?? true,
      msfaIndices: args.msfa_indices ?? [-2, -1],
      msfaOutputResolution: args.msfa_output_resolution ?? [16, 16],
    },
  };
}

/** `group_size` reaches the built-in definition alone, as in timm. */
function defaultBlockArgs(groupSize: number | undefined, where: string): BlockArgs[][] {
  const stages = decode(blockArgsSchema, defaultBlocks(), where);
  if (groupSize === undefined) return stages;
  return stages.map((stage) => stage.map((args) => ('groupSize' in args ? { ...args, groupSize } : args)));
}
