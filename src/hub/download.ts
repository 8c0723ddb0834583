// One file of a repository into the cache: what an earlier attempt left is continued, what arrives is hashed on its way,
// and nothing bears the blob's name before its hash is right. One process downloads a blob at a time.

import { createHash, type Hash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { HubError } from '../errors.js';
import { withLockFile } from '../lock.js';
import { type RepositoryCache, sizeOf } from './cache.js';
import { diskFault, malformed, PassingFault, refusal } from './faults.js';
import { blobName, nameOf, type Place, type RemoteFile } from './listing.js';
import { request, withRetries } from './request.js';

export interface Download extends Place {
  readonly commit: string;
  readonly cache: RepositoryCache;
  /** Called with the bytes of the file that are here. */
  readonly onBytes?: (numBytes: number) => void;
}

/** Wrong bytes are fetched anew so many times. */
const MAX_TRIES = 2;

/** Downloads a file's blob, unless it is there.
 *  @throws {HubError} when it cannot be had, its bytes are wrong twice, or the disk is full
 *  @throws the signal's reason when it is aborted; what has arrived is kept for the next time */
export async function downloadBlob(file: RemoteFile, download: Download): Promise<void> {
  const { cache, signal, onBytes } = download;
  const blob = cache.blob(file);
  const isThere = async (): Promise<boolean> => (await sizeOf(blob)) === file.numBytes;
  if (!(await isThere())) {
    await withLockFile(
      cache.lock(file),
      async () => {
        if (!(await isThere())) await fetchBlob(file, blob, download);
      },
      { signal },
    );
  }
  onBytes?.(file.numBytes);
}

async function fetchBlob(file: RemoteFile, blob: string, download: Download): Promise<void> {
  const partial = `${blob}.sluice.incomplete`;
  await takeLeftover(`${blob}.incomplete`, partial, file);
  for (let tried = 1; ; tried++) {
    const hash = await fetchPartial(file, partial, download);
    if (hash === blobName(file)) break;
    await fs.rm(partial, { force: true });
    if (tried < MAX_TRIES) continue;
    throw new HubError({
      where: `${nameOf(download)}: ${file.path}`,
      expected: `${file.sha256 === undefined ? "git's SHA-1" : 'SHA-256'} ${blobName(file)}, as the Hub lists it`,
      received: `${hash}, ${tried} times`,
      remedy: 'it was removed; see whether a proxy changes what it passes on, or what HF_ENDPOINT says',
    });
  }
  await fs.rename(partial, blob).catch((error: unknown) => {
    throw diskFault(blob, error);
  });
}

/** Python's earlier versions leave half a file behind too, perhaps while they are still writing: hence the copy. */
async function takeLeftover(leftover: string, partial: string, { numBytes }: RemoteFile): Promise<void> {
  const [theirs = 0, ours = 0] = [await sizeOf(leftover), await sizeOf(partial)];
  if (theirs > ours && theirs <= numBytes) await fs.copyFile(leftover, partial).catch(() => undefined);
}

/** Completes the file. @returns its hash */
async function fetchPartial(file: RemoteFile, partial: string, download: Download): Promise<string> {
  let handle: fs.FileHandle;
  try {
    handle = await fs.open(partial, 'a+');
  } catch (error) {
    throw diskFault(partial, error);
  }
  try {
    const writer = new PartialFile(file, handle, partial, download.onBytes);
    await writer.readWhatIsThere(download.signal);
    await withRetries(
      `${nameOf(download)}: ${file.path}`,
      async () => {
        if (!writer.isComplete) await fetchRest(file, writer, download);
      },
      download.settings,
      { signal: download.signal, progress: () => writer.numBytes },
    );
    await writer.sync();
    return writer.digest();
  } finally {
    await handle.close();
  }
}

/** One connection's worth. @throws {PassingFault} when it ended early */
async function fetchRest(file: RemoteFile, writer: PartialFile, download: Download): Promise<void> {
  const { repository, commit, settings, signal } = download;
  const where = `${nameOf(download)}: ${file.path}`;
  const path = file.path.split('/').map(encodeURIComponent).join('/');
  const url = `${settings.endpoint}/${repository}/resolve/${commit}/${path}`;
  const headers: Record<string, string> = writer.numBytes > 0 ? { range: `bytes=${writer.numBytes}-` } : {};
  using answer = await request(url, { headers, signal }, settings);
  const { response } = answer;
  if (response.status === 416) {
    await writer.clear();
    throw new PassingFault('HTTP 416 for what is missing of it');
  }
  if (!response.ok) {
    throw await refusal(response, {
      what: where,
      repository,
      endpoint: settings.endpoint,
      token: settings.token,
    });
  }
  if (writer.numBytes > 0 && startOf(response) !== writer.numBytes) {
    await writer.clear(); // the server begins anew
    if (response.status === 206) throw new PassingFault('another part of it than was asked for');
  }
  for await (const chunk of answer.chunks()) {
    if (writer.numBytes + chunk.length > file.numBytes) {
      await writer.clear();
      throw malformed(where, `${file.numBytes} bytes, as the Hub lists it`, 'more');
    }
    await writer.write(chunk);
  }
  if (writer.isComplete) return;
  throw new PassingFault(`${writer.numBytes} of ${file.numBytes} bytes, then the end of the connection`);
}

/** The first byte that a response brings. */
function startOf({ status, headers }: Response): number {
  if (status !== 206) return 0;
  return Number(/^bytes (\d+)-/.exec(headers.get('content-range') ?? '')?.[1] ?? NaN);
}

/** A file that grows at its end, and the hash of what it holds. */
class PartialFile {
  numBytes = 0;
  #hash: Hash;

  constructor(
    readonly file: RemoteFile,
    readonly handle: fs.FileHandle,
    readonly path: string,
    readonly onBytes: ((numBytes: number) => void) | undefined,
  ) {
    this.#hash = hashOf(file);
  }

  get isComplete(): boolean {
    return this.numBytes === this.file.numBytes;
  }

  /** Hashes what an earlier download left. */
  async readWhatIsThere(signal: AbortSignal | undefined): Promise<void> {
    if ((await this.handle.stat()).size > this.file.numBytes) return this.clear();
    const buffer = new Uint8Array(2 ** 20);
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await this.handle.read(buffer, 0, buffer.length, this.numBytes);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.numBytes += bytesRead;
    }
    this.onBytes?.(this.numBytes);
  }

  async write(chunk: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < chunk.length;) {
        done += (await this.handle.write(chunk, done)).bytesWritten;
      }
    } catch (error) {
      // what was written of the chunk is not in the hash; a later download reads the file again
      throw diskFault(this.path, error);
    }
    this.#hash.update(chunk);
    this.numBytes += chunk.length;
    this.onBytes?.(this.numBytes);
  }

  async clear(): Promise<void> {
    await this.handle.truncate(0);
    this.#hash = hashOf(this.file);
    this.numBytes = 0;
  }

  async sync(): Promise<void> {
    await this.handle.datasync().catch((error: unknown) => {
      throw diskFault(this.path, error);
    });
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

/** SHA-256 of the bytes, or what git computes of a file. */
function hashOf({ sha256, numBytes }: RemoteFile): Hash {
  return sha256 === undefined ? createHash('sha1').update(`blob ${numBytes}\0`) : createHash('sha256');
}
