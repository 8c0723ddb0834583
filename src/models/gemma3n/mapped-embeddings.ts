// Frozen embeddings off the device: tables that stay mapped from the checkpoint's file in the host's memory, shared with
// every process that maps it, and dropped by the system when it needs room. Only the rows of a batch travel.
//
// The per-layer embeddings, a third of the published models' weights, are looked up by rows alone. So is the input
// embedding where the output head has weights of its own. Where it is tied to the head, the head needs all of it beside
// the computation: it stays mapped only where that is no copy, on a CPU in the dtype stored.

import { engineDType, type TensorSource } from '../../checkpoint/index.js';
import { ConfigError } from '../../errors.js';
import { Embedding, mappedAs } from '../../nn/index.js';
import type { DType, Tensor } from '../../tensor/index.js';
import type { Gemma3n } from './model.js';

/** 'device': all embeddings are copied as other weights are. 'mapped': those that can stay in their file do.
 *  'perLayerMapped': of these, the per-layer embeddings alone. */
export const EMBEDDINGS = ['device', 'mapped', 'perLayerMapped'] as const;
export type EmbeddingsPlace = (typeof EMBEDDINGS)[number];

/** Gives a model that was built `withDeferred` its tables: those that stay mapped from the file, and memory for the
 *  others.
 *  @param copies what is stored as which weight of the model
 *  @returns what is left to copy */
export function placeTables(
  model: Gemma3n,
  source: TensorSource,
  copies: Iterable<readonly [stored: string, target: Tensor]>,
  place: EmbeddingsPlace,
): [stored: string, target: Tensor][] {
  const storedAs = new Map(Array.from(copies, ([stored, target]) => [target, stored] as const));
  const mapped = new Set(place === 'device' ? [] : tablesToMap(model, source, storedAs, place));
  for (const [, module] of model.namedModules()) {
    if (!(module instanceof Embedding) || module.quantised) continue;
    const stored = storedAs.get(module.weight);
    if (stored === undefined) throw new Error('an embedding that is no parameter');
    storedAs.delete(module.weight);
    if (mapped.has(module)) {
      module.useMapped(source.view(stored));
    } else {
      module.allocate();
      storedAs.set(module.weight, stored);
    }
  }
  return Array.from(storedAs, ([target, stored]) => [stored, target]);
}

/** Maps the tables of a model that are mapped already from another file.
 *  @returns what is left to copy */
export function remapTables(
  model: Gemma3n,
  source: TensorSource,
  copies: Iterable<readonly [stored: string, target: Tensor]>,
): [stored: string, target: Tensor][] {
  const storedAs = new Map(Array.from(copies, ([stored, target]) => [target, stored] as const));
  for (const table of mappedTables(model).values()) {
    const { weight } = table;
    table.useMapped(source.view(storedAs.get(weight) ?? ''));
    storedAs.delete(weight);
  }
  return Array.from(storedAs, ([target, stored]) => [stored, target]);
}

/** The tables of a model that are mapped, by the name of their parameter. */
export function mappedTables(model: Gemma3n): Map<string, Embedding> {
  const weights = new Map(Array.from(model.namedParameters(), ([name, weight]) => [weight, name] as const));
  const found = new Map<string, Embedding>();
  for (const [, module] of model.namedModules()) {
    if (module instanceof Embedding && mappedAs(module.weight) !== undefined) {
      found.set(weights.get(module.weight) ?? '', module);
    }
  }
  return found;
}

/** @throws {ConfigError} when tables that stay in their file are to learn */
export function refuseLearningTables(tables: Iterable<string>): void {
  const names = [...tables];
  if (names.length === 0) return;
  throw new ConfigError({
    where: 'model.embeddings',
    expected: 'embeddings that stay in their file to be frozen',
    received: `${names.join(' and ')}, to be trained`,
    remedy:
      "add 'embeddings' to freeze, or take embeddings: 'device' (or 'perLayerMapped', to train the input's)",
  });
}

function tablesToMap(
  model: Gemma3n,
  source: TensorSource,
  storedAs: ReadonlyMap<Tensor, string>,
  place: EmbeddingsPlace,
): Embedding[] {
  const { embedTokens, embedTokensPerLayer } = model.languageModel;
  if (place === 'perLayerMapped') return [embedTokensPerLayer];
  const stored = storedAs.get(embedTokens.weight);
  const dtype: DType | undefined = stored === undefined ? undefined : engineDType(source.entry(stored).dtype);
  const { dtype: used, device } = embedTokens.rowsAs;
  const isFree = model.lmHead !== undefined || (device === 'cpu' && dtype === used);
  return isFree ? [embedTokens, embedTokensPerLayer] : [embedTokensPerLayer];
}
