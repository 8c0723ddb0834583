// Placeholders in a rendered conversation, and the soft tokens that take their place.

import type { Span } from './labels.js';

/** What is looked for, and what takes its place. */
export interface Placeholder {
  readonly placeholder: string;
  readonly expansion: string;
}

export interface Expanded<P extends Placeholder> {
  readonly text: string;
  /** The stretches of `text` that stand for media, in order. */
  readonly holes: readonly (Span & { readonly medium: P })[];
  /** Where a position of the text before went. */
  readonly shift: (position: number) => number;
}

/** Writes each medium's expansion in its placeholders' stead. */
export function expandPlaceholders<P extends Placeholder>(
  rendered: string,
  media: readonly P[],
): Expanded<P> {
  const pieces: string[] = [];
  const holes: (Span & { medium: P })[] = [];
  /** Ends of placeholders in `rendered`, and by how much what follows them has moved. */
  const moves: { readonly end: number; readonly by: number }[] = [];
  let done = 0;
  let grown = 0;
  for (let found = next(rendered, done, media); found; found = next(rendered, done, media)) {
    const { at, medium } = found;
    const { placeholder, expansion } = medium;
    const start = at + grown;
    pieces.push(rendered.slice(done, at), expansion);
    holes.push({ start, end: start + expansion.length, medium });
    done = at + placeholder.length;
    grown += expansion.length - placeholder.length;
    moves.push({ end: done, by: grown });
  }
  pieces.push(rendered.slice(done));
  const shift = (position: number): number =>
    position + (moves.findLast(({ end }) => end <= position)?.by ?? 0);
  return { text: pieces.join(''), holes, shift };
}

/** The first placeholder from `from` on. */
function next<P extends Placeholder>(
  text: string,
  from: number,
  media: readonly P[],
): { at: number; medium: P } | undefined {
  let first: { at: number; medium: P } | undefined;
  for (const medium of media) {
    const at = text.indexOf(medium.placeholder, from);
    if (at >= 0 && at < (first?.at ?? Infinity)) first = { at, medium };
  }
  return first;
}
