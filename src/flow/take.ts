// takeSource: the first items of a source.

import { FlowError } from '../errors.js';
import type { Source } from './types.js';

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
    open: async function* (signal) {
      if (count === 0) return;
      let taken = 0;
      for await (const item of source.open(signal)) {
        yield item;
        taken += 1;
        if (taken === count) return;
      }
    },
  };
}
