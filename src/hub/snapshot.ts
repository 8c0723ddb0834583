// A repository's snapshot on this machine: taken from the cache where it is whole there, else downloaded.

import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { HubError, messageOf } from '../errors.js';
import { RepositoryCache, sizeOf } from './cache.js';
import { downloadBlob } from './download.js';
import { diskFault, PassingFault } from './faults.js';
import { COMMIT, commitOf, filesOf, nameOf, type Place, type RemoteFile } from './listing.js';
import { ADAPTER, INDEX, type Kind, shardsOf, SINGLE, wantedFiles } from './wanted.js';

/** Where a download stands. */
export interface DownloadProgress {
  readonly repository: string;
  /** The file that grew last. */
  readonly file: string;
  /** Of all files, those that were here included. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface SnapshotRequest extends Place {
  readonly kind: Kind;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Told when the Hub cannot be reached and the cache is used as it is. */
  readonly onNotice: (text: string) => void;
}

export interface Snapshot {
  readonly folder: string;
  readonly commit: string;
}

/** Files downloaded at once. */
const CONCURRENCY = 4;

/** @throws {HubError} */
export async function snapshotOf(asked: SnapshotRequest): Promise<Snapshot> {
  const cache = new RepositoryCache(asked.settings.cacheFolder, asked.repository);
  const cached = await fromCache(asked, cache);
  if (asked.settings.isOffline) {
    if (typeof cached === 'object') return cached;
    throw new HubError({
      where: nameOf(asked),
      expected: `to find it in the cache, ${asked.settings.cacheFolder}, since the Hub is not to be asked`,
      received: cached,
      remedy:
        'download it once without HF_HUB_OFFLINE and offline: true, or name a folder that holds the model',
    });
  }
  // A commit never changes.
  if (typeof cached === 'object' && COMMIT.test(asked.revision)) return cached;
  try {
    return await fromHub(asked, cache, typeof cached === 'object');
  } catch (error) {
    const isUnreachable = error instanceof HubError && error.cause instanceof PassingFault;
    if (!isUnreachable || typeof cached !== 'object') throw error;
    asked.onNotice(`${messageOf(error)}. Using what the cache has of ${nameOf(asked)}: ${cached.commit}`);
    return cached;
  }
}

/** What the cache has, or what it lacks in words. */
async function fromCache(asked: SnapshotRequest, cache: RepositoryCache): Promise<Snapshot | string> {
  const { kind, revision } = asked;
  const commit = await cache.commitOf(revision);
  if (commit === undefined) return `no ${revision} of it`;
  const folder = cache.snapshot(commit);
  const status = await stat(folder).catch(() => undefined);
  if (!status?.isDirectory()) return `nothing of commit ${commit}`;
  const files = await cache.tree(commit);
  const missing = files
    ? await missingOf(files, asked, cache, commit)
    : await missingByName(folder, kind, nameOf(asked));
  return missing.length > 0 ? `commit ${commit} without ${missing.join(', ')}` : { folder, commit };
}

/** By the listing that was kept of the commit. */
async function missingOf(
  files: ReadonlyMap<string, RemoteFile>,
  asked: SnapshotRequest,
  cache: RepositoryCache,
  commit: string,
): Promise<string[]> {
  const lacking = async (some: readonly RemoteFile[]): Promise<string[]> => {
    const has = await Promise.all(some.map((file) => cache.has(commit, file)));
    return some.filter((_, i) => !has[i]).map(({ path }) => path);
  };
  const wanted = wantedFiles(files, asked.kind, nameOf(asked));
  const missing = await lacking(wanted);
  if (missing.length > 0 || !wanted.some(({ path }) => path === INDEX)) return missing;
  return lacking(await shardsOf(join(cache.snapshot(commit), INDEX), files, nameOf(asked)));
}

/** Where no listing was kept, as by earlier versions of Python's: what no model of that kind can lack. */
async function missingByName(folder: string, kind: Kind, where: string): Promise<string[]> {
  const has = async (name: string): Promise<boolean> => (await sizeOf(join(folder, name))) !== undefined;
  const isAdapter = kind === 'model' && !(await has('config.json')) && (await has(ADAPTER[0]!));
  if (kind === 'adapter' || isAdapter)
    return (await Promise.all(ADAPTER.map(has))).flatMap((there, i) => (there ? [] : [ADAPTER[i]!]));
  const needed = kind === 'processor' ? ['tokenizer.json'] : ['config.json'];
  if (kind === 'model') {
    if (await has(SINGLE)) needed.push(SINGLE);
    else if (!(await has(INDEX))) return [`${SINGLE} or ${INDEX}`];
    else {
      const anything = { get: (path: string) => ({ path }) } as unknown as ReadonlyMap<string, RemoteFile>;
      needed.push(...(await shardsOf(join(folder, INDEX), anything, where)).map(({ path }) => path));
    }
  }
  const found = await Promise.all(needed.map(has));
  return needed.filter((_, i) => !found[i]);
}

async function fromHub(asked: SnapshotRequest, cache: RepositoryCache, isCached: boolean): Promise<Snapshot> {
  // With something to fall back on, an unreachable Hub is not waited for.
  const { settings } = asked;
  const retry = isCached
    ? { ...settings.retry, attempts: Math.min(2, settings.retry.attempts) }
    : settings.retry;
  const place = { ...asked, settings: { ...settings, retry } };
  const commit = COMMIT.test(asked.revision) ? asked.revision : await commitOf(place);
  let files = await cache.tree(commit);
  if (!files) {
    files = await filesOf({ ...place, commit });
    await cache.setTree(commit, files);
  }
  const download = new SnapshotDownload(asked, cache, commit);
  const wanted = wantedFiles(files, asked.kind, nameOf(asked));
  if (!files.has('config.json')) throw noModel(asked, files);
  await cache.setCommitOf(asked.revision, commit);
  const folder = cache.snapshot(commit);
  const index = wanted.find(({ path }) => path === INDEX);
  if (!index) {
    await download.fetch(wanted);
  } else {
    await download.fetch([index]);
    const shards = await shardsOf(join(folder, INDEX), files, nameOf(asked));
    await download.fetch([...wanted, ...shards]);
  }
  return { folder, commit };
}

class SnapshotDownload {
  readonly #done = new Map<RemoteFile, number>();

  constructor(
    readonly asked: SnapshotRequest,
    readonly cache: RepositoryCache,
    readonly commit: string,
  ) {}

  /** Several files at a time; the first failure stops the others. */
  async fetch(files: readonly RemoteFile[]): Promise<void> {
    const { asked, cache, commit } = this;
    const has = await Promise.all(files.map((file) => cache.has(commit, file)));
    const missing = files.filter((_, i) => !has[i]);
    if (missing.length === 0) return;
    await cache.makeFolders(commit);
    await this.#refuseFullDisk(missing);

    const totalBytes = files.reduce((sum, { numBytes }) => sum + numBytes, 0);
    for (const [i, file] of files.entries()) this.#done.set(file, has[i] ? file.numBytes : 0);
    const failed = new AbortController();
    const signal = asked.signal ? AbortSignal.any([asked.signal, failed.signal]) : failed.signal;
    const queue = missing.values();
    const work = async (): Promise<void> => {
      for (const file of queue) {
        signal.throwIfAborted();
        const onBytes = (numBytes: number): void => {
          this.#done.set(file, numBytes);
          const doneBytes = [...this.#done.values()].reduce((sum, bytes) => sum + bytes, 0);
          asked.onProgress?.({ repository: asked.repository, file: file.path, doneBytes, totalBytes });
        };
        await downloadBlob(file, { ...asked, cache, commit, signal, onBytes });
        await cache.link(commit, file);
      }
    };
    const workers = Array.from({ length: CONCURRENCY }, () =>
      work().catch((error: unknown) => {
        failed.abort(error); // keeps the first reason
      }),
    );
    await Promise.all(workers);
    asked.signal?.throwIfAborted();
    failed.signal.throwIfAborted();
  }

  async #refuseFullDisk(missing: readonly RemoteFile[]): Promise<void> {
    const blobs = join(this.cache.folder, 'blobs');
    const here = await Promise.all(
      missing.map(async (file) => {
        const blob = this.cache.blob(file);
        return Math.max((await sizeOf(blob)) ?? 0, (await sizeOf(`${blob}.sluice.incomplete`)) ?? 0);
      }),
    );
    const needed = missing.reduce((sum, { numBytes }, i) => sum + Math.max(0, numBytes - here[i]!), 0);
    const { bavail, bsize } = await statfs(blobs).catch((error: unknown) => {
      throw diskFault(blobs, error);
    });
    if (bavail * bsize >= needed) return;
    throw new HubError({
      where: nameOf(this.asked),
      expected: `${needed} free bytes in ${blobs}`,
      received: `${bavail * bsize} on that disk`,
      remedy: 'free space on that disk, or set HF_HUB_CACHE to a folder on another',
    });
  }
}

function noModel(asked: SnapshotRequest, files: ReadonlyMap<string, RemoteFile>): HubError {
  return new HubError({
    where: nameOf(asked),
    expected: 'a model: a repository with config.json',
    received: `${files.size} other files`,
    remedy: 'check the name; adapters and data sets are loaded otherwise',
  });
}
