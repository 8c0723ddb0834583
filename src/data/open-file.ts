// A file that is read in pieces at given places, of this machine or a server, and is closed when its scope ends.

import { DataError, messageOf } from '../errors.js';
import { gather, type Stretch } from './gather.js';
import { LocalFile, changedFault } from './local-file.js';
import { RemoteFile } from './remote-file.js';
import { isRemote } from './remote-url.js';
import type { Stamp } from './stamp.js';

export type { Stamp } from './stamp.js';

export interface OpenOptions {
  /** Ends requests to a server, and waits for a disk or share that fails for a moment. */
  readonly signal?: AbortSignal | undefined;
  /** Ask a server what the file is now; by default that is asked once a process. */
  readonly afresh?: boolean | undefined;
}

/** @example await using file = await OpenFile.open(path) */
export class OpenFile implements AsyncDisposable {
  /** For messages and origins: a path, or an address without the secrets in it. */
  readonly path: string;
  readonly stamp: Stamp;
  readonly #handle: LocalFile | RemoteFile;
  readonly #closing: AbortController;

  private constructor(path: string, handle: LocalFile | RemoteFile, stamp: Stamp, closing: AbortController) {
    this.path = path;
    this.#handle = handle;
    this.stamp = stamp;
    this.#closing = closing;
  }

  /** @param path of this machine, or an address (see `remoteUrl`)
   *  @param kind what is looked for, for the message
   *  @throws {DataError} when there is no file of that name, or it cannot be read */
  static async open(
    path: string,
    kind = 'Parquet file',
    { signal, afresh = false }: OpenOptions = {},
  ): Promise<OpenFile> {
    const closing = new AbortController();
    if (isRemote(path)) {
      const ended = signal ? AbortSignal.any([signal, closing.signal]) : closing.signal;
      const file = await RemoteFile.open(path, { signal: ended, afresh });
      return new OpenFile(file.name, file, file.stamp, closing);
    }
    try {
      const file = await LocalFile.open(path, signal);
      return new OpenFile(path, file, file.stamp, closing);
    } catch (cause) {
      if (signal?.aborted) throw cause;
      throw openFault(path, kind, cause);
    }
  }

  /** @throws {DataError} when the file is another, or was written to, since the stamp was taken */
  assertUnchanged({ size, mtimeMs, etag }: Stamp): void {
    const now = this.stamp;
    if (size === now.size && mtimeMs === now.mtimeMs && etag === now.etag) return;
    throw changedFault(this.path, size, now.size);
  }

  /** Bytes [start, start + length) in a buffer of their own. */
  read(start: number, length: number): Promise<Uint8Array> {
    return this.#handle.read(start, length);
  }

  /** For reading stretches one after another, each once: from a server neighbours come together, and some ahead.
   *  @returns reads stretch `index`; its bytes may be a view of what came with them */
  gather(stretches: readonly Stretch[]): (index: number) => Promise<Uint8Array> {
    if (this.#handle instanceof RemoteFile) return gather(this.#handle, stretches);
    return (index) => this.read(stretches[index]!.start, stretches[index]!.size);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    if (!(this.#handle instanceof RemoteFile)) await this.#handle.close();
  }
}

function openFault(path: string, kind: string, cause: unknown): DataError {
  const code = (cause as NodeJS.ErrnoException).code ?? '';
  const [received, remedy] = {
    ENOENT: ['no such file', 'correct the path'],
    EACCES: ['permission denied', `make it readable: chmod a+r ${path}`],
    EPERM: ['permission denied', `make it readable: chmod a+r ${path}`],
    EISDIR: ['a folder', 'name the files in it'],
    EMFILE: ['too many open files', 'raise the limit: ulimit -n 4096'],
  }[code] ?? [messageOf(cause), 'correct the path or the disk'];
  return new DataError(
    { where: path, expected: `a readable ${kind}`, received: received!, remedy: remedy! },
    { cause },
  );
}
