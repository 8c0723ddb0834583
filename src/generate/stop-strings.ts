// Ends a text where a stop string begins, however tokens cut it, and holds back what may be one's beginning.

export class StopStrings {
  readonly #stops: readonly string[];
  /** The end of the text so far that may be the beginning of a stop string. */
  #held = '';

  /** @param stops none of them empty */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Takes the next piece of the text.
   *  @param pending what would follow it, were this the end: it is looked through and given back next time
   *  @returns the text that is certain; `stopped` when a stop string begins right behind it */
  push(piece: string, pending = ''): { readonly text: string; readonly stopped: boolean } {
    const text = this.#held + piece;
    const at = this.#firstIn(text + pending);
    if (at >= 0) {
      this.#held = '';
      return { text: (text + pending).slice(0, at), stopped: true };
    }
    const held = this.#beginningAtEndOf(text);
    this.#held = text.slice(text.length - held);
    return { text: text.slice(0, text.length - held), stopped: false };
  }

  /** What is held back: no stop string has come. */
  end(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  #firstIn(text: string): number {
    const places = this.#stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    return places.length > 0 ? Math.min(...places) : -1;
  }

  /** Length of the longest end of the text that begins a stop string. */
  #beginningAtEndOf(text: string): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(text.length - length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
