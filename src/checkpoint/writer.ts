// Tensors to safetensors files: planned from shapes alone, then streamed a few megabytes at a time, so that saving needs
// next to no memory of its own. The same tensors in the same order give the same bytes.

import * as fs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { noGrad, scope, type DType, type Tensor } from '../tensor/index.js';
import { replaceFile, withFile, writeAll } from './atomic.js';
import { checkpointFault, writeFault } from './faults.js';
import { elementBytes, encodeHeader, storedDType, type StoredDType } from './header.js';
import { numBytesOf } from './safetensors.js';
import { indexFile, shardFile, singleFile } from './shards.js';

export type NamedTensor = readonly [name: string, tensor: Tensor];
/** What can be written. */
export type NamedSource = readonly [name: string, tensor: Tensor | StreamedTensor];

/** A tensor that is made while it is written, so that it need not be in memory whole. */
export interface StreamedTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Its elements in order, a piece at a time; each piece is freed once it is written. */
  pieces(): Iterable<Tensor>;
}

/** A tensor in line to be written. */
interface Planned {
  readonly name: string;
  readonly tensor: Tensor | StreamedTensor;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly numBytes: number;
}

/** Says, as other tools do, that the tensors lie as PyTorch lays them. */
const metadata = { format: 'pt' };
const chunkBytes = 32 * 2 ** 20;
/** Shards of at most 5 GB, unless told otherwise. */
export const defaultShardBytes = 5e9;

/** Writes one file, whole or not at all. Tensors must not change until it is done.
 *  @throws {CheckpointError} when the disk is full or the place cannot be written */
export async function writeSafetensors(path: string, tensors: Iterable<NamedSource>): Promise<void> {
  const planned = plan(tensors);
  await refuseFullDisk(path, totalBytes(planned));
  await replaceFile(path, (handle) => stream(handle, planned));
}

/** Writes model.safetensors, or shards of at most `maxShardBytes` of tensors and their index, into a folder that is
 *  being filled (see `replaceFolder`). Tensors are put into shards in the order given; one that is larger than a shard
 *  has one for itself.
 *  @throws {CheckpointError} when the disk is full or the place cannot be written */
export async function writeShards(
  folder: string,
  tensors: Iterable<NamedSource>,
  { maxShardBytes = defaultShardBytes }: { maxShardBytes?: number } = {},
): Promise<void> {
  if (!(maxShardBytes >= 1)) {
    throw checkpointFault(folder, undefined, {
      expected: 'maxShardBytes of 1 or more',
      received: String(maxShardBytes),
      remedy: `leave it out for ${defaultShardBytes}`,
    });
  }
  const planned = plan(tensors);
  await refuseFullDisk(join(folder, singleFile), totalBytes(planned));
  const shards = divide(planned, maxShardBytes);
  try {
    if (shards.length === 1) {
      await withFile(join(folder, singleFile), (handle) => stream(handle, shards[0]!));
      return;
    }
    const fileOf = new Map<string, string>();
    for (const [number, shard] of shards.entries()) {
      const file = shardFile(number + 1, shards.length);
      await withFile(join(folder, file), (handle) => stream(handle, shard));
      for (const { name } of shard) fileOf.set(name, file);
    }
    const index = {
      metadata: {
        total_parameters: planned.reduce((sum, { shape }) => sum + numElements(shape), 0),
        total_size: totalBytes(planned),
      },
      weight_map: Object.fromEntries([...fileOf].sort(([a], [b]) => (a < b ? -1 : 1))),
    };
    await withFile(join(folder, indexFile), (handle) => writeJson(handle, index));
  } catch (error) {
    throw writeFault(folder, error);
  }
}

/** Writes JSON as Hugging Face does: two spaces, a newline at the end. */
export async function writeJson(handle: fs.FileHandle, value: unknown): Promise<void> {
  await writeAll(handle, new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`));
}

function plan(tensors: Iterable<NamedSource>): Planned[] {
  return Array.from(tensors, ([name, tensor]) => {
    const dtype = storedDType(tensor.dtype);
    const { shape } = tensor;
    return { name, tensor, dtype, shape, numBytes: numBytesOf({ dtype, shape }) };
  });
}

function divide(planned: readonly Planned[], maxShardBytes: number): Planned[][] {
  const shards: Planned[][] = [[]];
  let bytes = 0;
  for (const one of planned) {
    if (bytes > 0 && bytes + one.numBytes > maxShardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(one);
    bytes += one.numBytes;
  }
  return shards;
}

/** Writes header and data. Wide elements come first, so that each tensor is aligned to its elements. */
async function stream(handle: fs.FileHandle, planned: readonly Planned[]): Promise<void> {
  const ordered = [...planned].sort(
    (a, b) => elementBytes(b.dtype) - elementBytes(a.dtype) || (a.name < b.name ? -1 : 1),
  );
  await writeAll(handle, encodeHeader(ordered, metadata));
  for (const { name, tensor, dtype, numBytes } of ordered) {
    if ('pieces' in tensor) {
      await streamPieces(handle, name, tensor, numBytes);
      continue;
    }
    // a view of it, unless its elements do not lie in order
    using flat = scope(() => noGrad(() => tensor.detach().flatten()));
    const step = chunkBytes / elementBytes(dtype);
    for (let start = 0; start < flat.numel; start += step) {
      const count = Math.min(step, flat.numel - start);
      using piece = scope(() => flat.narrow(0, start, count));
      await append(handle, piece);
    }
  }
}

/** A thread that is there to write does so itself, from the tensor's memory and at its own priority; the main thread's
 *  other work must not wait for a disk. */
async function append(handle: fs.FileHandle, piece: Tensor): Promise<void> {
  if (isMainThread) await writeAll(handle, piece.toBytes());
  else piece.writeTo(handle.fd);
}

async function streamPieces(
  handle: fs.FileHandle,
  name: string,
  tensor: StreamedTensor,
  numBytes: number,
): Promise<void> {
  let written = 0;
  for (const piece of tensor.pieces()) {
    using owned = piece;
    await append(handle, owned);
    written += owned.numBytes;
  }
  if (written !== numBytes) throw new Error(`${name}: ${written} bytes in pieces, ${numBytes} planned`);
}

function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function totalBytes(planned: readonly Planned[]): number {
  return planned.reduce((sum, { numBytes }) => sum + numBytes, 0);
}

/** Says so before hours of writing, where the disk tells how much is free.
 *  @param path in a folder that is there
 *  @throws {CheckpointError} */
export async function refuseFullDisk(path: string, needed: number): Promise<void> {
  const { bavail, bsize } = await fs.statfs(dirname(path)).catch((error: unknown) => {
    throw writeFault(path, error);
  });
  if (bavail * bsize >= needed) return;
  throw checkpointFault(path, undefined, {
    expected: `${needed} free bytes to write the checkpoint`,
    received: `${bavail * bsize} on that disk`,
    remedy: 'free space on that disk or choose another folder; earlier checkpoints are untouched',
  });
}
