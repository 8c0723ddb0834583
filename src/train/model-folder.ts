// A pipeline's model on this machine: a repository is downloaded once, by the host, before anything is checked. A run that
// is continued stays with the commit that it began with, whatever its branch has become.

import { latestCheckpoint, readState } from '../checkpoint/index.js';
import { ConfigError } from '../errors.js';
import { type Origin, resolveModel, type ResolveOptions } from '../hub/index.js';
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
  const { path, revision, weights } = pipeline.model;
  const began = resumeFrom === undefined ? undefined : originOf(resumeFrom);
  if (began) refuseOther(began, path, revision);
  const { folder, origin } = await resolveModel(path, {
    ...options,
    revision: began?.commit ?? revision,
    kind: weights === 'random' ? 'config' : 'model',
    onNotice: log,
  });
  if (!origin) return pipeline;
  log(`model ${origin.repository} at commit ${origin.commit}`);
  return { ...pipeline, model: { ...pipeline.model, path: folder, origin: began ?? origin } };
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
