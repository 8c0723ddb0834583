// safetensors of plain arrays, written and read without the engine: what a guest's model is made of.

import * as fs from 'node:fs';
import { type StoredDType, encodeHeader } from './header.js';
import { checkpointFault } from './faults.js';
import { readHeader } from './safetensors.js';

export interface PlainTensor {
  readonly data: Float32Array | Int32Array | Uint8Array;
  readonly shape: readonly number[];
}

const kinds = { F32: Float32Array, I32: Int32Array, U8: Uint8Array } as const;

/** The bytes of a safetensors file. Names must differ. */
export function encodeArrays(tensors: ReadonlyMap<string, PlainTensor>): Uint8Array {
  // Wide elements first, so that each tensor is aligned to its elements.
  const ordered = [...tensors].sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);
  const header = encodeHeader(
    ordered.map(([name, { data, shape }]) => ({ name, dtype: dtypeOf(data), shape })),
    { format: 'tf' },
  );
  const parts = ordered.map(([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return Buffer.concat([header, ...parts]);
}

/** @returns copies of a file's tensors, by name
 *  @throws {CheckpointError} when the file is missing, malformed, or holds other than F32, I32 and U8 */
export function readArrays(path: string): Map<string, PlainTensor> {
  const { header } = readHeader(path);
  const bytes = fs.readFileSync(path);
  return new Map(
    [...header.entries].map(([name, { dtype, shape, begin, end }]) => {
      const Kind = dtype in kinds ? kinds[dtype as keyof typeof kinds] : undefined;
      if (!Kind) {
        throw checkpointFault(path, name, {
          expected: 'F32, I32 or U8',
          received: dtype,
          remedy: 'give the checkpoint of a guest model',
        });
      }
      const copy = Uint8Array.from(bytes.subarray(begin, end));
      return [name, { data: new Kind(copy.buffer), shape }] as const;
    }),
  );
}

function dtypeOf(data: PlainTensor['data']): StoredDType {
  return data instanceof Float32Array ? 'F32' : data instanceof Int32Array ? 'I32' : 'U8';
}
