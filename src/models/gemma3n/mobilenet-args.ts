// What timm's `mobilenetv5_300m_enc` is built from: the arguments of its blocks, as dictionaries or in timm's block
// strings ("uir_r2_a3_k5_s2_e4_c128": kind, repeats, kernels, stride, expansion, channels), and the 300M tower itself.
// Dictionaries hold timm's keys; the blocks that MobileNet-V5 uses are er, uir and mqa, others are refused.

import { z } from '../../schema.js';
import { ACTIVATIONS, type ActivationName } from './mobilenet-layers.js';

/** Expansion convolution with stride, then a pointwise projection. */
export interface EdgeResidualArgs {
  readonly blockType: 'er';
  readonly outChs: number;
  readonly stride: number;
  readonly actLayer: ActivationName | undefined;
  readonly noskip: boolean;
  readonly expKernelSize: number;
  readonly pwKernelSize: number;
  readonly expRatio: number;
  /** 0: the block's own input channels are expanded. */
  readonly forceInChs: number;
  readonly seRatio: number;
  /** Channels a group; 0 for one group of all. */
  readonly groupSize: number;
}

/** Depthwise, expanding pointwise, depthwise, projecting pointwise, depthwise; a kernel of 0 leaves its part out. */
export interface UniversalInvertedResidualArgs {
  readonly blockType: 'uir';
  readonly outChs: number;
  readonly stride: number;
  readonly actLayer: ActivationName | undefined;
  readonly noskip: boolean;
  readonly dwKernelSizeStart: number;
  readonly dwKernelSizeMid: number;
  readonly dwKernelSizeEnd: number;
  readonly expRatio: number;
  readonly seRatio: number;
  readonly groupSize: number;
}

/** Multi-query attention over positions: many query heads, one key and value head. */
export interface MobileAttentionArgs {
  readonly blockType: 'mqa';
  readonly outChs: number;
  readonly stride: number;
  readonly actLayer: ActivationName | undefined;
  readonly noskip: boolean;
  /** Of the depthwise convolution that reduces keys and values. */
  readonly dwKernelSize: number;
  /** undefined: as many as keyDim divides the input channels. */
  readonly numHeads: number | undefined;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly queryStrides: readonly [number, number];
  readonly kvStride: number;
  /** Adds a depthwise convolution of the input as positional encoding. */
  readonly useCpe: boolean;
  readonly cpeDwKernelSize: number;
}

export type BlockArgs = EdgeResidualArgs | UniversalInvertedResidualArgs | MobileAttentionArgs;

/** timm's default where a value is null or absent. */
function or<T extends z.ZodType>(type: T, fallback: z.output<T>) {
  return type.nullish().transform((value) => value ?? fallback);
}

const natural = z.int().min(1);
const kernel = z.int().min(0);
const pair = z.union([natural.transform((n): [number, number] => [n, n]), z.tuple([natural, natural])]);
export const activation = z.enum(ACTIVATIONS);

const common = {
  out_chs: natural,
  stride: z.int().min(1).max(2, 'timm takes strides of 1 and 2').default(1),
  act_layer: activation.nullish(),
  noskip: or(z.boolean(), false),
};

const edgeResidual = z.strictObject({
  block_type: z.literal('er'),
  ...common,
  exp_kernel_size: or(natural, 3),
  pw_kernel_size: or(natural, 1),
  exp_ratio: or(z.number().positive(), 1),
  force_in_chs: or(kernel, 0),
  se_ratio: or(z.number().min(0), 0),
  group_size: or(kernel, 0),
});

const universalInvertedResidual = z.strictObject({
  block_type: z.literal('uir'),
  ...common,
  dw_kernel_size_start: or(kernel, 0),
  dw_kernel_size_mid: or(kernel, 3),
  dw_kernel_size_end: or(kernel, 0),
  exp_ratio: or(z.number().positive(), 1),
  se_ratio: or(z.number().min(0), 0),
  group_size: or(kernel, 1),
});

const mobileAttention = z.strictObject({
  block_type: z.literal('mqa'),
  ...common,
  dw_kernel_size: or(natural, 3),
  num_heads: natural.nullable().default(8),
  key_dim: or(natural, 64),
  value_dim: or(natural, 64),
  query_strides: or(pair, [1, 1]),
  kv_stride: or(natural, 1),
  use_cpe: or(z.boolean(), false),
  cpe_dw_kernel_size: or(natural, 3),
  group_size: z.int().nullish(), // timm takes it and does nothing with it
});

const block = z
  .discriminatedUnion('block_type', [edgeResidual, universalInvertedResidual, mobileAttention], {
    error: 'expected a block of type "er", "uir" or "mqa"',
  })
  .transform((args) => camelCaseKeys(args) as unknown as BlockArgs);

/** Stages of blocks, each a dictionary of timm's arguments or a block string. */
export const blockArgsSchema = z
  .array(
    z.preprocess((stage, context) => {
      if (!Array.isArray(stage)) return stage;
      return stage.flatMap((given: unknown, index): unknown[] => {
        if (typeof given !== 'string') return [given];
        const decoded = decodeBlockString(given);
        if (typeof decoded !== 'string') return decoded;
        context.addIssue({ code: 'custom', message: decoded, path: [index], input: given });
        return [];
      });
    }, z.array(block).min(1)),
  )
  .min(1);

/** `vision_config` as timm itself reads it: block strings become dictionaries, which get the keys that timm cannot do
 *  without. @param vision as given in a config.json that `decodeVisionConfig` took */
export function withBlockDictionaries(
  vision: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const args = vision['model_args'] as Readonly<Record<string, unknown>> | null | undefined;
  const stages = args?.['block_args'] as readonly (readonly (string | object)[])[] | null | undefined;
  if (!stages) return vision;
  const dictionaries = stages.map((stage) =>
    stage
      .flatMap((given) => {
        const decoded = typeof given === 'string' ? decodeBlockString(given) : [given];
        return typeof decoded === 'string' ? [given] : decoded;
      })
      .map((given) => ({ stride: 1, act_layer: null, ...(given as object) })),
  );
  return { ...vision, model_args: { ...args, block_args: dictionaries } };
}

function camelCaseKeys(args: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(args).map(([key, value]) => [
      key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
      value ?? undefined,
    ]),
  );
}

const ACTIVATION_CODES: Readonly<Record<string, ActivationName>> = {
  re: 'relu',
  r6: 'relu6',
  hs: 'hard_swish',
  sw: 'swish',
  mi: 'mish',
};

/** A block string is a few characters; what it stands for is bounded too. */
const MAX_REPEATS = 1024;

/** timm's block string -> dictionaries, one a repeat; a string says what is wrong with it. */
function decodeBlockString(text: string): Record<string, unknown>[] | string {
  const [blockType, ...parts] = text.split('_');
  const options = new Map<string, number>();
  let actLayer: ActivationName | undefined;
  let noskip = false;
  for (const part of parts) {
    if (part === 'noskip') noskip = true;
    else if (part.startsWith('n') && ACTIVATION_CODES[part.slice(1)])
      actLayer = ACTIVATION_CODES[part.slice(1)];
    else {
      const match = /^([a-z]+)(\d+(?:\.\d+)?)$/.exec(part);
      if (!match) return `expected parts such as "k3", "e4" or "noskip", found "${part}"`;
      options.set(match[1] ?? '', Number(match[2]));
    }
  }

  const kinds: Record<string, { needs: string; takes: Record<string, string> }> = {
    er: {
      needs: 'rkesc',
      takes: {
        k: 'exp_kernel_size',
        p: 'pw_kernel_size',
        e: 'exp_ratio',
        fc: 'force_in_chs',
        se: 'se_ratio',
      },
    },
    uir: {
      needs: 'rkesc',
      takes: {
        a: 'dw_kernel_size_start',
        k: 'dw_kernel_size_mid',
        p: 'dw_kernel_size_end',
        e: 'exp_ratio',
        se: 'se_ratio',
      },
    },
    mqa: { needs: 'rkshdc', takes: { k: 'dw_kernel_size', h: 'num_heads', v: 'kv_stride' } },
  };
  const kind = kinds[blockType ?? ''];
  if (!kind) return `expected a block of type "er", "uir" or "mqa", found "${blockType}"`;
  const missing = [...kind.needs].filter((key) => !options.has(key));
  if (missing.length > 0) return `expected the parts ${missing.join(', ')} too`;

  const repeats = options.get('r') ?? 1;
  if (repeats > MAX_REPEATS) return `expected at most ${MAX_REPEATS} repeats, found ${repeats}`;

  const args: Record<string, unknown> = { block_type: blockType, act_layer: actLayer ?? null, noskip };
  const takes: Record<string, string> = { ...kind.takes, c: 'out_chs', s: 'stride', gs: 'group_size' };
  for (const [key, value] of options) {
    const name = takes[key];
    if (name) args[name] = value;
    else if (blockType === 'mqa' && key === 'd') Object.assign(args, { key_dim: value, value_dim: value });
    else if (key !== 'r') return `expected no part "${key}" in a block of type "${blockType}"`;
  }
  return Array.from({ length: repeats }, () => ({ ...args }));
}

/** The stages of the 300M tower, for 768x768 pixels. */
export function defaultBlocks(): string[][] {
  const alternate = (attention: string, channels: number, times: number) =>
    Array.from({ length: times }, () => [attention, `uir_r1_a0_k0_s1_e2_c${channels}`]).flat();
  return [
    ['er_r1_k3_s2_e4_c128', 'er_r2_k3_s1_e4_c128'],
    [
      'uir_r1_a3_k5_s2_e6_c256',
      'uir_r1_a5_k0_s1_e4_c256',
      'uir_r1_a3_k0_s1_e4_c256',
      'uir_r1_a5_k0_s1_e4_c256',
      'uir_r1_a3_k0_s1_e4_c256',
    ],
    [
      'uir_r1_a5_k5_s2_e6_c640',
      'uir_r7_a5_k0_s1_e4_c640',
      'uir_r1_a0_k0_s1_e1_c640',
      ...alternate('mqa_r1_k3_h12_v2_s1_d64_c640', 640, 14),
    ],
    ['uir_r1_a5_k5_s2_e6_c1280', ...alternate('mqa_r1_k3_h16_s1_d96_c1280', 1280, 19)],
  ];
}

/** The nearest multiple of `divisor`, at least one of it and at least 90% of `value`. */
export function makeDivisible(value: number, divisor = 8): number {
  const nearest = Math.max(divisor, Math.floor(Math.trunc(value + divisor / 2) / divisor) * divisor);
  return nearest < 0.9 * value ? nearest + divisor : nearest;
}

/** Channels between a block's expansion and its projection. */
export function expandedChs(args: EdgeResidualArgs | UniversalInvertedResidualArgs, inChs: number): number {
  const from = args.blockType === 'er' && args.forceInChs > 0 ? args.forceInChs : inChs;
  return makeDivisible(from * args.expRatio);
}
