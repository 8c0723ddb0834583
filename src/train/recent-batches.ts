// A step's newest batches, kept for a look at gradients that are not finite.

import type { Batch } from '../data/types.js';

/** Bytes of theirs that are kept at most; the newest always is. */
const MOST_BYTES = 64 * 2 ** 20;

export class RecentBatches implements Iterable<Batch> {
  #batches: Batch[] = [];
  #bytes = 0;

  add(batch: Batch): void {
    this.#batches.push(batch);
    this.#bytes += bytesOf(batch);
    while (this.#bytes > MOST_BYTES && this.#batches.length > 1)
      this.#bytes -= bytesOf(this.#batches.shift()!);
  }

  clear(): void {
    this.#batches = [];
    this.#bytes = 0;
  }

  [Symbol.iterator](): Iterator<Batch> {
    return this.#batches.values();
  }
}

function bytesOf(batch: Batch): number {
  return Object.values<unknown>({ ...batch }).reduce<number>((sum, field) => {
    const { data } = (field ?? {}) as { readonly data?: ArrayBufferView };
    return sum + (data?.byteLength ?? 0);
  }, 0);
}
