// takeSource: the first items of a source.

import { FlowError } from '../errors.js';
import type { Cursor, Source } from './types.js';

/** The first `count` items; the source is closed then, without a pull too many. */
export function takeSource<T>(source: Source<T>, count: number): Source<T> {
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new FlowError({
      where: `source ${source.name}: take`,
      expected: 'a whole number, 0 or more',
      received: String(count),
      remedy: 'correct this option',
    });
  }
  return {
    ...source,
    open: async function* (signal, from) {
      if (count === 0) return;
      const start = from as { readonly taken: number; readonly at: Cursor } | undefined;
      let taken = start?.taken ?? 0;
      for await (const item of source.open(signal, start?.at)) {
        yield item.cursor === undefined ? item : { ...item, cursor: { taken, at: item.cursor } };
        taken += 1;
        if (taken === count) return;
      }
    },
  };
}
