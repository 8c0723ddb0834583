// What a model's folder is written from, as Hugging Face lays it out: files that are there already, and weights. Apart
// from the model, so that another thread can write what the model's own thread has set down.

import { join } from 'node:path';
import { noGrad, scope, type DType, type Tensor } from '../tensor/index.js';
import { withFile } from './atomic.js';
import { writeShards, type NamedSource, type StreamedTensor } from './writer.js';

const PIECE_BYTES = 32 * 2 ** 20;

/** A model ready to be written. */
export interface ModelFiles {
  /** config.json and what else lies beside the weights, by name. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly weights: readonly WritableWeight[];
}

/** A weight and the dtype in which it is written. */
export interface WritableWeight {
  readonly name: string;
  readonly tensor: Tensor;
  readonly dtype: DType;
}

/** Writes a model into a folder that is being filled (see `replaceFolder`).
 *  @throws {CheckpointError} when the disk is full or the place cannot be written */
export async function writeModelFiles(
  folder: string,
  { files, weights }: ModelFiles,
  options: { maxShardBytes?: number } = {},
): Promise<void> {
  for (const [name, file] of files) await withFile(join(folder, name), (handle) => handle.writeFile(file));
  const sources = weights.map(({ name, tensor, dtype }): NamedSource => [name, writtenAs(tensor, dtype)]);
  await writeShards(folder, sources, options);
}

/** A tensor as it is to be written: one of another dtype is converted on the way, a piece at a time. */
export function writtenAs(tensor: Tensor, dtype: DType): Tensor | StreamedTensor {
  if (dtype === tensor.dtype) return tensor;
  const { shape } = tensor;
  const rowBytes = 8 * shape.slice(1).reduce((product, size) => product * size, 1);
  const step = Math.max(1, Math.floor(PIECE_BYTES / rowBytes));
  return {
    dtype,
    shape,
    *pieces() {
      for (let row = 0; row < (shape[0] ?? 0); row += step) {
        const count = Math.min(step, shape[0]! - row);
        yield noGrad(() => scope(() => tensor.narrow(0, row, count).to(dtype)));
      }
    },
  };
}
