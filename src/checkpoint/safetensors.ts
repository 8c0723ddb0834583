// One safetensors file: its header read and checked, its data mapped into memory and viewed as tensors.

import * as fs from 'node:fs';
import { empty, MappedFile, noGrad, scope, type DType, type Tensor } from '../tensor/index.js';
import { checkpointFault, quote, readFault, showShape } from './faults.js';
import { elementBytes, engineDType, headerLength, parseHeader, prefixBytes } from './header.js';
import type { Header, TensorEntry } from './header.js';

/** Something that tensors are read from by name: one file or a folder of shards. */
export interface TensorSource {
  readonly names: readonly string[];
  /** @throws {CheckpointError} when there is no such tensor */
  entry(name: string): TensorEntry;
  /** The file that holds a tensor. */
  fileOf(name: string): string;
  /** A copy on the CPU, in the dtype stored. */
  read(name: string): Tensor;
  /** A copy on the CPU of some of a tensor's first dimension, in the dtype stored: [count, ...]. */
  readRows(name: string, start: number, count: number): Tensor;
  /** A tensor's bytes where they lie in the file, on the CPU; valid also after `close`, as long as the file is not cut. */
  view(name: string): Tensor;
  /** Copies a tensor into `target`, converting its dtype and moving it on the way. */
  copyInto(name: string, target: Tensor): void;
  close(): void;
}

/** Bytes copied at a time, so that few of the file's pages are in memory beside the copy. */
const chunkBytes = 64 * 2 ** 20;

/** A safetensors file, open for reading. The file must not be changed while it is open. */
export class SafetensorsFile implements TensorSource {
  readonly path: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly names: readonly string[];
  readonly #map: MappedFile;

  /** @throws {CheckpointError} when it cannot be read or its header does not fit the file */
  constructor(path: string) {
    const { header, fileBytes } = readHeader(path);
    this.path = path;
    this.entries = header.entries;
    this.metadata = header.metadata;
    this.names = [...header.entries.keys()];
    try {
      this.#map = new MappedFile(path, fileBytes);
    } catch (cause) {
      throw readFault(path, 'a file that can be mapped', cause);
    }
  }

  entry(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    throw checkpointFault(this.path, name, {
      expected: 'to find it',
      received: `a file of ${this.names.length} other tensors`,
      remedy: 'check the name, or download or save the file again',
    });
  }

  fileOf(): string {
    return this.path;
  }

  /** A view of a tensor's bytes on the CPU; valid as long as it lives, also after `close`. */
  view(name: string): Tensor {
    const entry = this.entry(name);
    const dtype = this.#dtypeOf(name);
    try {
      return this.#map.tensor(entry.begin, entry.end - entry.begin, dtype, entry.shape);
    } catch (cause) {
      throw readFault(this.path, `to read tensor ${quote(name)}`, cause);
    }
  }

  read(name: string): Tensor {
    const { shape } = this.entry(name);
    return this.#readNew(name, 0, shape);
  }

  readRows(name: string, start: number, count: number): Tensor {
    const { shape } = this.entry(name);
    return this.#readNew(name, start, [count, ...shape.slice(1)]);
  }

  /** Rows from `start` on, in the dtype stored. */
  #readNew(name: string, start: number, shape: readonly number[]): Tensor {
    const entry = this.entry(name);
    const copy = empty(shape, { dtype: this.#dtypeOf(name), device: 'cpu' });
    try {
      const rowBytes = (entry.end - entry.begin) / Math.max(1, entry.shape[0] ?? 1);
      this.#map.read(entry.begin + start * rowBytes, copy.dtype, copy);
      return copy;
    } catch (cause) {
      copy.dispose();
      throw readFault(this.path, `to read tensor ${quote(name)}`, cause);
    }
  }

  /** @param target of the same shape, any float dtype and device; may require a gradient */
  copyInto(name: string, target: Tensor): void {
    const entry = this.entry(name);
    if (!sameShape(entry.shape, target.shape)) {
      throw checkpointFault(this.path, name, {
        expected: `shape ${showShape(target.shape)}`,
        received: showShape(entry.shape),
        remedy: 'use the config.json that belongs to these weights',
      });
    }
    try {
      if (this.#map.read(entry.begin, this.#dtypeOf(name), target)) return;
    } catch (cause) {
      throw readFault(this.path, `to read tensor ${quote(name)}`, cause);
    }
    this.#copyPieces(name, entry, target);
  }

  /** To another device, or into a view: by way of the mapping, whose pages are let go of behind it. */
  #copyPieces(name: string, entry: TensorEntry, target: Tensor): void {
    const [numRows = 0] = entry.shape;
    const rowBytes = numRows > 0 ? (entry.end - entry.begin) / numRows : 0;
    if (entry.end - entry.begin <= chunkBytes || entry.shape.length === 0) {
      scope(() => noGrad(() => target.copy_(this.view(name))));
      this.#map.release(entry.begin, entry.end - entry.begin);
      return;
    }
    const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
    for (let row = 0; row < numRows; row += step) {
      const count = Math.min(step, numRows - row);
      scope(() =>
        noGrad(() =>
          target
            .detach()
            .narrow(0, row, count)
            .copy_(this.view(name).narrow(0, row, count)),
        ),
      );
      this.#map.release(entry.begin + row * rowBytes, count * rowBytes);
    }
  }

  #dtypeOf(name: string): DType {
    const entry = this.entry(name);
    const dtype = engineDType(entry.dtype);
    if (dtype !== undefined) return dtype;
    throw checkpointFault(this.path, name, {
      expected: 'a dtype that can be computed with',
      received: entry.dtype,
      remedy: 'convert the checkpoint to F32, BF16 or F16',
    });
  }

  close(): void {
    this.#map.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Reads and checks a file's header without mapping its data. */
export function readHeader(path: string): { header: Header; fileBytes: number } {
  let file: number | undefined;
  try {
    file = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    const status = fs.fstatSync(file);
    if (!status.isFile()) {
      throw checkpointFault(path, undefined, {
        expected: 'a safetensors file',
        received: status.isDirectory() ? 'a folder' : 'something that is not a file',
        remedy: 'check the path',
      });
    }
    const length = headerLength(readBytes(file, 0, prefixBytes), status.size, path);
    const header = parseHeader(readBytes(file, prefixBytes, length), status.size, path);
    return { header, fileBytes: status.size };
  } catch (cause) {
    throw readFault(path, 'a safetensors file', cause);
  } finally {
    if (file !== undefined) fs.closeSync(file);
  }
}

/** Bytes of a tensor in a file. */
export function numBytesOf(entry: Pick<TensorEntry, 'dtype' | 'shape'>): number {
  return entry.shape.reduce((product, size) => product * size, elementBytes(entry.dtype));
}

function readBytes(file: number, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = fs.readSync(file, bytes, done, length - done, position + done);
    if (count === 0) break;
    done += count;
  }
  return bytes.subarray(0, done);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, dim) => size === b[dim]);
}
