// The host's memory that snapshots are copied into, kept from one to the next: memory that is new to the process costs
// five times the copy, since the kernel clears each page when it is first touched.

import { copyAll, empty, keep, type Tensor } from '../tensor/index.js';

/** Owned by the thread that takes snapshots. Nobody may copy into it while the last snapshot is still being written. */
export class SnapshotMemory {
  readonly #kept = new Map<string, Tensor>();

  /** Of the host's memory, kept for the next snapshot. */
  get numBytes(): number {
    return [...this.#kept.values()].reduce((sum, { numBytes }) => sum + numBytes, 0);
  }

  /** Frees what is kept under other names than these, or does not fit them. */
  keepOnly(tensors: ReadonlyMap<string, Tensor>): void {
    for (const [name, place] of this.#kept) {
      const source = tensors.get(name);
      if (source && fits(place, source)) continue;
      place.dispose();
      this.#kept.delete(name);
    }
  }

  /** Copies tensors to where those of their names were before.
   *  @returns the copies by name, on the CPU; this memory owns them */
  copy(tensors: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
    this.keepOnly(tensors);
    for (const [name, { shape, dtype }] of tensors) {
      if (!this.#kept.has(name)) this.#kept.set(name, keep(empty(shape, { dtype, device: 'cpu' })));
    }
    copyAll(
      [...tensors.values()],
      Array.from(tensors.keys(), (name) => this.#kept.get(name)!),
    );
    return this.#kept;
  }

  clear(): void {
    this.keepOnly(new Map());
  }
}

function fits(place: Tensor, { dtype, shape }: Tensor): boolean {
  return (
    place.dtype === dtype &&
    place.shape.length === shape.length &&
    place.shape.every((size, dim) => size === shape[dim])
  );
}
