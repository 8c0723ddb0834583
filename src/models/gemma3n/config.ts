// Hugging Face's config.json of Gemma 3n -> a typed, checked configuration. Defaults are the reference's.
// Unknown keys are left alone: `raw` keeps the object as read, for writing it back.
// The vision and audio parts are carried here as they are; their own files decode them.

import { ConfigError, describeFault } from '../../errors.js';
import { decode, z } from '../../schema.js';

export type LayerType = 'sliding_attention' | 'full_attention';
export type Activation = 'gelu_pytorch_tanh' | 'gelu' | 'silu' | 'relu';

/** Rotary embedding of one kind of layer: angle = position / factor / theta^(2i/headDim). */
export interface RopeConfig {
  readonly theta: number;
  readonly factor: number;
}

/** The text tower. Lists have an entry a layer. */
export interface TextConfig {
  readonly vocabSize: number;
  /** Rows of the per-layer embedding table; ids beyond it take row 0. */
  readonly vocabSizePerLayerInput: number;
  readonly hiddenSize: number;
  readonly hiddenSizePerLayerInput: number;
  readonly intermediateSize: readonly number[];
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly hiddenActivation: Activation;
  readonly rmsNormEps: number;
  readonly attentionBias: boolean;
  readonly attentionDropout: number;
  /** Positions that a sliding layer sees, its own included. */
  readonly slidingWindow: number;
  /** The context: tokens of a prompt and its answer together. */
  readonly maxPositionEmbeddings: number;
  readonly layerTypes: readonly LayerType[];
  readonly rope: Readonly<Record<LayerType, RopeConfig>>;
  /** The last so many layers have no keys and values of their own. */
  readonly numKvSharedLayers: number;
  /** The layer whose keys and values each layer attends to: its own index, or the last unshared layer of its kind. */
  readonly kvSources: readonly number[];
  readonly laurelRank: number;
  readonly altupNumInputs: number;
  readonly altupActiveIdx: number;
  readonly altupCorrectScale: boolean;
  readonly altupCoefClip: number | undefined;
  /** Share of the gate's units that are cut to zero, assuming that they are normally distributed; 0 cuts none. */
  readonly activationSparsityPattern: readonly number[];
  readonly finalLogitSoftcapping: number | undefined;
  readonly initializerRange: number;
  readonly padTokenId: number | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  readonly tieWordEmbeddings: boolean;
}

/** A whole config.json: `kind` is 'text' for Gemma3nForCausalLM, 'multimodal' for Gemma3nForConditionalGeneration. */
export interface Gemma3nConfig {
  readonly kind: 'text' | 'multimodal';
  readonly text: TextConfig;
  /** `vision_config` and `audio_config` as read; undefined where the file has none. */
  readonly vision: JsonObject | undefined;
  readonly audio: JsonObject | undefined;
  readonly visionSoftTokensPerImage: number;
  readonly audioSoftTokensPerImage: number;
  readonly imageTokenId: number;
  readonly audioTokenId: number;
  readonly boiTokenId: number;
  readonly eoiTokenId: number;
  readonly boaTokenId: number;
  readonly eoaTokenId: number;
  readonly raw: JsonObject;
}

export type JsonObject = Readonly<Record<string, unknown>>;

/** No dimension of a model that could be built is larger; a stranger's config.json may not make us reckon with more. */
const count = z
  .int()
  .min(1)
  .max(2 ** 24);
const layers = z.int().min(1).max(1024);
const tokenId = z.int().min(0);
const layerType = z.enum(['sliding_attention', 'full_attention']);
const jsonObject = z.record(z.string(), z.unknown());

const ropeSchema = z.looseObject({
  rope_theta: z.number().positive().optional(),
  rope_type: z.enum(['default', 'linear']).optional(),
  type: z.enum(['default', 'linear']).optional(),
  factor: z.number().positive().nullish(),
});

const textSchema = z.looseObject({
  vocab_size: count.default(262_400),
  vocab_size_per_layer_input: count.default(262_144),
  hidden_size: count.default(2048),
  hidden_size_per_layer_input: count.default(256),
  intermediate_size: z.union([count, z.array(count)]).default(16_384),
  num_hidden_layers: layers.default(35),
  num_attention_heads: count.default(8),
  num_key_value_heads: count.default(2),
  head_dim: count.multipleOf(2).default(256),
  hidden_activation: z.enum(['gelu_pytorch_tanh', 'gelu', 'silu', 'relu']).default('gelu_pytorch_tanh'),
  rms_norm_eps: z.number().positive().default(1e-6),
  attention_bias: z.boolean().default(false),
  attention_dropout: z
    .number()
    .min(0)
    .lt(1)
    .nullish()
    .transform((rate) => rate ?? 0),
  sliding_window: count.default(512),
  max_position_embeddings: count.default(32_768),
  layer_types: z.array(layerType).nullish(),
  rope_parameters: z
    .looseObject({ sliding_attention: ropeSchema.nullish(), full_attention: ropeSchema.nullish() })
    .nullish(),
  rope_theta: z.number().positive().default(1_000_000),
  rope_local_base_freq: z.number().positive().default(10_000),
  rope_scaling: ropeSchema.nullish(),
  num_kv_shared_layers: z.int().min(0).default(15),
  laurel_rank: count.default(64),
  altup_num_inputs: count.max(64).default(4),
  altup_active_idx: z.int().min(0).default(0),
  altup_correct_scale: z.boolean().default(true),
  altup_coef_clip: z.number().positive().nullable().default(120),
  activation_sparsity_pattern: z.array(z.number().min(0).lt(1)).nullish(),
  final_logit_softcapping: z.number().positive().nullable().default(30),
  initializer_range: z.number().positive().default(0.02),
  pad_token_id: tokenId.nullable().default(0),
  bos_token_id: tokenId.nullable().default(2),
  eos_token_id: z
    .union([tokenId, z.array(tokenId)])
    .nullable()
    .default(1),
  tie_word_embeddings: z.boolean().default(true),
});

const topSchema = z.looseObject({
  model_type: z.enum(['gemma3n', 'gemma3n_text']).optional(),
  text_config: jsonObject.nullish(),
  vision_config: jsonObject.nullish(),
  audio_config: jsonObject.nullish(),
  vision_soft_tokens_per_image: count.default(256),
  audio_soft_tokens_per_image: count.default(188),
  image_token_id: tokenId.default(262_145),
  audio_token_id: tokenId.default(262_273),
  boi_token_id: tokenId.default(255_999),
  eoi_token_id: tokenId.default(262_144),
  boa_token_id: tokenId.default(256_000),
  eoa_token_id: tokenId.default(262_272),
  tie_word_embeddings: z.boolean().nullish(),
  eos_token_id: z.unknown().optional(),
});

/** Decodes a config.json, nested (`text_config` and others) or a bare text configuration.
 *  @param where its name in messages
 *  @throws {ConfigError} every value out of range, or every contradiction, a line each with its key */
export function decodeConfig(json: unknown, where = 'config.json'): Gemma3nConfig {
  refuseOtherFamily(json, where);
  const top = decode(topSchema, json, where);
  const { text_config: nested, vision_config: vision, audio_config: audio } = top;
  const isNested = nested != null || vision != null || audio != null || top.model_type === 'gemma3n';

  let textJson = json as JsonObject;
  if (isNested) {
    textJson = { ...nested, tie_word_embeddings: top.tie_word_embeddings ?? true };
    if (top.eos_token_id != null) textJson = { ...textJson, eos_token_id: top.eos_token_id };
  }
  return {
    kind: isNested ? 'multimodal' : 'text',
    text: decodeTextConfig(textJson, isNested ? `${where}: text_config` : where),
    vision: vision ?? undefined,
    audio: audio ?? undefined,
    visionSoftTokensPerImage: top.vision_soft_tokens_per_image,
    audioSoftTokensPerImage: top.audio_soft_tokens_per_image,
    imageTokenId: top.image_token_id,
    audioTokenId: top.audio_token_id,
    boiTokenId: top.boi_token_id,
    eoiTokenId: top.eoi_token_id,
    boaTokenId: top.boa_token_id,
    eoaTokenId: top.eoa_token_id,
    raw: json as JsonObject,
  };
}

/** Of another model every other key would be a fault too. */
function refuseOtherFamily(json: unknown, where: string): void {
  const { model_type: type, architectures } = (json ?? {}) as JsonObject;
  const named = type ?? (Array.isArray(architectures) ? (architectures as unknown[])[0] : undefined);
  if (typeof named !== 'string' || /^(gemma3n(_text)?|Gemma3n\w*)$/.test(named)) return;
  throw new ConfigError({
    where: `${where}: ${type === undefined ? 'architectures' : 'model_type'}`,
    expected: 'gemma3n, or gemma3n_text: a model of the Gemma 3n family',
    received: JSON.stringify(named.slice(0, 80)),
    remedy: 'use a checkpoint of Gemma 3n, such as google/gemma-3n-E2B-it',
  });
}

/** Decodes a text configuration alone; see `decodeConfig`. */
export function decodeTextConfig(json: unknown, where = 'config.json'): TextConfig {
  const c = decode(textSchema, json, where);
  const numLayers = c.num_hidden_layers;
  const numSparse = numLayers > 10 ? 10 : 0;
  const layerTypes =
    c.layer_types ??
    Array.from({ length: numLayers }, (_, i): LayerType =>
      (i + 1) % 5 ? 'sliding_attention' : 'full_attention',
    );
  const intermediateSize = Array.isArray(c.intermediate_size)
    ? c.intermediate_size
    : new Array<number>(numLayers).fill(c.intermediate_size);
  const sparsity =
    c.activation_sparsity_pattern ?? Array.from({ length: numLayers }, (_, i) => (i < numSparse ? 0.95 : 0));

  const config: TextConfig = {
    vocabSize: c.vocab_size,
    vocabSizePerLayerInput: c.vocab_size_per_layer_input,
    hiddenSize: c.hidden_size,
    hiddenSizePerLayerInput: c.hidden_size_per_layer_input,
    intermediateSize,
    numHiddenLayers: numLayers,
    numAttentionHeads: c.num_attention_heads,
    numKeyValueHeads: c.num_key_value_heads,
    headDim: c.head_dim,
    hiddenActivation: c.hidden_activation,
    rmsNormEps: c.rms_norm_eps,
    attentionBias: c.attention_bias,
    attentionDropout: c.attention_dropout,
    slidingWindow: c.sliding_window,
    maxPositionEmbeddings: c.max_position_embeddings,
    layerTypes,
    rope: {
      sliding_attention: ropeOf(c.rope_parameters?.sliding_attention, c.rope_local_base_freq),
      full_attention: ropeOf({ ...c.rope_parameters?.full_attention, ...c.rope_scaling }, c.rope_theta),
    },
    numKvSharedLayers: c.num_kv_shared_layers,
    kvSources: kvSourcesOf(layerTypes, numLayers - c.num_kv_shared_layers),
    laurelRank: c.laurel_rank,
    altupNumInputs: c.altup_num_inputs,
    altupActiveIdx: c.altup_active_idx,
    altupCorrectScale: c.altup_correct_scale,
    altupCoefClip: c.altup_coef_clip ?? undefined,
    activationSparsityPattern: sparsity,
    finalLogitSoftcapping: c.final_logit_softcapping ?? undefined,
    initializerRange: c.initializer_range,
    padTokenId: c.pad_token_id ?? undefined,
    bosTokenId: c.bos_token_id ?? undefined,
    eosTokenIds: c.eos_token_id == null ? [] : [c.eos_token_id].flat(),
    tieWordEmbeddings: c.tie_word_embeddings,
  };
  refuseContradictions(config, where);
  return config;
}

/** Whether a layer attends to another layer's keys and values. Such a layer has no k/v weights that count. */
export function sharesKv(config: TextConfig, layer: number): boolean {
  return config.kvSources[layer] !== layer;
}

function ropeOf(given: z.output<typeof ropeSchema> | null | undefined, defaultTheta: number): RopeConfig {
  const isLinear = (given?.rope_type ?? given?.type) === 'linear';
  return { theta: given?.rope_theta ?? defaultTheta, factor: isLinear ? (given?.factor ?? 1) : 1 };
}

/** -1 where a sharing layer finds no unshared layer of its kind. */
function kvSourcesOf(layerTypes: readonly LayerType[], numUnshared: number): number[] {
  return layerTypes.map((type, i) =>
    i < numUnshared ? i : layerTypes.slice(0, Math.max(numUnshared, 0)).lastIndexOf(type),
  );
}

function refuseContradictions(c: TextConfig, where: string): void {
  const faults: string[] = [];
  const require = (
    holds: boolean,
    key: string,
    expected: string,
    received: unknown,
    remedy: string,
  ): void => {
    if (!holds)
      faults.push(describeFault({ where: `${where}: ${key}`, expected, received: String(received), remedy }));
  };
  const perLayer = (key: string, list: readonly unknown[]): void =>
    require(list.length ===
      c.numHiddenLayers, key, `${c.numHiddenLayers} entries, one a layer (num_hidden_layers)`, `${list.length}`, 'give one entry a layer');

  perLayer('layer_types', c.layerTypes);
  perLayer('intermediate_size', c.intermediateSize);
  perLayer('activation_sparsity_pattern', c.activationSparsityPattern);
  require(c.numAttentionHeads % c.numKeyValueHeads ===
    0, 'num_key_value_heads', `a divisor of num_attention_heads (${c.numAttentionHeads})`, c.numKeyValueHeads, 'every key/value head serves an equal group of query heads');
  require(c.hiddenSize % c.numAttentionHeads ===
    0, 'hidden_size', `a multiple of num_attention_heads (${c.numAttentionHeads})`, c.hiddenSize, 'the reference refuses it too');
  require(c.altupActiveIdx <
    c.altupNumInputs, 'altup_active_idx', `less than altup_num_inputs (${c.altupNumInputs})`, c.altupActiveIdx, 'choose one of the AltUp inputs');
  require(c.padTokenId === undefined ||
    c.padTokenId <
      Math.min(
        c.vocabSize,
        c.vocabSizePerLayerInput,
      ), 'pad_token_id', `an id of both embedding tables (below ${Math.min(c.vocabSize, c.vocabSizePerLayerInput)})`, c.padTokenId, 'choose a smaller id, or null');
  if (c.numKvSharedLayers >= c.numHiddenLayers) {
    require(false, 'num_kv_shared_layers', `less than num_hidden_layers (${c.numHiddenLayers})`, c.numKvSharedLayers, 'at least one layer of each kind must keep its own keys and values');
  } else {
    const orphan = c.kvSources.indexOf(-1);
    require(orphan <
      0, 'num_kv_shared_layers', `an unshared ${c.layerTypes[orphan]} layer among the first ${c.numHiddenLayers - c.numKvSharedLayers} layers`, `layer ${orphan} with nothing to share`, 'share fewer layers or change layer_types');
  }
  if (faults.length > 0) throw new ConfigError(faults.join('\n'));
}
