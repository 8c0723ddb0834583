// A file of this machine that is open: read in pieces, again where the disk or share fails for a moment, and never as a
// mixture of what it was and what somebody makes of it meanwhile.

import { open, type FileHandle } from 'node:fs/promises';
import { DataError } from '../errors.js';
import { retry } from '../retry.js';

/** Opening, apart so that tests can put a failing one in its place. */
export const disk = { open: (path: string): Promise<FileHandle> => open(path, 'r') };

export class LocalFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #signal: AbortSignal | undefined;
  readonly #reading = new Set<Promise<void>>();
  readonly stamp: { readonly size: number; readonly mtimeMs: number };

  private constructor(
    path: string,
    handle: FileHandle,
    stamp: { readonly size: number; readonly mtimeMs: number },
    signal: AbortSignal | undefined,
  ) {
    this.#path = path;
    this.#handle = handle;
    this.#signal = signal;
    this.stamp = stamp;
  }

  /** @param signal ends the waiting between attempts
   *  @throws the system's error; EISDIR where it is no file */
  static open(path: string, signal?: AbortSignal): Promise<LocalFile> {
    const attempt = async (): Promise<LocalFile> => {
      const handle = await disk.open(path);
      try {
        const stats = await handle.stat();
        if (!stats.isFile()) throw Object.assign(new Error('not a file'), { code: 'EISDIR' });
        return new LocalFile(path, handle, { size: stats.size, mtimeMs: stats.mtimeMs }, signal);
      } catch (error) {
        await handle.close();
        throw error;
      }
    };
    return retry(attempt, { where: path, signal });
  }

  /** Bytes [start, start + length) in a buffer of their own.
   *  @throws {DataError} when the file was written to since it was opened {RangeError} when it ends before */
  async read(start: number, length: number): Promise<Uint8Array> {
    const reading = this.#read(start, length);
    const settled = reading.then(
      () => {},
      () => {},
    );
    this.#reading.add(settled);
    try {
      return await reading;
    } finally {
      this.#reading.delete(settled);
    }
  }

  async #read(start: number, length: number): Promise<Uint8Array> {
    const options = { where: `${this.#path}, byte ${start}`, signal: this.#signal };
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await retry(
        () => this.#handle.read(bytes, done, length - done, start + done),
        options,
      );
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    // What was written while these bytes were read may be among them.
    const now = await retry(() => this.#handle.stat(), options);
    if (now.size !== this.stamp.size || now.mtimeMs !== this.stamp.mtimeMs) {
      throw changedFault(this.#path, this.stamp.size, now.size);
    }
    if (done < length) throw new RangeError(`the file ends at byte ${start + done}`);
    return bytes;
  }

  /** After the reads that have begun. */
  async close(): Promise<void> {
    await Promise.all(this.#reading);
    await this.#handle.close();
  }
}

/** @param size in bytes, when the run began @param now as it is found */
export function changedFault(path: string, size: number, now: number): DataError {
  return new DataError({
    where: path,
    expected: `the file that the run began with, of ${size} bytes`,
    received: `one of ${now} bytes, written since`,
    remedy: 'leave data files alone while a run reads them, and start it again',
  });
}
