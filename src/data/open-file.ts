// A file that is read in pieces at given places, and is closed when its scope ends.

import { open, type FileHandle } from 'node:fs/promises';
import { DataError, messageOf } from '../errors.js';

/** What tells that a file is still the one that was opened. */
export interface Stamp {
  readonly size: number;
  readonly mtimeMs: number;
}

/** @example await using file = await OpenFile.open(path) */
export class OpenFile implements AsyncDisposable {
  readonly path: string;
  readonly stamp: Stamp;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle, stamp: Stamp) {
    this.path = path;
    this.#handle = handle;
    this.stamp = stamp;
  }

  /** @param kind what is looked for, for the message
   *  @throws {DataError} when there is no file of that name, or it cannot be read */
  static async open(path: string, kind = 'Parquet file'): Promise<OpenFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'r');
      const { size, mtimeMs } = await handle.stat().then((stats) => {
        if (!stats.isFile()) throw Object.assign(new Error('not a file'), { code: 'EISDIR' });
        return stats;
      });
      return new OpenFile(path, handle, { size, mtimeMs });
    } catch (cause) {
      await handle?.close();
      throw openFault(path, kind, cause);
    }
  }

  /** @throws {DataError} when the file is another, or was written to, since the stamp was taken */
  assertUnchanged({ size, mtimeMs }: Stamp): void {
    if (size === this.stamp.size && mtimeMs === this.stamp.mtimeMs) return;
    throw new DataError({
      where: this.path,
      expected: `the file that the run began with, of ${size} bytes`,
      received: `one of ${this.stamp.size} bytes, written since`,
      remedy: 'leave data files alone while a run reads them, and start it again',
    });
  }

  /** Bytes [start, start + length) in a buffer of their own. */
  async read(start: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await this.#handle.read(bytes, done, length - done, start + done);
      if (bytesRead === 0) throw new RangeError(`the file ends at byte ${start + done}`);
      done += bytesRead;
    }
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
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
