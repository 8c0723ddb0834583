// A pipeline's model on this machine: a repository is downloaded once, by the host, before anything is checked. A run that
// is continued stays with the commit that it began with, whatever its branch has become.

import { latestCheckpoint, readState } from '../checkpoint/index.js';
import { ConfigError } from '../errors.js';
import { type Origin, resolveFolder, type ResolveOptions } from '../hub/index.js';
import { type ModelPlace, placeOf } from '../models/gemma3n/index.js';
import { guestOf } from './guest.js';
import type { Pipeline } from './pipeline.js';

export interface ModelFolderOptions extends Pick<ResolveOptions, 'signal' | 'onProgress'> {
  /** Of the run that is continued. */
  readonly resumeFrom?: string | undefined;
  readonly log: (line: string) => void;
}

/** The pipeline with its model's folder as path, and where that came from.
 *  @throws {HubError} when a repository cannot be downloaded
 *  @throws {ConfigError} when a run is to be continued that began with another */
export async function withModelFolder(
  pipeline: Pipeline,
  { resumeFrom, log, ...options }: ModelFolderOptions,
): Promise<Pipeline> {
  if (guestOf(pipeline)) return pipeline;
  const { path, revision, weights } = pipeline.model;
  const began = resumeFrom === undefined ? undefined : originOf(resumeFrom);
  if (began) refuseOther(began, path, revision);
  const place = await placeOf(path, {
    ...options,
    revision: began?.commit ?? revision,
    kind: weights === 'random' ? 'config' : 'model',
    onNotice: log,
  });
  const { folder, origin, base } = place;
  if (origin) log(`model ${origin.repository} at commit ${origin.commit}`);
  const adapter = await adapterOf(pipeline, place, options);
  if (!origin && adapter === undefined) return pipeline;
  const quantise = pipeline.model.quantise ?? place.quantise;
  // An adapter's folder stays where it is: a run that is continued finds the same base through it.
  const kept = origin && place.adapter === undefined ? { origin: began ?? origin } : {};
  return {
    ...pipeline,
    model: { ...pipeline.model, path: folder, base, ...(adapter && { adapter }), quantise, ...kept },
  };
}

/** The adapter on this machine: what the pipeline declares, or what its model is. One that only evaluates what a run has
 *  learnt takes that, whatever the run was declared by. */
async function adapterOf(
  { model, step }: Pipeline,
  place: ModelPlace,
  options: Pick<ResolveOptions, 'signal' | 'onProgress'>,
): Promise<Pipeline['model']['adapter']> {
  const { adapter, path } = model;
  if (place.adapter === undefined) {
    return typeof adapter === 'string' ? resolveFolder(adapter, { ...options, kind: 'adapter' }) : adapter;
  }
  if (adapter === undefined || (typeof adapter !== 'string' && !step)) return place.adapter;
  throw new ConfigError({
    where: 'model.adapter',
    expected: `nothing: model.path, ${path}, is an adapter itself`,
    received: typeof adapter === 'string' ? adapter : adapter.kind,
    remedy: 'leave it out to train that adapter on, or set model.path to a model',
  });
}

function originOf(outDir: string): Origin | undefined {
  const checkpoint = latestCheckpoint(outDir);
  return checkpoint && readState(checkpoint.folder).origin;
}

function refuseOther(began: Origin, path: string, revision = 'main'): void {
  if (began.repository === path && [began.revision, began.commit].includes(revision)) return;
  throw new ConfigError({
    where: 'model',
    expected: `${began.repository} at ${began.revision}, with which the run began`,
    received: `${path} at ${revision}`,
    remedy: 'leave out --resume to start anew, or change the pipeline back',
  });
}
