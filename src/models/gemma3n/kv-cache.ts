// Keys and values of the tokens so far, for generation. Layers that share keep nothing: they read their source's.
// A sliding layer keeps a ring of its window: a token's place in it is its index modulo the window, so that it takes the
// place of the token that no later one sees. Keys carry their rotation, so that their order in memory does not matter.

import { Tensor, cat, empty, keep, noGrad, ones, op, scope } from '../../tensor/index.js';
import type { LayerType, TextConfig } from './config.js';

/** Keys and values, [batch, kvHeads, keys, headDim]. */
export interface KeysValues {
  readonly keys: Tensor;
  readonly values: Tensor;
}

interface Stored extends KeysValues {
  /** Tokens that the buffers have room for: at most the window. */
  readonly capacity: number;
}

const put_ = op('sluice::put_');

/** Its tensors live until `dispose`. Not for training. */
export class KvCache {
  /** Tokens seen, padding included. */
  length = 0;
  readonly #stored = new Map<number, Stored>();
  /** bool [batch, capacity], false on padding; once any token was. */
  #real: Tensor | undefined;
  /** No token from here on is padding. */
  #paddedUntil = 0;

  /** @param expectedLength how many tokens will come; more may */
  constructor(
    readonly config: TextConfig,
    readonly expectedLength = 0,
  ) {}

  /** Bytes of its buffers. */
  get bytes(): number {
    const tensors = [...this.#stored.values()].flatMap(({ keys, values }) => [keys, values]);
    if (this.#real) tensors.push(this.#real);
    return tensors.reduce((sum, tensor) => sum + tensor.numBytes, 0);
  }

  /** Index of the first token among the keys that `append` will return next for this kind of layer. */
  firstKey(kind: LayerType): number {
    return this.length - Math.min(this.length, this.#window(kind) - 1);
  }

  /** Adds the new tokens' keys and values of an unshared layer; returns all that its queries may see: in the order of the
   *  tokens, or for one new token in that of the ring. The result may view the cache: use it before the next call. */
  append(layer: number, fresh: KeysValues): KeysValues {
    const window = this.#window(this.config.layerTypes[layer] ?? 'full_attention');
    const count = fresh.keys.shape[2] ?? 0;
    const total = this.length + count;
    const before = this.#stored.get(layer);
    // Several new tokens may see some whose places others of them take.
    const apart = total > window && count > 1 ? this.#beside(before, fresh, window - 1) : undefined;
    const stored = this.#room(layer, before, fresh, Math.min(total, window));
    write(stored, fresh, this.length, count);
    return apart ?? (total < stored.capacity ? viewOf(stored, 0, total) : stored);
  }

  /** Counts the forward's tokens as seen, once every layer has appended. */
  advance(count: number): void {
    this.length += count;
  }

  /** Takes the new tokens' mask. @param mask bool [batch, count]; undefined where none is padding */
  extendPadding(mask: Tensor | undefined, batch: number, count: number, device: string): void {
    const total = this.length + count;
    if (!mask && (!this.#real || total <= (this.#real.shape[1] ?? 0))) return; // true beforehand
    const before = this.#real;
    this.#real = scope(() => {
      const capacity = Math.max(total, this.expectedLength, 2 * (before?.shape[1] ?? 0));
      const fits = before && total <= (before.shape[1] ?? 0);
      const real = fits ? before : keep(ones([batch, capacity], { dtype: 'bool', device }));
      if (before && !fits) real.narrow(1, 0, this.length).copy_(before.narrow(1, 0, this.length));
      if (mask) real.narrow(1, this.length, count).copy_(mask);
      return real;
    });
    if (before !== this.#real) before?.dispose();
    if (mask) this.#paddedUntil = total;
  }

  /** Which of the keys that `append` will return are real, or undefined where all are. @returns bool [batch, keys] */
  realKeys(kind: LayerType, count: number): Tensor | undefined {
    const [start, total, window] = [this.firstKey(kind), this.length + count, this.#window(kind)];
    if (!this.#real || start >= this.#paddedUntil) return undefined;
    const real = this.#real.narrow(1, start, total - start);
    const turned = count === 1 && total > window ? total % window : 0;
    if (turned === 0) return real;
    return cat([real.narrow(1, window - turned, turned), real.narrow(1, 0, window - turned)], 1);
  }

  dispose(): void {
    for (const stored of this.#stored.values()) free(stored);
    this.#stored.clear();
    this.#real?.dispose();
    this.#real = undefined;
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** How many tokens a layer sees, the new one included. */
  #window(kind: LayerType): number {
    return kind === 'sliding_attention' ? this.config.slidingWindow : Infinity;
  }

  /** The newest tokens stored, at most so many and in their order, and the fresh ones after them: a copy. */
  #beside(stored: Stored | undefined, fresh: KeysValues, most: number): KeysValues {
    const count = Math.min(this.length, most);
    if (!stored || count === 0) return fresh;
    const start = (this.length - count) % stored.capacity;
    const first = Math.min(count, stored.capacity - start);
    const [head, tail] = [viewOf(stored, start, first), viewOf(stored, 0, count - first)];
    return {
      keys: cat([head.keys, tail.keys, fresh.keys], 2),
      values: cat([head.values, tail.values, fresh.values], 2),
    };
  }

  /** The layer's buffers, made or enlarged to hold `needed` tokens. They turn only once they are as large as the window. */
  #room(layer: number, before: Stored | undefined, like: KeysValues, needed: number): Stored {
    if (before && needed <= before.capacity) return before;
    const window = this.#window(this.config.layerTypes[layer] ?? 'full_attention');
    const capacity = Math.min(window, Math.max(needed, this.expectedLength, 2 * (before?.capacity ?? 0)));
    const [batch = 1, heads = 1, , dim = 1] = like.keys.shape;
    const { dtype, device } = like.keys;
    const make = (): Tensor => keep(empty([batch, heads, capacity, dim], { dtype, device }));
    const made: Stored = { keys: make(), values: make(), capacity };
    if (before) {
      scope(() => write(made, viewOf(before, 0, this.length), 0, this.length));
      free(before);
    }
    this.#stored.set(layer, made);
    return made;
  }
}

function viewOf({ keys, values }: KeysValues, start: number, count: number): KeysValues {
  return { keys: keys.narrow(2, start, count), values: values.narrow(2, start, count) };
}

/** Writes tokens from index `start` on into their places; of more than there are places, the newest. */
function write({ capacity, ...stored }: Stored, fresh: KeysValues, start: number, count: number): void {
  noGrad(() =>
    scope(() => {
      for (let done = Math.max(0, count - capacity); done < count;) {
        const place = (start + done) % capacity;
        const piece = Math.min(count - done, capacity - place);
        for (const part of ['keys', 'values'] as const) {
          const source = piece === count ? fresh[part] : fresh[part].narrow(2, done, piece);
          put_(stored[part], source, 2, place);
        }
        done += piece;
      }
    }),
  );
}

function free({ keys, values }: KeysValues): void {
  keys.dispose();
  values.dispose();
}
