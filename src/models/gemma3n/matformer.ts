// Smaller models out of a Gemma 3n, as MatFormer nests them (arXiv:2310.07707): E2B lies inside E4B. Layers are dropped,
// feed-forwards keep their first units, per-layer embeddings and their projection keep the layers that stay.
//
// From a folder, tensors pass from the mapped file to the new one a few megabytes at a time, in the dtypes stored.

import { join } from 'node:path';
import * as fs from 'node:fs/promises';
import {
  engineDType,
  indexFile,
  isWeightFile,
  openWeights,
  replaceFolder,
  withFile,
  writeShards,
  type NamedSource,
  type StreamedTensor,
  type TensorSource,
} from '../../checkpoint/index.js';
import { ConfigError } from '../../errors.js';
import { resolveFolder } from '../../hub/index.js';
import { decode, z } from '../../schema.js';
import { noGrad, scope, tensor, type DType, type Tensor } from '../../tensor/index.js';
import { ofCheckpoint } from './checkpoint-config.js';
import { configText, generationText } from './config-json.js';
import type { Gemma3nConfig } from './config.js';
import { companionsOf, loadConfig } from './load.js';
import { planSlice, type MatFormerSlice, type SlicePlan } from './matformer-plan.js';
import type { Gemma3n } from './model.js';
import { numElements, parameterShapes, withShapesOnly } from './shapes.js';
import { deadWeightShapes, namedWeights, planWeights } from './weights.js';

const optionsSchema = z.strictObject({
  /** Weights go into shards of at most so many bytes; 5 GB by default. */
  maxShardBytes: z.number().min(1).optional(),
  /** Of a repository on the Hub. */
  revision: z.string().min(1).optional(),
  offline: z.boolean().optional(),
  signal: z.instanceof(AbortSignal).optional(),
});

export type SliceOptions = z.input<typeof optionsSchema>;

export interface SliceResult {
  /** The old index of each layer that stayed. */
  readonly layers: readonly number[];
  readonly intermediateSizes: readonly number[];
  readonly numKvSharedLayers: number;
  /** Parameters of the slice, without the dead keys and values of sharing layers. */
  readonly numParameters: number;
}

/** Rows of a tensor that may lie in a file. */
interface Rows {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** A copy, or a view that must not change, of [start, start + count) of the first dimension. */
  rows(start: number, count: number): Tensor;
}

/** Bytes read at a time. */
const chunkBytes = 32 * 2 ** 20;

/** Cuts a model and writes what stays as a checkpoint of its own, whole or not at all; transformers loads it. Dead
 *  weights, towers, projectors, output head and processor files are carried over.
 *
 *      await sliceMatFormer('gemma-3n-E4B', { preset: 'e2b' }, 'gemma-3n-E2B');
 *      await sliceMatFormer(model, { layers: [0, 1, 4], intermediateSizes: 512 }, 'small');
 *
 *  @param source a model, or a folder or repository that `fromPretrained` reads; its weights are never in memory whole
 *  @throws {ConfigError} every fault of the slice: layers whose keys and values the others need, widths too large
 *  @throws {CheckpointError} when config.json is faulty, the weights are others, or the disk is full
 *  @throws the signal's reason when it is aborted; nothing is written then */
export async function sliceMatFormer(
  source: Gemma3n | string,
  slice: MatFormerSlice,
  out: string,
  options: SliceOptions = {},
): Promise<SliceResult> {
  const { maxShardBytes, ...where } = decode(optionsSchema, options, 'sliceMatFormer');
  const shards = maxShardBytes === undefined ? {} : { maxShardBytes };
  if (typeof source !== 'string') {
    return write(source.config, planSlice(source.config, slice), ofModel(source), out, shards);
  }
  const folder = await resolveFolder(source, where);
  const config = await ofCheckpoint(() => loadConfig(folder));
  const plan = planSlice(config, slice);
  await refuseSameFolder(folder, out);
  const weights = openWeights(folder);
  try {
    return await write(config, plan, ofFile(config, weights, folder, where.signal), out, shards);
  } finally {
    weights.close();
  }
}

async function write(
  before: Gemma3nConfig,
  plan: SlicePlan,
  stored: ReadonlyMap<string, Rows>,
  out: string,
  shards: { readonly maxShardBytes?: number },
): Promise<SliceResult> {
  const { config, layers } = plan;
  const shapes = new Map([...parameterShapes(config), ...deadWeightShapes(config)]);
  const tensors = cutTensors(before, plan, stored, shapes);
  const dtype = stored.get(embeddingsName(config.kind))?.dtype ?? 'float32';
  await replaceFolder(
    out,
    async (beside) => {
      const files = new Map(companionsOf(before));
      files.set('config.json', encode(configText(config, dtype)));
      if (!files.has('generation_config.json'))
        files.set('generation_config.json', encode(generationText(config)));
      for (const [name, file] of files) {
        await withFile(join(beside, name), (handle) => handle.writeFile(file));
      }
      await writeShards(beside, tensors, shards);
    },
    { isStale: isWeightFile, last: indexFile },
  );
  const { intermediateSize, numKvSharedLayers } = config.text;
  const numParameters = [...parameterShapes(config).values()].reduce(
    (sum, shape) => sum + numElements(shape),
    0,
  );
  return { layers, intermediateSizes: intermediateSize, numKvSharedLayers, numParameters };
}

/** The slice's tensors under their new names, each cut as it is written. */
function cutTensors(
  { text, kind }: Gemma3nConfig,
  { layers }: SlicePlan,
  stored: ReadonlyMap<string, Rows>,
  shapes: ReadonlyMap<string, readonly number[]>,
): NamedSource[] {
  const prefix = kind === 'text' ? 'model' : 'model.language_model';
  const oldName = (name: string): string => {
    const path = name.startsWith(`${prefix}.layers.`) ? name.slice(`${prefix}.layers.`.length) : undefined;
    if (path === undefined) return name;
    const [layer = '', ...rest] = path.split('.');
    return [`${prefix}.layers`, layers[Number(layer)], ...rest].join('.');
  };
  const size = text.hiddenSizePerLayerInput;
  const names = [...shapes.keys(), ...(shapes.has('lm_head.weight') ? [] : ['lm_head.weight'])];
  return names.flatMap((name): NamedSource[] => {
    const from = stored.get(oldName(name));
    if (!from) return []; // a dead weight that the checkpoint lacks, or a head that is tied
    if (name === `${prefix}.embed_tokens_per_layer.weight`) return [[name, pickColumns(from, layers, size)]];
    if (name === `${prefix}.per_layer_model_projection.weight`) return [[name, pickRows(from, layers, size)]];
    return [[name, firstOf(from, shapes.get(name) ?? from.shape)]];
  });
}

/** The first units of each dimension: all of it, where the shape is the same. */
function firstOf(from: Rows, shape: readonly number[]): StreamedTensor {
  const [numRows = 1, numColumns] = shape;
  const isNarrower = numColumns !== undefined && numColumns < (from.shape[1] ?? 0);
  return {
    dtype: from.dtype,
    shape,
    *pieces() {
      for (const [start, count] of chunks(from, numRows)) {
        yield scope(() => {
          const rows = from.rows(start, count);
          return isNarrower ? rows.narrow(1, 0, numColumns).contiguous() : rows;
        });
      }
    },
  };
}

/** Of rows that hold `size` columns a layer, the columns of some layers. */
function pickColumns(from: Rows, layers: readonly number[], size: number): StreamedTensor {
  const [numRows = 0, numColumns = 0] = from.shape;
  return {
    dtype: from.dtype,
    shape: [numRows, layers.length * size],
    *pieces() {
      for (const [start, count] of chunks(from, numRows)) {
        yield scope(() => {
          const rows = from.rows(start, count).view([count, numColumns / size, size]);
          return rows.indexSelect(1, tensor(BigInt64Array.from(layers, BigInt)));
        });
      }
    },
  };
}

/** Of a matrix that holds `size` rows a layer, the rows of some layers. */
function pickRows(from: Rows, layers: readonly number[], size: number): StreamedTensor {
  return {
    dtype: from.dtype,
    shape: [layers.length * size, ...from.shape.slice(1)],
    *pieces() {
      for (const layer of layers) yield from.rows(layer * size, size);
    },
  };
}

function* chunks({ shape, dtype }: Rows, numRows: number): Iterable<[start: number, count: number]> {
  const rowBytes = numElements(shape.slice(1)) * (/64$/.test(dtype) ? 8 : 4);
  const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
  for (let start = 0; start < numRows; start += step) yield [start, Math.min(step, numRows - start)];
}

function ofModel(model: Gemma3n): Map<string, Rows> {
  return new Map(
    Array.from(namedWeights(model), ([name, weight]): [string, Rows] => [
      name,
      {
        dtype: weight.dtype,
        shape: weight.shape,
        rows: (start, count) =>
          noGrad(() => scope(() => weight.detach().narrow(0, start, count).to('cpu').contiguous())),
      },
    ]),
  );
}

/** A folder's tensors by the names that its model knows them by. */
function ofFile(
  config: Gemma3nConfig,
  source: TensorSource,
  folder: string,
  signal: AbortSignal | undefined,
): Map<string, Rows> {
  const { copies, dead, tiedHead } = withShapesOnly(config, (model) => {
    const { copies, ...rest } = planWeights(model, source, folder);
    const names = Array.from(model.namedParameters(), ([name]) => name);
    return { ...rest, copies: copies.map(([stored], i) => [stored, names[i] ?? ''] as const) };
  });
  const all = [
    ...copies,
    ...dead,
    ...(tiedHead === undefined ? [] : [[tiedHead, 'lm_head.weight'] as const]),
  ];
  return new Map(
    all.map(([stored, name]): [string, Rows] => {
      const { dtype, shape } = source.entry(stored);
      const rows = (start: number, count: number): Tensor => {
        signal?.throwIfAborted();
        return shape.length === 0 ? source.read(stored) : source.readRows(stored, start, count);
      };
      return [name, { dtype: engineDType(dtype) ?? 'float32', shape, rows }];
    }),
  );
}

async function refuseSameFolder(source: string, out: string): Promise<void> {
  const [from, to] = await Promise.all([source, out].map((path) => fs.realpath(path).catch(() => undefined)));
  if (from !== to) return;
  throw new ConfigError({
    where: `sliceMatFormer('${source}')`,
    expected: 'another folder to write the slice to',
    received: 'the one that it is cut from',
    remedy: 'choose another folder: a slice cannot be put back together',
  });
}

function embeddingsName(kind: Gemma3nConfig['kind']): string {
  return kind === 'text' ? 'model.embed_tokens.weight' : 'model.language_model.embed_tokens.weight';
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
