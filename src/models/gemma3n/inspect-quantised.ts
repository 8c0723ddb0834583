// Bytes that weights take when some of them are quantised, counted from the model's own modules.

import type { QuantisedWeight } from '../../nn/index.js';
import { Embedding } from '../../nn/index.js';
import type { Gemma3nConfig } from './config.js';
import type { Quantisation } from './quantisation.js';
import { modulesToQuantise } from './quantise.js';
import { numElements, withShapesOnly } from './shapes.js';

export interface QuantisedBytes {
  /** Of all weights that compute, in the model's dtype or quantised. */
  readonly weights: number;
  /** Of those that are quantised, in the model's dtype. */
  readonly before: number;
  /** Of those: codes and scales. */
  readonly after: number;
  /** Of the per-layer embeddings, as they are then. */
  readonly perLayerEmbeddings: number;
  /** Elements of the largest of them but for embeddings, which is turned into numbers a stretch at a time. */
  readonly largest: number;
}

/** Numbers that are nested to one more scale: see `QuantisedWeight`. */
const NESTED = 256;

/** What was counted before: a search for what fits asks for the same model many times. */
const counted = new WeakMap<Gemma3nConfig, Map<string, QuantisedBytes>>();

/** @param elementBytes of the model's dtype */
export function quantisedBytes(
  config: Gemma3nConfig,
  quantisation: Quantisation,
  elementBytes: number,
): QuantisedBytes {
  const known = counted.get(config) ?? new Map<string, QuantisedBytes>();
  counted.set(config, known);
  const key = JSON.stringify([quantisation, elementBytes]);
  const bytes = known.get(key) ?? countBytes(config, quantisation, elementBytes);
  known.set(key, bytes);
  return bytes;
}

function countBytes(config: Gemma3nConfig, quantisation: Quantisation, elementBytes: number): QuantisedBytes {
  return withShapesOnly(config, (model) => {
    const table = model.languageModel.embedTokensPerLayer;
    let all = 0;
    for (const [, { numel }] of model.ownParameters()) all += numel;
    let [numbers, after, largest] = [0, 0, 0];
    let perLayerEmbeddings = table.weight.numel * elementBytes;
    for (const module of modulesToQuantise(model, quantisation).values()) {
      const bytes = bytesOf(module.weight.shape, quantisation);
      numbers += module.weight.numel;
      after += bytes;
      if (module === table) perLayerEmbeddings = bytes;
      if (!(module instanceof Embedding)) largest = Math.max(largest, module.weight.numel);
    }
    const before = numbers * elementBytes;
    return { weights: all * elementBytes - before + after, before, after, perLayerEmbeddings, largest };
  });
}

/** `QuantisedWeight.numBytes` of a shape. */
export function bytesOf(
  shape: readonly number[],
  { format, blockSize, doubleQuantise }: QuantisedWeight['quantisation'],
): number {
  const numbers = numElements(shape);
  if (format === 'int8') return numbers + 4 * (shape[0] ?? 1);
  const blocks = Math.ceil(numbers / blockSize);
  return Math.ceil(numbers / 2) + (doubleQuantise ? blocks + 4 * Math.ceil(blocks / NESTED) + 4 : 4 * blocks);
}
