// What a repository holds at a commit: asked of the Hub through @huggingface/hub, and checked, since servers are
// strangers: names that stay in their folder, hashes that are hashes, sizes that are sizes.

import { messageOf, SluiceError } from '../errors.js';
import { cleaned, malformed, refusal } from './faults.js';
import { request, withRetries } from './request.js';
import type { HubSettings } from './settings.js';

/** One file of a commit. */
export interface RemoteFile {
  /** Inside the repository, with slashes. */
  readonly path: string;
  readonly numBytes: number;
  /** git's SHA-1 of the file, or of the pointer that stands for it. */
  readonly oid: string;
  /** Of a file in large-file storage: SHA-256 of its bytes. */
  readonly sha256: string | undefined;
  /** Of a file in Xet's storage. Only carried along. */
  readonly xetHash: string | undefined;
}

/** The name of its blob in the cache. */
export function blobName({ sha256, oid }: RemoteFile): string {
  return sha256 ?? oid;
}

export const COMMIT = /^[0-9a-f]{40}$/;
/** Of JSON: no listing of a model comes near it. */
const MAX_ANSWER_BYTES = 64 * 2 ** 20;
const MAX_FILES = 100_000;

export interface Place {
  /** 'owner/name' */
  readonly repository: string;
  readonly revision: string;
  readonly settings: HubSettings;
  readonly signal?: AbortSignal | undefined;
}

/** The commit that a branch, tag or short hash stands for now.
 *  @throws {HubError} when there is no such model or revision, it may not be read, or there is no connection */
export async function commitOf(place: Place): Promise<string> {
  const { repository, revision, settings } = place;
  const { modelInfo } = await import('@huggingface/hub');
  const info = await asked(place, () =>
    modelInfo({
      name: repository,
      revision,
      hubUrl: settings.endpoint,
      additionalFields: ['sha'],
      fetch: fetchOf(place),
    }),
  );
  if (typeof info.sha === 'string' && COMMIT.test(info.sha)) return info.sha;
  throw malformed(nameOf(place), 'a commit of 40 hexadecimal digits', show(info.sha));
}

/** The files of a commit, by path.
 *  @throws {HubError} likewise, and when the listing is not one that a Hub would send */
export async function filesOf(place: Place & { commit: string }): Promise<ReadonlyMap<string, RemoteFile>> {
  const { repository, settings, commit } = place;
  const { listFiles } = await import('@huggingface/hub');
  return asked(place, async () => {
    const files = new Map<string, RemoteFile>();
    const entries = listFiles({
      repo: repository,
      revision: commit,
      recursive: true,
      hubUrl: settings.endpoint,
      fetch: fetchOf(place),
    });
    for await (const { type, path, size, oid, lfs, xetHash } of entries) {
      if (type === 'directory') continue;
      const file = checkedFile(
        { path, numBytes: lfs?.size ?? size, oid, sha256: lfs?.oid, xetHash },
        nameOf(place),
      );
      files.set(file.path, file);
      if (files.size > MAX_FILES) throw malformed(nameOf(place), `at most ${MAX_FILES} files`, 'more');
    }
    return files;
  });
}

/** @param file as a server, or a file of the cache, has it
 *  @throws {HubError} */
export function checkedFile(file: Readonly<Record<keyof RemoteFile, unknown>>, where: string): RemoteFile {
  const { path, numBytes, oid, sha256, xetHash } = file;
  if (typeof path !== 'string' || !staysInside(path)) {
    throw malformed(where, 'paths inside the repository', show(path));
  }
  if (!Number.isSafeInteger(numBytes) || (numBytes as number) < 0) {
    throw malformed(`${where}: ${path}`, 'a size in bytes', show(numBytes));
  }
  if (typeof oid !== 'string' || !COMMIT.test(oid)) {
    throw malformed(`${where}: ${path}`, "git's hash of 40 hexadecimal digits", show(oid));
  }
  if (sha256 !== undefined && (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))) {
    throw malformed(`${where}: ${path}`, 'a SHA-256 of 64 hexadecimal digits', show(sha256));
  }
  return {
    path,
    numBytes: numBytes as number,
    oid,
    sha256,
    xetHash: typeof xetHash === 'string' ? xetHash : undefined,
  };
}

export function nameOf({ repository, revision }: Pick<Place, 'repository' | 'revision'>): string {
  return revision === 'main' ? repository : `${repository} at ${revision}`;
}

/** No absolute path, no step upwards, on any system. */
function staysInside(path: string): boolean {
  if (path === '' || path.length > 1024 || /[\0-\x1f\x7f\\:]/.test(path)) return false;
  return path.split('/').every((step) => step !== '' && step !== '.' && step !== '..');
}

/** Errors of the library are ours: it can only fail on what a server sent. */
async function asked<T>(place: Place, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    place.signal?.throwIfAborted();
    if (error instanceof SluiceError) throw error;
    const received = cleaned(messageOf(error), place.settings.token);
    throw malformed(nameOf(place), "an answer of the Hub's API", `one that cannot be read (${received})`);
  }
}

/** The library's fetch: with our token, our retries and our bounds. */
function fetchOf(place: Place): typeof fetch {
  const { repository, settings, signal } = place;
  return async (input) => {
    const url = input instanceof Request ? input.url : String(input);
    const where = nameOf(place);
    return withRetries(
      where,
      async () => {
        using answer = await request(url, { headers: { accept: 'application/json' }, signal }, settings);
        const { response } = answer;
        if (!response.ok) {
          throw await refusal(response, {
            what: where,
            repository,
            endpoint: settings.endpoint,
            token: settings.token,
          });
        }
        const chunks: Uint8Array[] = [];
        let numBytes = 0;
        for await (const chunk of answer.chunks()) {
          chunks.push(chunk);
          numBytes += chunk.length;
          if (numBytes > MAX_ANSWER_BYTES) throw malformed(where, 'a listing of files', 'one without end');
        }
        const link = response.headers.get('link');
        return new Response(Buffer.concat(chunks), { headers: { ...(link !== null && { link }) } });
      },
      settings,
      { signal },
    );
  };
}

function show(value: unknown): string {
  return cleaned(JSON.stringify(value) ?? 'nothing', undefined);
}
