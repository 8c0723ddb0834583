// The way back from a sample's origin to its row, for what becomes of few rows alone: to show one that was quarantined.
// The row is not kept for it; it can be had as long as its source holds it anyway.

import type { Cursor, Origin, Source } from '../flow/types.js';

/** An origin that knows its row. Copies of it (`{ ...origin }`, messages to threads) are plain origins. */
class RowOrigin implements Origin {
  readonly file: string;
  readonly rowGroup: number;
  readonly row: number;
  readonly #again: () => unknown;

  constructor({ file, rowGroup, row }: Origin, again: () => unknown) {
    this.file = file;
    this.rowGroup = rowGroup;
    this.row = row;
    this.#again = again;
  }

  static read(origin: Origin): unknown {
    return origin instanceof RowOrigin ? origin.#again() : undefined;
  }
}

/** @param again gives the row, a promise of it, or undefined when it is gone; may throw */
export function withRow(origin: Origin, again: () => unknown): Origin {
  return new RowOrigin(origin, again);
}

/** A row that its source cannot read: asking for it again is no use. */
export const UNREADABLE = Symbol('unreadable');

/** The row that an item was made of, or what it was exploded into, or a promise of it: undefined where its source has let
 *  go of it. Its bytes may be views of memory that is the source's: use it at once. */
export function rowAgain(origin: Origin): unknown {
  try {
    return RowOrigin.read(origin);
  } catch {
    return UNREADABLE; // the error that it was quarantined for says why
  }
}

/** The item at a cursor, by opening its source anew: undefined where it is another now, or cannot be read. */
export async function itemAt(
  source: Source<unknown>,
  cursor: Cursor,
  { file, row }: Origin,
): Promise<unknown> {
  const ended = new AbortController();
  const signal = AbortSignal.any([ended.signal, AbortSignal.timeout(READING_MS)]);
  const iterator = source.open(signal, cursor)[Symbol.asyncIterator]();
  try {
    const next = await iterator.next();
    if (next.done === true || !('value' in next.value)) return undefined;
    const { value, origin } = next.value;
    return origin.file === file && origin.row === row ? value : undefined;
  } finally {
    ended.abort();
    await iterator.return?.();
  }
}

/** For one row: it may take a whole row group. */
const READING_MS = 10_000;
