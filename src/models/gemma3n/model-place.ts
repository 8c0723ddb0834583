// Where a model is on this machine: a folder or repository of a model, or of an adapter, which names its base.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkpointFault, quote } from '../../checkpoint/index.js';
import { type Origin, resolveModel, type ResolveOptions } from '../../hub/index.js';
import { ADAPTER_CONFIG, readStored } from './adapter-files.js';
import type { BaseModel } from './base-model.js';
import { type Quantisation, readQuantise } from './quantisation.js';

export interface ModelPlace {
  /** Of config.json and weights. */
  readonly folder: string;
  /** Where the model was downloaded from. */
  readonly origin?: Origin;
  /** What to call the model in an adapter's files. */
  readonly base: BaseModel;
  /** A folder with an adapter for it. */
  readonly adapter?: string;
  /** How the adapter's base was quantised while it learnt. */
  readonly quantise?: Quantisation;
}

/** Finds a model, and downloads what of it is on the Hub.
 *  @throws {CheckpointError} when an adapter does not name its base, or names an adapter
 *  @throws {HubError} when a repository cannot be downloaded */
export async function placeOf(dirOrRepo: string, options: ResolveOptions = {}): Promise<ModelPlace> {
  const { folder, origin } = await resolveModel(dirOrRepo, options);
  const revision = origin?.revision === 'main' ? undefined : origin?.revision;
  if (!isAdapterFolder(folder)) {
    return { folder, ...(origin && { origin }), base: { path: dirOrRepo, revision } };
  }
  const { base, baseRevision } = readStored(folder);
  if (base === undefined) {
    throw checkpointFault(join(folder, ADAPTER_CONFIG), undefined, {
      expected: 'base_model_name_or_path, the model that the adapter belongs to',
      received: 'none',
      remedy: 'load that model, and the adapter into it with loadAdapter',
    });
  }
  const below = await resolveModel(base, { ...options, revision: baseRevision });
  if (!existsSync(join(below.folder, 'config.json'))) {
    throw checkpointFault(join(folder, ADAPTER_CONFIG), undefined, {
      expected:
        'base_model_name_or_path to be a model: a folder with config.json, or a repository of the Hub',
      received: quote(base),
      remedy: 'put the model there, or load it from where it is and the adapter into it with loadAdapter',
    });
  }
  const quantise = readQuantise(folder);
  return {
    folder: below.folder,
    ...(below.origin && { origin: below.origin }),
    base: { path: base, revision: baseRevision },
    adapter: folder,
    ...(quantise && { quantise }),
  };
}

/** Whether a folder holds an adapter, and no model. */
export function isAdapterFolder(folder: string): boolean {
  return existsSync(join(folder, ADAPTER_CONFIG)) && !existsSync(join(folder, 'config.json'));
}
