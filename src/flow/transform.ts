// The engine under lift, map, filter, orderedMap and tee: one outcome a sample, several samples at once, order kept.
// A sample that is done at once while nothing is before it passes straight through, without a queue or a closure.

import { Observable, type Subscriber } from 'rxjs';
import { Queue } from './queue.js';
import { Concurrency } from './concurrency.js';
import type { Origin, Ticket, Ticketed } from './types.js';

/** The outcome of a sample that is to be dropped. */
export const DROP = Symbol('drop');

/** The outcome of a sample that failed: it is quarantined. */
export class Failure {
  constructor(readonly error: unknown) {}
}

/** The outcome of a sample that shows the graph itself to be wrong: the run stops. */
export class Fatal {
  constructor(readonly error: unknown) {}
}

/** A sample that is not done yet. */
export class Pending<B> {
  /** @param begin starts it; `finish` is called once, later or at once. Returns how to cancel it. */
  constructor(readonly begin: (finish: (outcome: Done<B>) => void) => () => void) {}
}

export type Done<B> = B | typeof DROP | Failure | Fatal;

export interface TransformOptions<B> {
  readonly name: string;
  /** How many samples may be pending at once (1 by default); those beyond wait in order, with their tickets. */
  readonly concurrency?: number | Concurrency;
  /** False lets samples overtake each other. */
  readonly ordered?: boolean;
  /** What an output weighs, in bytes; without it the ticket's weight stays. */
  readonly weigh?: (value: B) => number;
}

/** Connects `start` as a stage. What `start` throws quarantines the sample. */
export function transform<A, B>(
  start: (value: A, ticket: Ticket) => Done<B> | Pending<B>,
  options: TransformOptions<B>,
): (source: Observable<Ticketed<A>>) => Observable<Ticketed<B>> {
  return (source) =>
    new Observable((subscriber) => {
      const transformer = new Transformer(start, options, subscriber);
      subscriber.add(() => transformer.cancel());
      subscriber.add(
        source.subscribe({
          next: (item) => transformer.next(item),
          error: (error: unknown) => transformer.fail(error),
          complete: () => transformer.complete(),
        }),
      );
    });
}

/** A sample that was started and has not left. */
interface Entry<B> {
  readonly ticket: Ticket;
  done: boolean;
  outcome: Done<B> | undefined;
  cancel: (() => void) | undefined;
}

class Transformer<A, B> {
  private readonly name: string;
  private readonly concurrency: Concurrency;
  private readonly ordered: boolean;
  private readonly weigh: ((value: B) => number) | undefined;
  /** Not started, since enough are pending. */
  private readonly waiting = new Queue<Ticketed<A>>();
  /** Started, in order, not left; unused when unordered. */
  private readonly started = new Queue<Entry<B>>();
  private readonly pending = new Set<Entry<B>>();
  private completed = false;
  private flushing = false;

  constructor(
    private readonly start: (value: A, ticket: Ticket) => Done<B> | Pending<B>,
    options: TransformOptions<B>,
    private readonly subscriber: Subscriber<Ticketed<B>>,
  ) {
    this.name = options.name;
    const { name, concurrency = 1 } = options;
    this.concurrency =
      typeof concurrency === 'number' ? new Concurrency(name, concurrency, concurrency) : concurrency;
    this.concurrency.onGrown = () => this.flush();
    this.ordered = options.ordered ?? true;
    this.weigh = options.weigh;
  }

  private get isBusy(): boolean {
    return this.pending.size >= this.concurrency.value;
  }

  private wait(item: Ticketed<A>): void {
    this.waiting.push(item);
    this.concurrency.backlog = this.waiting.length;
  }

  next(item: Ticketed<A>): void {
    if (this.waiting.length > 0 || this.isBusy) return this.wait(item);
    const outcome = this.tryStart(item);
    if (outcome instanceof Pending || this.started.length > 0) this.enlist(item.ticket, outcome);
    else this.leave(item.ticket, outcome);
  }

  complete(): void {
    this.completed = true;
    this.flush();
  }

  fail(error: unknown): void {
    this.cancel();
    this.subscriber.error(error);
  }

  cancel(): void {
    const pending = [...this.pending];
    this.pending.clear();
    this.waiting.clear();
    this.started.clear();
    for (const entry of pending) entry.cancel?.();
  }

  private tryStart(item: Ticketed<A>): Done<B> | Pending<B> {
    try {
      return this.start(item.value, item.ticket);
    } catch (error) {
      return new Failure(error);
    }
  }

  private enlist(ticket: Ticket, outcome: Done<B> | Pending<B>): void {
    const entry: Entry<B> = { ticket, done: false, outcome: undefined, cancel: undefined };
    if (this.ordered) this.started.push(entry);
    if (!(outcome instanceof Pending)) {
      entry.done = true;
      entry.outcome = outcome;
      return;
    }
    this.pending.add(entry);
    const cancel = outcome.begin((done) => this.finish(entry, done));
    if (!entry.done) entry.cancel = cancel;
  }

  private finish(entry: Entry<B>, outcome: Done<B>): void {
    if (!this.pending.delete(entry)) return; // cancelled meanwhile
    entry.done = true;
    entry.outcome = outcome;
    if (!this.ordered) this.leave(entry.ticket, outcome);
    this.flush();
  }

  /** Lets go what is done, in order, and starts what waits: a loop, so that a long run of samples that are done at once
   *  needs no deep stack. */
  private flush(): void {
    if (this.flushing) return;
    this.flushing = true;
    try {
      for (;;) {
        while (this.started.peek()?.done === true) {
          const entry = this.started.shift();
          if (entry !== undefined) this.leave(entry.ticket, entry.outcome as Done<B>);
        }
        if (this.isBusy) break;
        const item = this.waiting.shift();
        if (item === undefined) break;
        this.concurrency.backlog = this.waiting.length;
        const outcome = this.tryStart(item);
        if (outcome instanceof Pending || this.ordered) this.enlist(item.ticket, outcome);
        else this.leave(item.ticket, outcome);
      }
    } finally {
      this.flushing = false;
    }
    if (this.completed && this.pending.size === 0 && this.started.length === 0) this.subscriber.complete();
  }

  private leave(ticket: Ticket, outcome: Done<B>): void {
    if (this.subscriber.closed) return;
    try {
      if (outcome === DROP) return ticket.settle('dropped');
      if (outcome instanceof Failure) return ticket.quarantine(this.name, outcome.error);
      if (outcome instanceof Fatal) return this.fail(outcome.error);
      if (this.weigh !== undefined && !this.reweigh(ticket, outcome)) return;
    } catch (error) {
      return this.fail(error);
    }
    this.subscriber.next({ value: outcome, ticket });
  }

  private reweigh(ticket: Ticket, value: B): boolean {
    try {
      ticket.weigh((this.weigh as (value: B) => number)(value));
      return true;
    } catch (error) {
      ticket.quarantine(this.name, error);
      return false;
    }
  }
}

/** "decode: cat.parquet row 7", the place of a message. */
export function at(name: string, origin: Origin): string {
  return `${name}: ${origin.file} row ${origin.row}`;
}

/** Whether a function was given an asynchronous result. */
export function isPromise(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
  );
}
