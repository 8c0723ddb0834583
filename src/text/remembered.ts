// Texts that were made before, those used last kept, within a bound.

/** What was made of each key, until others push it out. */
export class Remembered {
  /** In the order of their last use. */
  readonly #texts = new Map<string, string>();
  #size = 0;

  /** @param size characters of keys and texts together */
  constructor(readonly size: number) {}

  /** The text of `key`, made now when it is not remembered. What `make` throws is not remembered. */
  get(key: string, make: () => string): string {
    const known = this.#texts.get(key);
    const text = known ?? make();
    if (known !== undefined) this.#texts.delete(key);
    else this.#size += key.length + text.length;
    this.#texts.set(key, text);
    for (const [oldest, { length }] of this.#texts) {
      if (this.#size <= this.size) break;
      this.#texts.delete(oldest);
      this.#size -= oldest.length + length;
    }
    return text;
  }
}
