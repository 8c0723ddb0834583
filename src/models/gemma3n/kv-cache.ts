// Keys and values of the tokens so far, for generation. Layers that share keep nothing: they read their source's.
// Sliding layers keep what their window can still reach, in a buffer of twice the window that is compacted when full.

import { Tensor, cat, empty, keep, noGrad, ones, scope } from '../../tensor/index.js';
import type { LayerType, TextConfig } from './config.js';

/** Keys and values, [batch, kvHeads, keys, headDim]. */
export interface KeysValues {
  readonly keys: Tensor;
  readonly values: Tensor;
}

interface Stored extends KeysValues {
  readonly capacity: number;
  /** Tokens in the buffer, oldest first; the newest is the newest seen. */
  used: number;
}

/** Its tensors live until `dispose`. Not for training. */
export class KvCache {
  /** Tokens seen, padding included. */
  length = 0;
  readonly #stored = new Map<number, Stored>();
  /** bool [batch, length], once any token was padding. */
  #padding: Tensor | undefined;

  /** @param expectedLength how many tokens will come; more may */
  constructor(
    readonly config: TextConfig,
    readonly expectedLength = 0,
  ) {}

  /** Position of the first key that `append` will return next for this kind of layer. */
  firstKey(kind: LayerType): number {
    return this.length - Math.min(this.length, this.#reach(kind));
  }

  /** Adds the new tokens' keys and values of an unshared layer; returns all that its queries may see, oldest first. The
   *  result may view the cache: use it before the next call. */
  append(layer: number, fresh: KeysValues): KeysValues {
    const reach = this.#reach(this.config.layerTypes[layer] ?? 'full_attention');
    const count = fresh.keys.shape[2] ?? 0;
    const before = this.#stored.get(layer);
    if (!before) {
      const kept = Math.min(count, reach);
      const capacity = Math.max(kept, Math.min(this.expectedLength, 2 * reach));
      const stored = this.#store(layer, capacity, fresh, kept);
      return stored.used === count ? viewOf(stored, 0, count) : fresh;
    }
    const kept = Math.min(before.used, reach);
    const stored =
      before.used + count <= before.capacity ? before : this.#compact(layer, before, kept, count);
    write(stored, fresh, stored.used, count);
    stored.used += count;
    return viewOf(stored, stored.used - count - kept, kept + count);
  }

  /** Counts the forward's tokens as seen, once every layer has appended. */
  advance(count: number): void {
    this.length += count;
  }

  /** Takes the new tokens' mask; returns that of all tokens, or undefined while none is padding. */
  extendPadding(fresh: Tensor | undefined, batch: number, count: number, device: string): Tensor | undefined {
    if (!fresh && !this.#padding) return undefined;
    const before = this.#padding;
    this.#padding = scope(() => {
      const all = (length: number): Tensor => ones([batch, length], { dtype: 'bool', device });
      return keep(cat([before ?? all(this.length), fresh ?? all(count)], 1));
    });
    before?.dispose();
    return this.#padding;
  }

  dispose(): void {
    for (const { keys, values } of this.#stored.values()) {
      keys.dispose();
      values.dispose();
    }
    this.#stored.clear();
    this.#padding?.dispose();
    this.#padding = undefined;
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** How many earlier tokens a new one sees. */
  #reach(kind: LayerType): number {
    return kind === 'sliding_attention' ? this.config.slidingWindow - 1 : Infinity;
  }

  #compact(layer: number, before: Stored, kept: number, count: number): Stored {
    const sliding = this.config.layerTypes[layer] === 'sliding_attention';
    const capacity = Math.max(kept + count, sliding ? 2 * this.config.slidingWindow : 2 * before.capacity);
    const stored = this.#store(
      layer,
      capacity,
      scope(() => viewOf(before, 0, before.used)),
      kept,
    );
    before.keys.dispose();
    before.values.dispose();
    return stored;
  }

  /** A new buffer that starts with the last `kept` of the given tokens. */
  #store(layer: number, capacity: number, given: KeysValues, kept: number): Stored {
    const stored = scope(() => {
      const [batch = 1, heads = 1, length = 0, dim = 1] = given.keys.shape;
      const { dtype, device } = given.keys;
      const make = (): Tensor => keep(empty([batch, heads, capacity, dim], { dtype, device }));
      const made: Stored = { keys: make(), values: make(), capacity, used: kept };
      write(made, viewOf(given, length - kept, kept), 0, kept);
      return made;
    });
    this.#stored.set(layer, stored);
    return stored;
  }
}

function viewOf({ keys, values }: KeysValues, start: number, count: number): KeysValues {
  return { keys: keys.narrow(2, start, count), values: values.narrow(2, start, count) };
}

function write(stored: Stored, { keys, values }: KeysValues, start: number, count: number): void {
  noGrad(() =>
    scope(() => {
      stored.keys.narrow(2, start, count).copy_(keys);
      stored.values.narrow(2, start, count).copy_(values);
    }),
  );
}
