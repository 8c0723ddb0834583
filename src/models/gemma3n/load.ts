// Models from folders as Hugging Face lays them out, and models of random weights.

import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { engineDType, openWeights, readFault } from '../../checkpoint/index.js';
import { PROCESSOR_FILES } from '../../data/processor-files.js';
import { CheckpointError, ConfigError } from '../../errors.js';
import type { ResolveOptions } from '../../hub/index.js';
import { withDeferred } from '../../nn/index.js';
import { decode, z } from '../../schema.js';
import { manualSeed, randomState, setRandomState, withDefaults, type DType } from '../../tensor/index.js';
import { loadAdapter } from './adapter-files.js';
import { setBase } from './base-model.js';
import { rememberWeights } from './base-weights.js';
import { decodeConfig, type Gemma3nConfig, type JsonObject } from './config.js';
import { EMBEDDINGS } from './mapped-embeddings.js';
import { placeOf } from './model-place.js';
import { createGemma3n, initialiseGemma3n, type Gemma3n } from './model.js';
import { QUANTISE, refuseMappedAndQuantised } from './quantisation.js';
import { loadWeights } from './weights.js';

const dtypes = ['float32', 'bfloat16', 'float16', 'float64'] as const;
const placement = {
  /** Of the parameters. By default what config.json says, else the stored weights', else float32. */
  dtype: z.enum(dtypes).optional(),
  /** 'cpu', 'cuda', 'cuda:1' */
  device: z.string().min(1).default('cpu'),
};
const loadSchema = z.strictObject({
  ...placement,
  /** Where embeddings are kept that do not learn: 'mapped' leaves the per-layer embeddings, and where it can the input
   *  embedding, in their file in the host's memory; 'perLayerMapped' the former alone. */
  embeddings: z.enum(EMBEDDINGS).default('device'),
  /** An adapter to load into the model: a folder in PEFT's layout, or a repository of the Hub. */
  adapter: z.string().min(1).optional(),
  /** Frozen weights in few bits, quantised as they are read: 'nf4', 'int8', or { format, embeddings, towers, ... }. Left
   *  out, an adapter's folder says whether its base was quantised; with false none of it is. */
  quantise: QUANTISE.optional(),
  /** Branch, tag or commit of a repository on the Hub; a folder has no other. */
  revision: z.string().min(1).optional(),
  /** Take a repository from the cache alone, by default as `HF_HUB_OFFLINE` says. */
  offline: z.boolean().optional(),
  /** Stops a download; the next continues it. */
  signal: z.instanceof(AbortSignal).optional(),
  /** Told how far a download is. */
  onProgress: z.custom<ResolveOptions['onProgress']>((value) => typeof value === 'function').optional(),
});
const drawSchema = z.strictObject({ ...placement, seed: z.int().min(0) });

export type LoadOptions = z.input<typeof loadSchema>;
export type DrawOptions = z.input<typeof drawSchema>;

/** What lies beside config.json in the folder that a configuration came from, to be saved with the model again. */
const companions = new WeakMap<Gemma3nConfig, ReadonlyMap<string, Uint8Array>>();
const GENERATION_FILE = 'generation_config.json';
const companionFiles = [...PROCESSOR_FILES, GENERATION_FILE];

const tokenId = z.int().min(0);
const generationSchema = z.looseObject({ eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish() });

/** Loads a model, ready for inference, from a folder with config.json and safetensors, of one file or shards, or from a
 *  repository of the Hub: `fromPretrained('google/gemma-3n-E2B-it', { revision: 'main' })`; see `resolveFolder`. Of an
 *  adapter's folder or repository, the model that it names with the adapter in it.
 *  @throws {CheckpointError} when a file is missing or malformed, or the weights are not those of the configuration
 *  @throws {ConfigError} naming every faulty key of config.json, or of `options`
 *  @throws {HubError} when a repository cannot be downloaded */
export async function fromPretrained(dirOrRepo: string, options: LoadOptions = {}): Promise<Gemma3n> {
  const { dtype, device, embeddings, adapter, quantise, ...where } = decode(
    loadSchema,
    options,
    'fromPretrained',
  );
  const place = await placeOf(dirOrRepo, where);
  const { folder } = place;
  refuseTwoAdapters(dirOrRepo, place.adapter, adapter);
  const config = await loadConfig(folder);
  const chosen = dtype ?? statedDType(config.raw) ?? storedDType(folder) ?? 'float32';
  const quantisation = quantise === false ? undefined : (quantise ?? place.quantise);
  if (quantisation) refuseMappedAndQuantised('fromPretrained: quantise.embeddings', quantisation, embeddings);
  const model = withDefaults({ dtype: chosen, device }, () =>
    withDeferred(quantisation ? 'matrices' : 'tables', () => createGemma3n(config)),
  );
  try {
    loadWeights(model, folder, { embeddings, quantise: quantisation });
    setBase(model, place.base);
    rememberWeights(model, folder);
    const chosenAdapter = place.adapter ?? adapter;
    const { offline, signal } = where;
    if (chosenAdapter !== undefined) await loadAdapter(model, chosenAdapter, { offline, signal });
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model.eval();
}

/** Makes a model of random weights: the same seed gives the same weights. The engine's generator is left as it was.
 *  @param config a config.json as an object, or decoded
 *  @throws {ConfigError} naming every faulty key */
export function fromConfig(config: Gemma3nConfig | JsonObject, options: DrawOptions): Gemma3n {
  const { dtype, device, seed } = decode(drawSchema, options, 'fromConfig');
  const decoded = isDecoded(config) ? config : decodeConfig(config);
  const chosen = dtype ?? statedDType(decoded.raw) ?? 'float32';
  const model = withDefaults({ dtype: chosen, device }, () => createGemma3n(decoded));
  const before = randomState();
  manualSeed(seed);
  initialiseGemma3n(model);
  setRandomState(before);
  return model;
}

/** Reads the configuration of a folder. A model made from it is saved with the processor files of that folder.
 *  @throws {CheckpointError} when there is no folder or no config.json of JSON, and when the weights are quantised
 *  @throws {ConfigError} naming every faulty key */
export async function loadConfig(folder: string): Promise<Gemma3nConfig> {
  await refuseNoFolder(folder);
  const path = join(folder, 'config.json');
  let json: unknown;
  try {
    json = JSON.parse(await fs.readFile(path, 'utf8'));
  } catch (cause) {
    throw readFault(path, "a model's configuration in JSON", cause);
  }
  refuseQuantised(json, path);
  const config = decodeConfig(json, path);
  const files = new Map<string, Uint8Array>();
  for (const name of companionFiles) {
    const file = await fs.readFile(join(folder, name)).catch(absent);
    if (file) files.set(name, file);
  }
  companions.set(config, files);
  endTokenIds(config, folder);
  return config;
}

/** Other tools' quantised weights (bitsandbytes, GPTQ, AWQ) lie under other names and in blocks of their own. */
function refuseQuantised(json: unknown, path: string): void {
  const { quantization_config: stated } = (json ?? {}) as { readonly quantization_config?: unknown };
  if (stated == null) return;
  const { quant_method: method } = stated as { readonly quant_method?: unknown };
  throw new CheckpointError({
    where: `${path}: quantization_config`,
    expected: 'weights as they were trained',
    received: `quantised ones (${typeof method === 'string' ? method : 'of an unnamed method'})`,
    remedy: "load the checkpoint that they were made from, with quantise: 'nf4' or 'int8' to hold it so",
  });
}

/** Ids that end a row in generation: those of the folder's generation_config.json, else the configuration's.
 *  @throws {CheckpointError} when that file is no JSON
 *  @throws {ConfigError} when its ids are none */
export function endTokenIds(config: Gemma3nConfig, folder = ''): readonly number[] {
  const file = companionsOf(config).get(GENERATION_FILE);
  if (!file) return config.text.eosTokenIds;
  const path = join(folder, GENERATION_FILE);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(file));
  } catch (cause) {
    throw readFault(path, 'settings of generation in JSON', cause);
  }
  const { eos_token_id: stated } = decode(generationSchema, json, path);
  return stated == null ? config.text.eosTokenIds : [stated].flat();
}

/** Files of the folder that a configuration was read from, by name: the processor's and generation_config.json. */
export function companionsOf(config: Gemma3nConfig): ReadonlyMap<string, Uint8Array> {
  return companions.get(config) ?? new Map<string, Uint8Array>();
}

function refuseTwoAdapters(model: string, its: string | undefined, given: string | undefined): void {
  if (its === undefined || given === undefined) return;
  throw new ConfigError({
    where: 'fromPretrained: adapter',
    expected: 'one adapter',
    received: `${given}, where ${model} is one already`,
    remedy: 'load the second with loadAdapter, under a name of its own',
  });
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

async function refuseNoFolder(folder: string): Promise<void> {
  const status = await fs.stat(folder).catch(() => undefined);
  if (status?.isDirectory()) return;
  throw new CheckpointError({
    where: `fromPretrained('${folder}')`,
    expected: "a folder with config.json and weights, or a repository of the Hub, 'owner/name'",
    received: status ? 'a file' : 'no such folder',
    remedy: 'check the path',
  });
}

export function isDecoded(config: Gemma3nConfig | JsonObject): config is Gemma3nConfig {
  return 'kind' in config && 'raw' in config && 'text' in config;
}

/** What config.json says of itself or of its text tower, under the key of today or the one before. */
export function statedDType(raw: JsonObject): DType | undefined {
  const text = raw['text_config'] as JsonObject | null | undefined;
  const stated = [raw['dtype'], raw['torch_dtype'], text?.['dtype'], text?.['torch_dtype']];
  return dtypes.find((dtype) => stated.includes(dtype));
}

/** Of the widest float among the stored weights. */
function storedDType(folder: string): DType | undefined {
  const source = openWeights(folder);
  try {
    const stored = new Set(source.names.map((name) => engineDType(source.entry(name).dtype)));
    return dtypes.find((dtype) => stored.has(dtype));
  } finally {
    source.close();
  }
}
