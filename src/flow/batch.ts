// batch: gathers samples into one value, under one ticket.

import { Observable, type Subscriber } from 'rxjs';
import { FlowError } from '../errors.js';
import { GroupTicket } from './group.js';
import { checkCount, checkPositive, stageOf } from './options.js';
import { at, isPromise } from './transform.js';
import type { Origin, StageOf, Ticketed } from './types.js';

/** When a batch is full: at a number of samples, or before their cost would pass a limit. */
export type BatchBy<A> =
  | { readonly size: number }
  | {
      /** What a sample costs, such as its tokens: a number >= 0. */
      readonly cost: (value: A) => number;
      readonly limit: number;
      /** True counts each sample as the costliest of its batch (padding): limit >= number * largest. */
      readonly padded?: boolean;
      /** The most samples in a batch, however cheap. It lets the pool be checked before the run. */
      readonly maxItems?: number;
    };

export interface BatchOptions<B> {
  /** `batch` by default. */
  readonly name?: string;
  /** Drops the samples of a last batch that did not get full; by default it is emitted. */
  readonly dropLast?: boolean;
  /** As in `MapOptions`: the most bytes that the batch weighs for each of its samples. */
  readonly itemBytes?: number;
  /** What the whole batch weighs, in bytes. */
  readonly weigh?: (value: B) => number;
}

/** Makes one value of several: synchronously (an `orderedMap` after it may go on asynchronously). */
export type Collate<A, B> = (values: readonly A[], origins: readonly Origin[]) => B;

/** Gathers samples in order; the batch's ticket settles them all.
 *
 *  When `collate` throws an error with a whole number `index` (0 is the first of its `values`), that sample alone is
 *  quarantined and the others are collated again, to a batch that is smaller by one; when it throws any other error, all
 *  samples of the batch are quarantined. A sample whose own cost is above the limit is quarantined, and so is one whose
 *  cost cannot be told.
 *
 *  @example batch({ size: 8 }, (examples) => pad(examples))
 *  @example batch({ cost: (example) => example.inputIds.length, limit: 4096, padded: true }, pad) */
export function batch<A, B>(
  by: BatchBy<A>,
  collate: Collate<A, B>,
  options: BatchOptions<B> = {},
): StageOf<A, B> {
  const { name = 'batch', itemBytes } = options;
  const full = 'size' in by ? bySize<A>(name, by.size) : byCost(name, by);
  const most = 'size' in by ? by.size : by.maxItems;
  return stageOf({
    name,
    ...(most === undefined ? {} : { holdsItems: most, gathers: most }),
    ...(itemBytes === undefined ? {} : { itemBytes }),
    connect: (source) =>
      new Observable((subscriber) => {
        const batcher = new Batcher(name, full, collate, options, subscriber);
        subscriber.add(() => batcher.clear());
        return source.subscribe({
          next: (item) => batcher.next(item),
          error: (error: unknown) => subscriber.error(error),
          complete: () => batcher.complete(),
        });
      }),
  });
}

/** The rule that closes a batch: a fresh fold for each. */
interface Rule<A> {
  /** @returns what the sample costs; throws when it can be in no batch */
  readonly cost: (value: A, origin: Origin) => number;
  /** Whether `number` samples of this total and largest cost are too many. */
  readonly exceeds: (number: number, total: number, largest: number) => boolean;
  /** Whether nothing more can be added. */
  readonly isFull: (number: number, total: number, largest: number) => boolean;
}

function bySize<A>(name: string, size: number): Rule<A> {
  checkCount(`${name}: size`, size);
  return { cost: () => 1, exceeds: (number) => number > size, isFull: (number) => number === size };
}

function byCost<A>(name: string, by: Exclude<BatchBy<A>, { size: number }>): Rule<A> {
  const { cost, padded = false, maxItems = Infinity } = by;
  const limit = checkPositive(`${name}: limit`, by.limit);
  if (by.maxItems !== undefined) checkCount(`${name}: maxItems`, by.maxItems);
  const sum = (number: number, total: number, largest: number): number => (padded ? number * largest : total);
  return {
    cost: (value, origin) => {
      const own = cost(value);
      if (own >= 0 && own <= limit) return own;
      throw new FlowError({
        where: at(name, origin),
        expected: `a sample that costs 0 to ${limit}`,
        received: String(own),
        remedy: 'raise the limit, or shorten or filter such samples before',
      });
    },
    exceeds: (number, total, largest) => number > maxItems || sum(number, total, largest) > limit,
    isFull: (number, total, largest) => number === maxItems || sum(number, total, largest) === limit,
  };
}

class Batcher<A, B> {
  private items: Ticketed<A>[] = [];
  private total = 0;
  private largest = 0;

  constructor(
    private readonly name: string,
    private readonly rule: Rule<A>,
    private readonly collate: Collate<A, B>,
    private readonly options: BatchOptions<B>,
    private readonly subscriber: Subscriber<Ticketed<B>>,
  ) {}

  next(item: Ticketed<A>): void {
    if (!item.ticket.arrive()) return;
    let cost: number;
    try {
      cost = this.rule.cost(item.value, item.ticket.origin);
    } catch (error) {
      item.ticket.quarantine(this.name, error);
      return;
    }
    const { rule } = this;
    if (rule.exceeds(this.items.length + 1, this.total + cost, Math.max(this.largest, cost))) this.emit();
    this.items.push(item);
    this.total += cost;
    this.largest = Math.max(this.largest, cost);
    if (rule.isFull(this.items.length, this.total, this.largest)) this.emit();
    else item.ticket.park();
  }

  complete(): void {
    if (this.options.dropLast === true) {
      for (const { ticket } of this.take()) ticket.settle('dropped');
    } else {
      this.emit();
    }
    this.subscriber.complete();
  }

  clear(): void {
    this.items = [];
  }

  private take(): Ticketed<A>[] {
    const { items } = this;
    this.items = [];
    this.total = 0;
    this.largest = 0;
    return items;
  }

  private emit(): void {
    const items = this.take();
    const last = items.at(-1)?.ticket;
    for (const { ticket } of items) ticket.unpark();
    const value = this.collated(items);
    const [first, ...others] = items.map(({ ticket }) => ticket);
    if (first === undefined) return; // nothing gathered, or all quarantined
    const ticket = new GroupTicket([first, ...others], last);
    if (isPromise(value)) {
      this.subscriber.error(promiseError(this.name, ticket.origin));
      return;
    }
    try {
      if (this.options.weigh !== undefined) ticket.weigh(this.options.weigh(value as B));
    } catch (error) {
      ticket.quarantine(this.name, error);
      return;
    }
    this.subscriber.next({ value: value as B, ticket });
  }

  /** Collates, leaving out of `items` each sample that the error blames: all, unless it names one. */
  private collated(items: Ticketed<A>[]): B | undefined {
    while (items.length > 0) {
      try {
        return this.collate(
          items.map(({ value }) => value),
          items.map(({ ticket }) => ticket.origin),
        );
      } catch (error) {
        const index = indexIn(error, items.length);
        const culprits = index === undefined ? items.splice(0) : items.splice(index, 1);
        for (const { ticket } of culprits) ticket.quarantine(this.name, error);
      }
    }
    return undefined;
  }
}

/** The sample that an error names, if any. */
function indexIn(error: unknown, length: number): number | undefined {
  const index = typeof error === 'object' && error !== null && 'index' in error ? error.index : undefined;
  return typeof index === 'number' && Number.isInteger(index) && index >= 0 && index < length
    ? index
    : undefined;
}

function promiseError(name: string, origin: Origin): FlowError {
  return new FlowError({
    where: at(name, origin),
    expected: 'collate to return the batch',
    received: 'a promise',
    remedy: 'collate at once, and go on in an orderedMap after the batch',
  });
}
