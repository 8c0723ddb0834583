// The Hub's cache on this machine, laid out as Python's huggingface_hub lays it out, so that either uses what the other
// downloaded:
//
//   models--OWNER--NAME/
//     blobs/HASH                     a file's bytes, by SHA-256 (large files) or git's SHA-1
//     refs/REVISION                  the commit that a branch or tag stood for when it was last asked for
//     snapshots/COMMIT/PATH          links to blobs: ../../blobs/HASH
//     trees/COMMIT.json              the commit's files, so that a snapshot can be found complete without a network

import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { diskFault } from './faults.js';
import { blobName, checkedFile, COMMIT, type RemoteFile } from './listing.js';

const TREE_VERSION = 1;

export class RepositoryCache {
  readonly folder: string;
  readonly #locks: string;

  /** @param repository 'owner/name' */
  constructor(cacheFolder: string, repository: string) {
    const name = `models--${repository.replaceAll('/', '--')}`;
    this.folder = join(cacheFolder, name);
    this.#locks = join(cacheFolder, '.locks', name);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }
  blob(file: RemoteFile): string {
    return join(this.folder, 'blobs', blobName(file));
  }
  /** Python's own locks are of a kind that Node has not; the two are not in each other's way, since each writes beside. */
  lock(file: RemoteFile): string {
    return join(this.#locks, `${blobName(file)}.sluice.lock`);
  }

  /** The commit that a revision stood for last, or undefined. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision;
    const commit = await fs.readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => '');
    return COMMIT.test(commit.trim()) ? commit.trim() : undefined;
  }

  /** Notes what a revision stands for. */
  async setCommitOf(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    await writeWhole(join(this.folder, 'refs', revision), commit);
  }

  /** The files of a commit as they were listed once, or undefined. */
  async tree(commit: string): Promise<ReadonlyMap<string, RemoteFile> | undefined> {
    try {
      const path = this.#tree(commit);
      const json = JSON.parse(await fs.readFile(path, 'utf8')) as Tree;
      if (json.format_version !== TREE_VERSION) return undefined;
      return new Map(
        Object.entries(json.files).map(([name, { size, blob_id, lfs_sha256, lfs_size, xet_hash }]) => [
          name,
          checkedFile(
            {
              path: name,
              numBytes: lfs_size ?? size,
              oid: blob_id,
              sha256: lfs_sha256,
              xetHash: xet_hash,
            },
            path,
          ),
        ]),
      );
    } catch {
      return undefined; // none, or a damaged one: it is asked for again
    }
  }

  /** Keeps a commit's listing. */
  async setTree(commit: string, files: ReadonlyMap<string, RemoteFile>): Promise<void> {
    const entries = [...files.values()].map(({ path, numBytes, oid, sha256, xetHash }) => [
      path,
      {
        size: numBytes,
        blob_id: oid,
        ...(sha256 !== undefined && { lfs_sha256: sha256, lfs_size: numBytes }),
        ...(xetHash !== undefined && { xet_hash: xetHash }),
      },
    ]);
    const tree = {
      format_version: TREE_VERSION,
      files: Object.fromEntries(entries.sort(([a], [b]) => (a! < b! ? -1 : 1))) as object,
    };
    await writeWhole(this.#tree(commit), JSON.stringify(tree, undefined, 1));
  }

  /** Whether a snapshot has a file, whole. */
  async has(commit: string, { path, numBytes }: RemoteFile): Promise<boolean> {
    return (await sizeOf(join(this.snapshot(commit), path))) === numBytes;
  }

  /** Makes the folders that a download needs. */
  async makeFolders(commit: string): Promise<void> {
    for (const folder of [join(this.folder, 'blobs'), this.snapshot(commit), this.#locks]) {
      await fs.mkdir(folder, { recursive: true }).catch((error: unknown) => {
        throw diskFault(folder, error);
      });
    }
  }

  /** Puts a file whose blob is there into a snapshot: a link, or a copy where the disk has no links. */
  async link(commit: string, file: RemoteFile): Promise<void> {
    const [blob, place] = [this.blob(file), join(this.snapshot(commit), file.path)];
    const beside = besideOf(place);
    try {
      await fs.mkdir(dirname(place), { recursive: true });
      await fs.symlink(relative(dirname(place), blob), beside).catch(() => fs.copyFile(blob, beside));
      await fs.rename(beside, place);
    } catch (error) {
      await fs.rm(beside, { force: true });
      throw diskFault(place, error);
    }
  }

  #tree(commit: string): string {
    return join(this.folder, 'trees', `${commit}.json`);
  }
}

interface Tree {
  readonly format_version: unknown;
  readonly files: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** Bytes of a file, links followed; undefined when there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  const status = await fs.stat(path).catch(() => undefined);
  return status?.isFile() ? status.size : undefined;
}

async function writeWhole(path: string, text: string): Promise<void> {
  const beside = besideOf(path);
  try {
    await fs.mkdir(dirname(path), { recursive: true });
    await fs.writeFile(beside, text);
    await fs.rename(beside, path);
  } catch (error) {
    await fs.rm(beside, { force: true }).catch(() => undefined);
    throw diskFault(path, error);
  }
}

function besideOf(path: string): string {
  return `${path}.${randomUUID().slice(0, 8)}.tmp`;
}
