// flatMap: several samples of one.

import { Observable } from 'rxjs';
import { FlowError } from '../errors.js';
import { Call, checkCount, type MapContext, type MapOptions, stageOf } from './options.js';
import { at } from './transform.js';
import type { StageOf, Ticketed } from './types.js';

export interface FlatMapOptions<B> extends MapOptions<B> {
  /** The most samples that one becomes: one with more is quarantined. Where a later stage declares `itemBytes`, this
   *  many times as much is reserved for each item of the source, so declare it there. */
  readonly maxOutputs?: number;
}

/** Makes any number of samples of each, in order; none drops it. They have the same origin, share its weight, and are
 *  settled and counted one by one. An error while they are made quarantines the one that they were made of.
 *
 *  @example flatMap((row) => row.turns.map((turn) => ({ image: row.image, turn }))) */
export function flatMap<A, B>(
  fn: (value: A, context: MapContext) => Iterable<B>,
  { name = 'flatMap', maxOutputs, itemBytes, weigh }: FlatMapOptions<B> = {},
): StageOf<A, B> {
  if (maxOutputs !== undefined) checkCount(`${name}: maxOutputs`, maxOutputs);

  const outputsOf = ({ value, ticket }: Ticketed<A>): B[] => {
    const outputs: B[] = [];
    for (const output of fn(value, new Call(ticket))) {
      if (outputs.length === maxOutputs) throw tooManyError(name, maxOutputs, ticket);
      outputs.push(output);
    }
    return outputs;
  };

  const connect = (source: Observable<Ticketed<A>>): Observable<Ticketed<B>> =>
    new Observable((subscriber) =>
      source.subscribe({
        next: (item) => {
          const { ticket } = item;
          let outputs: B[];
          let weights: number[] | undefined;
          try {
            outputs = outputsOf(item);
            weights = weigh === undefined ? undefined : outputs.map(weigh);
          } catch (error) {
            ticket.quarantine(name, error);
            return;
          }
          try {
            if (outputs.length === 0) return ticket.settle('dropped');
            const tickets = ticket.split(outputs.length);
            outputs.forEach((value, i) => {
              const own = tickets[i];
              if (own === undefined || subscriber.closed) return;
              const weight = weights?.[i];
              if (weight !== undefined) own.weigh(weight);
              subscriber.next({ value, ticket: own });
            });
          } catch (error) {
            subscriber.error(error);
          }
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    );

  return stageOf({
    name,
    ...(maxOutputs === undefined ? {} : { splits: maxOutputs }),
    ...(itemBytes === undefined ? {} : { itemBytes }),
    code: String(fn),
    connect,
  });
}

function tooManyError(name: string, maxOutputs: number, ticket: Ticketed<unknown>['ticket']): FlowError {
  return new FlowError({
    where: at(name, ticket.origin),
    expected: `at most ${maxOutputs} samples of one`,
    received: 'more',
    remedy: 'raise maxOutputs',
  });
}
