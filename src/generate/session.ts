// A conversation's keys and values, kept from one answer to the next: a prompt that begins with what was read and written
// before is read from there on only.

import type { TextConfig } from '../models/gemma3n/config.js';
import { KvCache } from '../models/gemma3n/kv-cache.js';

/** Of one row. Its tensors live until `dispose`. */
export class Session {
  #cache: KvCache | undefined;
  #ids: number[] = [];

  /** Tokens whose keys and values are kept. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  /** The cache to go on with. @param expectedLength tokens that it will hold in the end */
  cache(config: TextConfig, expectedLength: number): KvCache {
    return (this.#cache ??= new KvCache(config, expectedLength));
  }

  /** Runs a forward that adds these tokens to the cache. When it fails, nothing is kept: some layers have them, others not. */
  reading<T>(ids: readonly number[], forward: () => T): T {
    try {
      const result = forward();
      for (const id of ids) this.#ids.push(id);
      return result;
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** How many tokens of a prompt need not be read again: all that are kept, where the prompt begins with them and goes on;
   *  otherwise none, and what was kept is given up. */
  matching(prompt: ArrayLike<number>): number {
    const { length } = this.#ids;
    if (length < prompt.length && this.#ids.every((id, i) => prompt[i] === id)) return length;
    this.dispose();
    return 0;
  }

  /** Gives up what is kept; the next prompt is read whole. */
  dispose(): void {
    this.#cache?.dispose();
    this.#cache = undefined;
    this.#ids = [];
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}
