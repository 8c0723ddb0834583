// A digest of what a pipeline file declares: two that are equal do the same to samples, as far as their text tells.

import { createHash } from 'node:crypto';
import { isPart } from './parts.js';

/** Left out: where files lie (they count by their fingerprint), and how many samples a stage has at once. */
const UNCOUNTED: ReadonlySet<string> = new Set(['files', 'concurrency', 'tunes']);

/** Functions count by their text, and stages that are made already by what they say of themselves.
 *  @returns 32 hexadecimal digits */
export function digest(value: unknown): string {
  const text = JSON.stringify(value, (key, inner: unknown) => {
    if (UNCOUNTED.has(key)) return undefined;
    if (typeof inner === 'bigint') return `${inner}n`;
    if (typeof inner === 'function' && !isPart(inner)) return { code: String(inner) };
    if (isPart(inner)) return { ...(inner as object) };
    return inner;
  });
  return createHash('sha256')
    .update(text ?? '')
    .digest('hex')
    .slice(0, 32);
}
