// orderedMap, unorderedMap: a function over several samples at once.

import { isObservable, type Observable } from 'rxjs';
import {
  Call,
  concurrencyOf,
  concurrencyTraits,
  type MapContext,
  type ParallelOptions,
  stageOf,
} from './options.js';
import { oneValue } from './one-value.js';
import { withTimeout } from './timeout.js';
import { Failure, Pending, isPromise, transform, type Done } from './transform.js';
import type { StageOf } from './types.js';

/** What a mapping function may return: the value, a promise of it, or an observable of at most one (none: dropped). */
export type Mapped<B> = B | PromiseLike<B> | Observable<B>;

/** Maps up to `concurrency` samples at once and keeps their order. An error (thrown, rejected, late) quarantines that
 *  sample alone. Results that wait for an earlier sample keep their tickets, so the pool bounds them.
 *
 *  @example orderedMap(async (row, { signal }) => decode(row.image, { signal }), { name: 'decode', concurrency: 4 }) */
export function orderedMap<A, B>(
  fn: (value: A, context: MapContext) => Mapped<B>,
  options: ParallelOptions<B> = {},
): StageOf<A, B> {
  return parallel(fn, { name: 'orderedMap', ...options }, true);
}

/** `orderedMap` that lets samples overtake each other: no sample waits for a slower one, and the run is not
 *  reproducible, which it says. */
export function unorderedMap<A, B>(
  fn: (value: A, context: MapContext) => Mapped<B>,
  options: ParallelOptions<B> = {},
): StageOf<A, B> {
  return parallel(fn, { name: 'unorderedMap', ...options }, false);
}

/** The stage behind every mapping operator. */
export function parallel<A, B>(
  fn: (value: A, context: MapContext) => Mapped<B>,
  options: ParallelOptions<B> & { readonly name: string },
  ordered: boolean,
): StageOf<A, B> {
  const { name, itemBytes, timeoutMs } = options;
  const concurrency = concurrencyOf(name, options.concurrency);
  const limit = withTimeout<B>(name, timeoutMs);
  return stageOf({
    name,
    ...(itemBytes === undefined ? {} : { itemBytes }),
    ...(ordered ? {} : { reproducible: false }),
    ...concurrencyTraits(concurrency),
    code: String(fn),
    connect: transform<A, B>(
      (value, ticket) => {
        const call = new Call(ticket);
        const result = fn(value, call);
        if (isPromise(result)) return limit(promised(result, call), ticket, call);
        if (isObservable(result)) {
          return limit(observed(oneValue(result, name, ticket.origin), call), ticket, call);
        }
        return result;
      },
      { ...options, name, concurrency, ordered },
    ),
  });
}

function promised<B>(promise: PromiseLike<B>, call: Call): Pending<B> {
  return new Pending((finish) => {
    promise.then(finish, (error: unknown) => finish(new Failure(error)));
    return () => call.abort();
  });
}

function observed<B>(outcome: Done<B> | Pending<B>, call: Call): Done<B> | Pending<B> {
  if (!(outcome instanceof Pending)) return outcome;
  return new Pending((finish) => {
    const cancel = outcome.begin(finish);
    return () => {
      call.abort();
      cancel();
    };
  });
}
