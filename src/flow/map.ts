// map: a function over one sample at a time.

import { parallel } from './ordered-map.js';
import type { MapContext, MapOptions } from './options.js';
import type { StageOf } from './types.js';

/** Maps each sample, in order, one at a time. A function that returns a value at once passes straight through; a promise
 *  is awaited before the next sample is begun (`orderedMap` runs several). An error quarantines that sample alone.
 *
 *  @example map((row) => ({ prompt: String(row.question) })) */
export function map<A, B>(
  fn: (value: A, context: MapContext) => B | PromiseLike<B>,
  options: MapOptions<B> = {},
): StageOf<A, B> {
  return parallel(fn, { name: 'map', ...options, concurrency: 1 }, true);
}
