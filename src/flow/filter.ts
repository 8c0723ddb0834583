// filter: drops samples.

import { FlowError } from '../errors.js';
import { stageOf } from './options.js';
import { DROP, Fatal, at, isPromise, transform } from './transform.js';
import type { Origin, StageOf } from './types.js';

/** Keeps the samples for which the predicate holds; the others are counted as dropped. An error quarantines that sample
 *  alone. The predicate is synchronous: a promise would always hold, so it stops the run with a FlowError. */
export function filter<A, B extends A>(
  predicate: (value: A) => value is B,
  options?: { readonly name?: string },
): StageOf<A, B>;
export function filter<A>(
  predicate: (value: A) => boolean,
  options?: { readonly name?: string },
): StageOf<A, A>;
export function filter<A>(
  predicate: (value: A) => boolean,
  { name = 'filter' }: { readonly name?: string } = {},
): StageOf<A, A> {
  return stageOf({
    name,
    code: String(predicate),
    connect: transform<A, A>(
      (value, ticket) => {
        const keep: unknown = predicate(value);
        if (isPromise(keep)) return new Fatal(promiseError(name, ticket.origin));
        return keep ? value : DROP;
      },
      { name },
    ),
  });
}

function promiseError(name: string, origin: Origin): FlowError {
  return new FlowError({
    where: at(name, origin),
    expected: 'true or false',
    received: 'a promise',
    remedy: 'decide in an asynchronous map before it, and filter by what that found',
  });
}
