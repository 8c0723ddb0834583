// adapter_config.json, as PEFT writes and reads it. Which modules an adapter has, and of which rank, its tensors say; the
// configuration says how they are used. What changes the computation in a way that is not known here is refused.

import { CheckpointError } from '../errors.js';
import { decode, z } from '../schema.js';
import type { Adapter } from './adapters.js';
import { isLiteral, safeExpression } from './stored-patterns.js';

const count = z
  .int()
  .positive()
  .max(2 ** 20);
const alpha = z.number().positive();

const schema = z.looseObject({
  peft_type: z.literal('LORA', 'expected "LORA"'),
  base_model_name_or_path: z.string().nullish(),
  revision: z.string().nullish(),
  r: count,
  lora_alpha: alpha,
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().default(false),
  use_dora: z.boolean().default(false),
  init_lora_weights: z.union([z.boolean(), z.string()]).default(true),
  rank_pattern: z.record(z.string(), count).nullish(),
  alpha_pattern: z.record(z.string(), alpha).nullish(),
  modules_to_save: z.array(z.string()).nullish(),
  ensure_weight_tying: z.boolean().nullish(),
});

/** What an adapter's file says of it. */
export interface StoredConfig {
  /** What it was trained on: a repository or a folder. */
  readonly base: string | undefined;
  readonly baseRevision: string | undefined;
  readonly kind: 'lora' | 'dora';
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  readonly rsLora: boolean;
  /** A and B begin at the principal parts of the weight, which are to be subtracted. */
  readonly isPissa: boolean;
  /** Names or expressions to ranks. */
  readonly rankOf: (module: string) => number;
  readonly alphaOf: (module: string) => number;
}

/** Keys that change what is computed, and what they may hold. */
const UNKNOWN_HERE: Readonly<Record<string, readonly unknown[]>> = {
  bias: ['none', 'all', 'lora_only'], // biases that learnt are tensors of the file, and go where they belong
  lora_bias: [false],
  fan_in_fan_out: [false],
  layer_replication: [],
  target_parameters: [],
  trainable_token_indices: [],
  alora_invocation_tokens: [],
  arrow_config: [],
  use_bdlora: [false],
  use_qalora: [false],
  kasa_config: [],
  monteclora_config: [],
  velora_config: [],
  ensure_weight_tying: [false],
};

/** Initialisations that leave the base as it is. Others take from it what the adapter begins with. */
const HARMLESS = ['gaussian', 'eva', 'orthogonal', 'kaiming'];

/** @param json parsed @param path for messages
 *  @throws {ConfigError} for a faulty key, {CheckpointError} for an adapter of a kind that is not known here */
export function readAdapterConfig(json: unknown, path: string): StoredConfig {
  const config = decode(schema, json, path);
  for (const [key, allowed] of Object.entries(UNKNOWN_HERE)) {
    const value = config[key];
    if (value === undefined || value === null || allowed.includes(value)) continue;
    if (Array.isArray(value) && value.length === 0) continue;
    throw unsupported(`${path}: ${key}`, allowed.length > 0 ? JSON.stringify(allowed[0]) : 'none', value);
  }
  const init = config.init_lora_weights;
  const isPissa = init === 'pissa';
  if (typeof init === 'string' && !isPissa && !HARMLESS.includes(init.toLowerCase())) {
    throw unsupported(
      `${path}: init_lora_weights`,
      'true, false, "pissa" or one that leaves the base as it is',
      init,
      'save it in PEFT with path_initial_model_for_weight_conversion, which makes a plain adapter of it',
    );
  }
  return {
    base: config.base_model_name_or_path ?? undefined,
    baseRevision: config.revision ?? undefined,
    kind: config.use_dora ? 'dora' : 'lora',
    rank: config.r,
    alpha: config.lora_alpha,
    dropout: config.lora_dropout,
    rsLora: config.use_rslora,
    isPissa,
    rankOf: byPattern(config.rank_pattern ?? {}, config.r, `${path}: rank_pattern`),
    alphaOf: byPattern(config.alpha_pattern ?? {}, config.lora_alpha, `${path}: alpha_pattern`),
  };
}

/** The first pattern that matches the end of a module's name, as PEFT looks them up. */
function byPattern(
  patterns: Readonly<Record<string, number>>,
  otherwise: number,
  where: string,
): (module: string) => number {
  const tests = Object.entries(patterns).map(([pattern, value]) => {
    const test = isLiteral(pattern)
      ? (name: string) => name === pattern || name.endsWith(`.${pattern}`)
      : safeExpression(pattern, where);
    return { test, value };
  });
  return (module) => tests.find(({ test }) => test(module))?.value ?? otherwise;
}

function unsupported(
  where: string,
  expected: string,
  received: unknown,
  remedy = 'train the adapter without it, or merge it into its base in PEFT',
): CheckpointError {
  const shown = JSON.stringify(received) ?? typeof received;
  return new CheckpointError({
    where,
    expected,
    received: shown.length > 80 ? `${shown.slice(0, 77)}...` : shown,
    remedy,
  });
}

/** adapter_config.json for an adapter. One that began as 'pissa' is written as a plain adapter of twice the rank, whose
 *  second half is what it began with, negated: it then fits the base as it is.
 *  @param base what the adapter belongs to */
export function adapterConfigText(
  { config, layers, saved }: Adapter,
  base: { readonly path?: string | undefined; readonly revision?: string | undefined } = {},
): string {
  const all = Array.from(layers, ([name, layer]) => ({ name, ...writtenSizes(layer) }));
  const rank = mostFrequent(all.map((layer) => layer.rank)) ?? config.rank;
  const alphaOfMost = mostFrequent(all.map((layer) => layer.alpha)) ?? config.alpha ?? config.rank;
  const patternOf = (key: 'rank' | 'alpha', usual: number): Record<string, number> =>
    Object.fromEntries(all.filter((layer) => layer[key] !== usual).map((layer) => [layer.name, layer[key]]));
  const modules = [...new Set(saved.map(({ name }) => name.slice(0, name.lastIndexOf('.'))))];
  const json = {
    alpha_pattern: patternOf('alpha', alphaOfMost),
    auto_mapping: null,
    base_model_name_or_path: base.path ?? null,
    bias: 'none',
    ensure_weight_tying: false,
    exclude_modules: null,
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: config.init === 'gaussian' ? 'gaussian' : true,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: alphaOfMost,
    lora_bias: false,
    lora_dropout: config.dropout,
    modules_to_save: modules.length > 0 ? modules : null,
    peft_type: 'LORA',
    r: rank,
    rank_pattern: patternOf('rank', rank),
    revision: base.revision ?? null,
    target_modules: all.map(({ name }) => name),
    task_type: 'CAUSAL_LM',
    use_dora: config.kind === 'dora',
    use_rslora: config.rsLora,
  };
  return `${JSON.stringify(json, undefined, 2)}\n`;
}

/** Rank and alpha of a layer as it is written: the scale stays what it is. */
function writtenSizes({
  options,
  start,
}: {
  options: { rank: number; alpha: number; rsLora: boolean };
  start: unknown;
}): {
  rank: number;
  alpha: number;
} {
  const { rank, alpha, rsLora } = options;
  return start ? { rank: 2 * rank, alpha: alpha * (rsLora ? Math.SQRT2 : 2) } : { rank, alpha };
}

function mostFrequent(values: readonly number[]): number | undefined {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}
