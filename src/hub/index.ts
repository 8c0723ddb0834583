// Models by name: a folder of this machine, or a repository of the Hugging Face Hub, downloaded into the cache that
// Python's huggingface_hub shares.

import { statSync } from 'node:fs';
import { HubError } from '../errors.js';
import { hubSettings, type HubSettings } from './settings.js';
import { type DownloadProgress, snapshotOf } from './snapshot.js';
import type { Kind } from './wanted.js';

export { hubSettings, type HubSettings } from './settings.js';
export type { DownloadProgress } from './snapshot.js';

export interface ResolveOptions {
  /** Branch, tag or commit; 'main' by default. A folder has no other. */
  readonly revision?: string | undefined;
  /** Take what the cache has, and ask nobody; by default what `HF_HUB_OFFLINE` says. */
  readonly offline?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** 'processor' leaves out weights, 'config' too; 'model' is all of them, and the default. */
  readonly kind?: Kind | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Told when the Hub cannot be reached and an earlier download is used; `process.emitWarning` by default. */
  readonly onNotice?: ((text: string) => void) | undefined;
}

/** Where a downloaded model came from. */
export interface Origin {
  /** 'owner/name' */
  readonly repository: string;
  /** As it was asked for. */
  readonly revision: string;
  /** What that stood for: 40 hexadecimal digits. */
  readonly commit: string;
}

/** The folder of a model: `dirOrRepo` itself where it is one, else the snapshot of the Hub's repository of that name.
 *  A name that is neither is returned as it is: its reader says best what it lacks.
 *  @throws {HubError} when there is no such repository or revision, it is gated or private, its bytes are not those that
 *    the Hub lists, the disk is full, or there is no connection
 *  @throws the signal's reason when it is aborted; the next call continues the download */
export async function resolveFolder(dirOrRepo: string, options: ResolveOptions = {}): Promise<string> {
  return (await resolveModel(dirOrRepo, options)).folder;
}

/** `resolveFolder`, and of a repository the commit. */
export async function resolveModel(
  dirOrRepo: string,
  options: ResolveOptions = {},
  settings: HubSettings = hubSettings(),
): Promise<{ readonly folder: string; readonly origin?: Origin }> {
  const { revision = 'main', offline, signal, kind = 'model', onProgress, onNotice } = options;
  if (!isRepository(dirOrRepo)) return { folder: dirOrRepo };
  signal?.throwIfAborted();
  checkRevision(dirOrRepo, revision);
  const { folder, commit } = await snapshotOf({
    repository: dirOrRepo,
    revision,
    kind,
    signal,
    settings: { ...settings, isOffline: offline ?? settings.isOffline },
    onProgress,
    onNotice: onNotice ?? ((text) => process.emitWarning(text)),
  });
  return { folder, origin: { repository: dirOrRepo, revision, commit } };
}

/** Whether a name is that of a repository, 'owner/name', and nothing of this machine bears it. */
export function isRepository(name: string): boolean {
  const isName = /^(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}\/[\w.-]{1,96}(?<![.-])$/.test(name);
  return isName && !/\.git$/.test(name) && statSync(name, { throwIfNoEntry: false }) === undefined;
}

function checkRevision(repository: string, revision: string): void {
  if (/^[A-Za-z0-9_][\w./-]*$/.test(revision) && !/\.\.|\/\/|\/$|\.lock$/.test(revision)) return;
  throw new HubError({
    where: `${repository}: revision`,
    expected: 'a branch, tag or commit',
    received: JSON.stringify(revision),
    remedy: 'leave it out for main',
  });
}
