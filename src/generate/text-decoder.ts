// Tokens to text as they come, whole characters only. The pieces together are `decode` of all the ids, whatever these are:
// byte tokens wait for the end of their run, since one byte that is not UTF-8 makes all of its run into U+FFFD.

import type { Processor } from '../data/processor.js';

/** What is used of a processor. */
export type TextCodec = Pick<Processor, 'decode'> & {
  readonly tokenizer: Pick<Processor['tokenizer'], 'decodesPieceByPiece' | 'tokenOf'>;
};

export class StreamDecoder {
  readonly #codec: TextCodec;
  readonly #options: { readonly skipSpecialTokens: boolean };
  /** Ids whose text is not out yet: a run of byte tokens; with another decoder than Gemma's, all ids. */
  #waiting: number[] = [];
  /** Of `#waiting`'s text, what is out. */
  #out = '';

  constructor(codec: TextCodec, skipSpecialTokens = true) {
    this.#codec = codec;
    this.#options = { skipSpecialTokens };
  }

  /** @returns the text that is certain now, and was not before
   *  @throws {TextError} on an id that the vocabulary does not have */
  push(id: number): string {
    const { tokenizer } = this.#codec;
    this.#waiting.push(id);
    if (!tokenizer.decodesPieceByPiece) return this.#more();
    if (isByte(tokenizer.tokenOf(id)) || this.#isSilent(id)) return '';
    return this.end();
  }

  /** What is still out, were this the end. */
  get pending(): string {
    return this.#codec.decode(this.#waiting, this.#options).slice(this.#out.length);
  }

  /** The rest. The decoder is as new afterwards. */
  end(): string {
    const rest = this.pending;
    this.#waiting = [];
    this.#out = '';
    return rest;
  }

  /** A special token that is left out does not end a run of bytes. */
  #isSilent(id: number): boolean {
    return this.#waiting.length > 1 && this.#codec.decode([id], this.#options) === '';
  }

  /** Decoders that look at more than one token: text is certain when it ends in a whole character. */
  #more(): string {
    const text = this.#codec.decode(this.#waiting, this.#options);
    if (text.endsWith('\ufffd') || !text.startsWith(this.#out)) return '';
    const fresh = text.slice(this.#out.length);
    this.#out = text;
    return fresh;
  }
}

function isByte(token: string | undefined): boolean {
  return token !== undefined && /^<0x[0-9A-Fa-f]{2}>$/.test(token);
}
