// Files mapped into memory, and tensors that view them without a copy.

import { type DType, Tensor, attempt, engine } from './tensor.js';
import type { Mapping } from '../native/addon.js';

/** A file mapped copy-on-write. It stays mapped until it is closed and its last view is freed. */
export class MappedFile {
  readonly #mapping: Mapping;

  /** @param numBytes the size that the file must have, now and at each view
   *  @throws {Error} when it cannot be opened or has another size */
  constructor(
    readonly path: string,
    readonly numBytes: number,
  ) {
    this.#mapping = engine().mapFile(path, numBytes);
  }

  /** A view of the bytes [offset, offset + numBytes) on the CPU. Unaligned bytes are copied. */
  tensor(offset: number, numBytes: number, dtype: DType, shape: readonly number[]): Tensor {
    return new Tensor(engine().mappedTensor(this.#mapping, offset, numBytes, dtype, shape));
  }

  /** Reads elements of `dtype`, as many as `target` has, into it, converting them; several threads work. Nothing of the file
   *  stays in the process's memory.
   *  @param target may require a gradient
   *  @returns false, and nothing was done, where `target` is not contiguous on a CPU */
  read(offset: number, dtype: DType, target: Tensor): boolean {
    return attempt('read', [target], () => engine().readMapped(this.#mapping, offset, dtype, target.live()));
  }

  /** Tells the system that these bytes are not needed for now, so that they leave the process's memory.
   *  What was written to views of them is lost. */
  release(offset: number, numBytes: number): void {
    engine().releaseMapped(this.#mapping, offset, numBytes);
  }

  /** Lets go of the file; views stay valid. */
  close(): void {
    engine().unmapFile(this.#mapping);
  }
  [Symbol.dispose](): void {
    this.close();
  }
}
