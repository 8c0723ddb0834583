// Added tokens: strings that a tokenizer takes whole, before its model sees the text. Markers such as <end_of_turn> are
// "special"; Gemma's newline runs are added tokens too, but ordinary text. Text that comes from data must be able to spell
// a special token without becoming it: `guard` puts a character inside such spellings that no well-formed text holds,
// the search then passes over them, and `unguard` takes it out before the text is split further.

import { trimmedBounds } from './python-trim.js';

/** One entry of tokenizer.json's added_tokens. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly normalized: boolean;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

/** A stretch [start, end) of a text: an added token, or what lies between two. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly token?: AddedToken;
}

/** A lone surrogate: never in text that came from UTF-8. */
const GUARD = '\udc00';
const guards = new RegExp(GUARD, 'gu');

/** Text without guards and without lone surrogates of its own (each becomes U+FFFD, as in UTF-8). */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}

/** Makes every spelling of one of `tokens` in `text` a spelling no more, also one that a text behind it would complete: two
 *  parts of a turn stand side by side, their space trimmed. Byte order marks are guarded on both sides, since JavaScript's
 *  trim takes them for space and Python's does not. */
export function guard(text: string, tokens: readonly string[]): string {
  const guarded = guardSpellings(text, tokens).replaceAll('\ufeff', `${GUARD}\ufeff${GUARD}`);
  const [, end] = trimmedBounds(guarded);
  const isBegun = tokens.some((token) =>
    beginsAtEnd(guarded.slice(Math.max(0, end - token.length), end), token),
  );
  return isBegun ? `${guarded.slice(0, end)}${GUARD}${guarded.slice(end)}` : guarded;
}

/** Whether `text` ends with the beginning of `token`, but not with all of it. */
function beginsAtEnd(text: string, token: string): boolean {
  for (let length = Math.min(text.length, token.length - 1); length > 0; length--) {
    if (text.endsWith(token.slice(0, length))) return true;
  }
  return false;
}

function guardSpellings(text: string, tokens: readonly string[]): string {
  const spellings = tokens.map((token) => [...token]).filter((token) => token.length > 1);
  if (spellings.length === 0 || !tokens.some((token) => text.includes(token))) return text;
  const escape = (chars: readonly string[]): string =>
    chars.join('').replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
  const pattern = spellings
    .map(([first, ...rest]) => `(?<=${escape([first!])})(?=${escape(rest)})`)
    .join('|');
  return text.replace(new RegExp(pattern, 'gu'), GUARD);
}

/** The text as it was before `guard`. */
export function unguard(text: string): string {
  return text.includes(GUARD) ? text.replace(guards, '') : text;
}

interface Node {
  readonly next: Map<number, Node>;
  token?: AddedToken;
}

/** Finds added tokens: at each place the longest, from left to right. */
export class AddedTokens {
  readonly #root: Node = { next: new Map() };

  constructor(tokens: readonly AddedToken[]) {
    for (const token of tokens) {
      if (token.content.length === 0) continue;
      let node = this.#root;
      for (let i = 0; i < token.content.length; i++) {
        const unit = token.content.charCodeAt(i);
        let next = node.next.get(unit);
        if (!next) node.next.set(unit, (next = { next: new Map() }));
        node = next;
      }
      node.token = token;
    }
  }

  /** Cuts a text into added tokens and what lies between, in order, without gaps.
   *  @param special false passes over special tokens: they stay ordinary text */
  split(text: string, special = true): Stretch[] {
    const stretches: Stretch[] = [];
    let done = 0;
    for (let at = 0; at < text.length; at++) {
      const token = this.#longest(text, at);
      if (!token) continue;
      const end = at + token.content.length;
      if ((special || !token.special) && !(token.single_word && insideWord(text, at, end))) {
        const from = token.lstrip ? Math.max(done, skipSpace(text, at, -1)) : at;
        const to = token.rstrip ? skipSpace(text, end, 1) : end;
        if (from > done) stretches.push({ start: done, end: from });
        stretches.push({ start: from, end: to, token });
        done = to;
        at = to - 1;
      } else {
        at = end - 1;
      }
    }
    if (done < text.length) stretches.push({ start: done, end: text.length });
    return stretches;
  }

  #longest(text: string, start: number): AddedToken | undefined {
    let found: AddedToken | undefined;
    let node: Node | undefined = this.#root;
    for (let at = start; at < text.length; at++) {
      node = node.next.get(text.charCodeAt(at));
      if (!node) break;
      found = node.token ?? found;
    }
    return found;
  }
}

function skipSpace(text: string, at: number, step: 1 | -1): number {
  const isSpace = (i: number): boolean => i >= 0 && i < text.length && /\s/.test(text[i]!);
  if (step === 1) while (isSpace(at)) at++;
  else while (isSpace(at - 1)) at--;
  return at;
}

function insideWord(text: string, start: number, end: number): boolean {
  const word = /[\p{L}\p{M}\p{N}_]/u;
  return (start > 0 && word.test(text[start - 1]!)) || (end < text.length && word.test(text[end]!));
}
