// lift: an ordinary RxJS operator as a stage, run on a stream of one item for each sample.

import { Observable, type OperatorFunction } from 'rxjs';
import { concurrencyOf, concurrencyTraits, type ParallelOptions, stageOf } from './options.js';
import { oneValue } from './one-value.js';
import { withTimeout } from './timeout.js';
import { transform } from './transform.js';
import type { StageOf } from './types.js';

/** Makes a stage of an RxJS operator: `map`, `filter`, `mergeMap`, `retry`, `timeout` and the like just work.
 *
 *  A stream that ends empty drops the sample, an error quarantines that sample alone, a second value stops the run with a
 *  FlowError. The operator is applied to each sample anew, so one that counts over samples (`take`, `skip`, `scan`,
 *  `bufferCount`, `distinct`) sees each as the first and only one. Order is kept; a stream that is not done at once runs
 *  beside others, up to `concurrency`. A stream that never completes holds its sample for ever: give `timeoutMs`.
 *
 *  @example lift(pipe(mergeMap((row: Row) => fetchImage(row)), retry(2)), { name: 'fetch', concurrency: 8 }) */
export function lift<A, B>(
  operator: OperatorFunction<A, B>,
  options: ParallelOptions<B> = {},
): StageOf<A, B> {
  const name = options.name ?? (operator.name || 'lift');
  const { itemBytes, timeoutMs } = options;
  const concurrency = concurrencyOf(name, options.concurrency);
  const limit = withTimeout<B>(name, timeoutMs);
  return stageOf({
    name,
    ...(itemBytes === undefined ? {} : { itemBytes }),
    ...concurrencyTraits(concurrency),
    code: String(operator),
    connect: transform<A, B>(
      (value, ticket) => limit(oneValue(operator(only(value)), name, ticket.origin), ticket),
      { ...options, name, concurrency },
    ),
  });
}

/** RxJS's `of` for one value, without its array. */
function only<T>(value: T): Observable<T> {
  return new Observable((subscriber) => {
    subscriber.next(value);
    subscriber.complete();
  });
}
