// What a Gemma 3n checkpoint is: parameters a part, layers and whose keys and values they use, memory that it needs,
// and what its weights look like. A configuration alone tells all but the last, and takes no memory for weights.

import * as fs from 'node:fs/promises';
import { isWeightFile, readFault } from '../../checkpoint/index.js';
import { isRepository, resolveFolder } from '../../hub/index.js';
import { decode, z } from '../../schema.js';
import type { DType } from '../../tensor/index.js';
import { ofCheckpoint } from './checkpoint-config.js';
import { decodeConfig, type Gemma3nConfig, type JsonObject } from './config.js';
import { type AdapterFacts, adapterFacts } from './inspect-adapter.js';
import { COMPUTE_DTYPES, FREEZABLE, memoryFacts, type MemoryFacts } from './inspect-memory.js';
import { countParameters, layerFacts, type LayerFacts, type ParameterCounts } from './inspect-parameters.js';
import { type Method, type RecipeOptions, recipePeak } from './inspect-recipe.js';
import { weightFacts, type WeightFacts } from './inspect-weights.js';
import { companionsOf, isDecoded, loadConfig, statedDType } from './load.js';
import { isAdapterFolder, placeOf } from './model-place.js';

const natural = z.int().min(1);
const whole = z.int().min(0);
const schema = z.strictObject({
  /** Rows of a batch, and tokens of a row. */
  batch: natural.default(1),
  length: natural.default(1024),
  /** Images and clips of the whole batch. */
  images: whole.default(0),
  clips: whole.default(0),
  /** Of weights and computation; by default what config.json says. */
  dtype: z.enum(COMPUTE_DTYPES).optional(),
  /** Of low-rank adapters. */
  rank: natural.default(16),
  /** Parts that do not learn in full fine-tuning. */
  freeze: z.array(z.enum(Object.keys(FREEZABLE) as [keyof typeof FREEZABLE])).default([]),
  /** Tell also what this way to fine-tune needs. */
  recipe: z
    .strictObject({
      method: z.enum(['full', 'lora', 'dora', 'qlora']),
      checkpointing: z.boolean().default(false),
      mapped: z.boolean().default(false),
    })
    .optional(),
  /** Look at the weights, which takes reading them; by default where a folder has any. Of a repository of the Hub they
   *  are downloaded only when this is true. */
  weights: z.boolean().optional(),
  /** Of a repository on the Hub. */
  revision: z.string().min(1).optional(),
  offline: z.boolean().optional(),
  signal: z.instanceof(AbortSignal).optional(),
});

/** Height and width of Gemma 3n's images, where no processor file says another. */
const IMAGE_SIZE = [768, 768] as const;
const sizeSchema = z.looseObject({ size: z.looseObject({ height: natural, width: natural }) });

export type InspectOptions = z.input<typeof schema>;

export interface Inspection {
  /** What was inspected, where it has a name: a folder, a file, a repository. */
  readonly checkpoint: string | undefined;
  readonly kind: Gemma3nConfig['kind'];
  readonly parameters: ParameterCounts;
  readonly layers: readonly LayerFacts[];
  readonly memory: MemoryFacts;
  /** The most bytes that `options.recipe` takes on the device. */
  readonly recipe?: { readonly method: Method; readonly peak: number };
  /** Of an adapter's folder or repository: all else is of its base. */
  readonly adapter?: AdapterFacts;
  /** Of a checkpoint with weights. */
  readonly weights: WeightFacts | undefined;
}

/** Inspects a checkpoint.
 *  @param checkpoint a folder in Hugging Face's layout, with weights or with config.json alone; an adapter's, whose base is
 *    found through it; a repository of the Hub; a config.json; or what it holds, as an object
 *  @throws {CheckpointError} when there is none, its config.json is faulty (every key is named), or its weights are others
 *  @throws {ConfigError} naming every faulty key of `options`, or of an object
 *  @throws {HubError} when a repository cannot be downloaded */
export async function inspectCheckpoint(
  checkpoint: string | Gemma3nConfig | JsonObject,
  options: InspectOptions = {},
): Promise<Inspection> {
  const {
    weights: wanted,
    signal,
    revision,
    offline,
    recipe,
    ...load
  } = decode(schema, options, 'inspectCheckpoint');
  const isRemote = typeof checkpoint === 'string' && isRepository(checkpoint);
  const kind = isRemote && wanted !== true ? 'config' : 'model';
  const place =
    typeof checkpoint === 'string'
      ? await resolveFolder(checkpoint, { revision, offline, signal, kind })
      : checkpoint;
  const adapter = typeof place === 'string' && isAdapterFolder(place) ? place : undefined;
  const model =
    adapter === undefined ? place : (await placeOf(adapter, { offline, signal, kind: 'config' })).folder;
  const { config, folder } = await read(model);
  const count = () => countParameters(config);
  const parameters = typeof checkpoint === 'string' ? await ofCheckpoint(count) : count();
  const dtype = load.dtype ?? COMPUTE_DTYPES.find((one) => one === statedDType(config.raw)) ?? 'float32';

  const weighed = { ...load, dtype, imageSize: imageSizeOf(config) };
  // A base that only lends its adapter a configuration is not read.
  const hasWeights = folder !== undefined && !adapter && (await fs.readdir(folder)).some(isWeightFile);
  const looks = wanted ?? (hasWeights && !isRemote);
  return {
    checkpoint: typeof checkpoint === 'string' ? checkpoint : undefined,
    kind: config.kind,
    parameters,
    layers: layerFacts(config),
    memory: memoryFacts(config, parameters, weighed),
    ...(recipe && {
      recipe: { method: recipe.method, peak: recipePeak(config, parameters, { ...weighed, ...recipe }) },
    }),
    ...(adapter !== undefined && { adapter: adapterFacts(adapter) }),
    weights: looks && folder !== undefined ? await weightFacts(folder, config, { signal }) : undefined,
  };
}

/** Predictions for one model, whose parameters are counted once.
 *  @returns its dtype, and the most bytes that a way to fine-tune takes on the device
 *  @throws as `inspectCheckpoint` does */
export async function recipePredictor(
  checkpoint: string | JsonObject,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<{
  readonly dtype: DType;
  /** Of an adapter on the text tower's projections: the shorter side of the smallest matrix. */
  readonly mostRank: number;
  readonly peakOf: (options: Omit<RecipeOptions, 'dtype' | 'imageSize'>) => number;
}> {
  const place =
    typeof checkpoint === 'string' ? await resolveFolder(checkpoint, { signal, kind: 'config' }) : checkpoint;
  const { config } = await read(place);
  const counts = countParameters(config);
  const dtype = COMPUTE_DTYPES.find((one) => one === statedDType(config.raw)) ?? 'float32';
  const imageSize = imageSizeOf(config);
  const { hiddenSize, numKeyValueHeads, headDim, intermediateSize } = config.text;
  return {
    dtype,
    mostRank: Math.min(hiddenSize, numKeyValueHeads * headDim, ...intermediateSize),
    peakOf: (options) => recipePeak(config, counts, { ...options, dtype, imageSize }),
  };
}

async function read(
  checkpoint: string | Gemma3nConfig | JsonObject,
): Promise<{ config: Gemma3nConfig; folder?: string }> {
  if (typeof checkpoint !== 'string') {
    return { config: isDecoded(checkpoint) ? checkpoint : decodeConfig(checkpoint) };
  }
  const status = await fs.stat(checkpoint).catch(() => undefined);
  if (!status?.isFile()) {
    return { config: await ofCheckpoint(() => loadConfig(checkpoint)), folder: checkpoint };
  }
  let json: unknown;
  try {
    json = JSON.parse(await fs.readFile(checkpoint, 'utf8'));
  } catch (cause) {
    throw readFault(checkpoint, "a model's configuration in JSON, or a folder with one", cause);
  }
  return { config: await ofCheckpoint(() => decodeConfig(json, checkpoint)) };
}

/** As the processor files beside the configuration have it. */
function imageSizeOf(config: Gemma3nConfig): readonly [number, number] {
  const files = companionsOf(config);
  for (const name of ['preprocessor_config.json', 'processor_config.json']) {
    const file = files.get(name);
    if (!file) continue;
    let json: unknown;
    try {
      json = JSON.parse(new TextDecoder().decode(file));
    } catch {
      continue; // told by those who need it
    }
    const found = [json, (json as JsonObject | null)?.['image_processor']]
      .map((part) => sizeSchema.safeParse(part))
      .find(({ success }) => success);
    if (found?.data) return [found.data.size.height, found.data.size.width];
  }
  return IMAGE_SIZE;
}
