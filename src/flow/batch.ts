// batch: gathers samples into one value, under one ticket.

import { Observable, type Subscriber } from 'rxjs';
import { FlowError } from '../errors.js';
import { type BatchBy, type FillRule, type Filling, ruleOf } from './filling.js';
import { GroupTicket } from './group.js';
import { stageOf } from './options.js';
import { at, isPromise } from './transform.js';
import type { Origin, StageOf, Ticketed } from './types.js';

export interface BatchOptions<B, A = never> {
  /** `batch` by default. */
  readonly name?: string;
  /** Drops the samples of a last batch that did not get full; by default it is emitted. */
  readonly dropLast?: boolean;
  /** As in `MapOptions`: the most bytes that the batch weighs for each of its samples. */
  readonly itemBytes?: number;
  /** What the whole batch weighs, in bytes. */
  readonly weigh?: (value: B) => number;
  /** What a sample weighs while its batch is open, in bytes; without it what it weighed before. */
  readonly weighItem?: (value: A) => number;
}

/** Makes one value of several: synchronously (an `orderedMap` after it may go on asynchronously).
 *  @param slots where in the batch a rule of one's own has put each value; else 0 */
export type Collate<A, B> = (values: readonly A[], origins: readonly Origin[], slots: readonly number[]) => B;

/** Gathers samples in order; the batch's ticket settles them all.
 *
 *  When `collate` throws an error with a whole number `index` (0 is the first of its `values`), that sample alone is
 *  quarantined and the others are collated again, to a batch that is smaller by one; when it throws any other error, all
 *  samples of the batch are quarantined. A sample that is too costly for any batch is quarantined, and so is one whose
 *  cost cannot be told.
 *
 *  @example batch({ size: 8 }, (examples) => pad(examples))
 *  @example batch({ cost: (example) => example.inputIds.length, limit: 4096, padded: true }, pad) */
export function batch<A, B>(
  by: BatchBy<A>,
  collate: Collate<A, B>,
  options: BatchOptions<B, A> = {},
): StageOf<A, B> {
  const { name = 'batch', itemBytes } = options;
  const rule = ruleOf(name, by);
  const { maxItems, maxBytes } = rule;
  return stageOf({
    name,
    ...(maxItems === undefined ? {} : { holdsItems: maxItems, gathers: maxItems }),
    ...(maxBytes === undefined ? {} : { holdsBytes: maxBytes }),
    ...(itemBytes === undefined ? {} : { itemBytes }),
    connect: (source) =>
      new Observable((subscriber) => {
        const batcher = new Batcher(name, rule, collate, options, subscriber);
        subscriber.add(() => batcher.clear());
        return source.subscribe({
          next: (item) => batcher.next(item),
          error: (error: unknown) => subscriber.error(error),
          complete: () => batcher.complete(),
        });
      }),
  });
}

/** A sample in an open batch. */
interface Gathered<A> extends Ticketed<A> {
  readonly slot: number;
}

class Batcher<A, B> {
  private items: Gathered<A>[] = [];
  private filling: Filling<unknown>;

  constructor(
    private readonly name: string,
    private readonly rule: FillRule<A>,
    private readonly collate: Collate<A, B>,
    private readonly options: BatchOptions<B, A>,
    private readonly subscriber: Subscriber<Ticketed<B>>,
  ) {
    this.filling = rule.open();
  }

  next({ value, ticket }: Ticketed<A>): void {
    if (!ticket.arrive()) return;
    let measure: unknown;
    try {
      measure = this.rule.measure(value, ticket.origin);
      if (this.options.weighItem !== undefined) ticket.weigh(this.options.weighItem(value));
    } catch (error) {
      ticket.quarantine(this.name, error);
      return;
    }
    let slot = this.filling.add(measure);
    if (slot === undefined) {
      this.emit();
      slot = this.filling.add(measure);
    }
    if (slot === undefined) {
      ticket.quarantine(this.name, refusedError(this.name, ticket.origin));
      return;
    }
    this.items.push({ value, ticket, slot });
    if (this.filling.isFull) this.emit();
    else ticket.park();
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

  private take(): Gathered<A>[] {
    const { items } = this;
    this.items = [];
    this.filling = this.rule.open();
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
  private collated(items: Gathered<A>[]): B | undefined {
    while (items.length > 0) {
      try {
        return this.collate(
          items.map(({ value }) => value),
          items.map(({ ticket }) => ticket.origin),
          items.map(({ slot }) => slot),
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

function refusedError(name: string, origin: Origin): FlowError {
  return new FlowError({
    where: at(name, origin),
    expected: 'a sample that fits in an empty batch',
    received: 'one that the rule measured, and then refused',
    remedy: 'let measure throw for such a sample',
  });
}

function promiseError(name: string, origin: Origin): FlowError {
  return new FlowError({
    where: at(name, origin),
    expected: 'collate to return the batch',
    received: 'a promise',
    remedy: 'collate at once, and go on in an orderedMap after the batch',
  });
}
