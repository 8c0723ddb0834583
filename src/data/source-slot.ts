// Where a source of sources takes one: a part of a pipeline file, or a source as it is.

import type { Source } from '../flow/types.js';
import { type Part, isPart, make, part } from '../parts.js';
import { z } from '../schema.js';

/** What may stand in such a place. */
export type SourceLike<T> = Source<T> | Part<'source', undefined, Source<T>>;

const partOfSource = part('source');
/** A schema for the place. Its output is the source, or the part with its options decoded. */
export const sourceSlot = z.unknown().transform((value, context): Source<unknown> | Part<'source'> => {
  if (isPart(value)) {
    const result = partOfSource.safeParse(value, { reportInput: true });
    if (result.success) return result.data;
    for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
    return z.NEVER;
  }
  if (typeof (value as Partial<Source<unknown>> | null)?.open === 'function') return value as Source<unknown>;
  context.addIssue({ code: 'custom', message: 'expected a source, such as parquet(...)', input: value });
  return z.NEVER;
});

/** The source of a decoded place. */
export function livingSource(decoded: unknown): Source<unknown> {
  return (
    isPart(decoded) ? make(decoded as Part<'source', undefined, unknown>, undefined) : decoded
  ) as Source<unknown>;
}
