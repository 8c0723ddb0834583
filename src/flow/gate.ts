// The gate: pulls a source only while the pool has room, and issues a ticket for each item.
//
// Before a pull there must be room for what the source declares as its largest item; then the pool's bound is strict.
// Without a declaration (or with one above the pool) the largest item seen so far is assumed, up to a quarter of the
// pool, and an item that is bigger waits here, in memory, until it fits: one item at most, counted in the peak.
// An item bigger than the whole pool is admitted when nothing else can move without it, and reported.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { Observable, type Subscriber } from 'rxjs';
import { FlowError, SluiceError, messageOf } from '../errors.js';
import type { Ledger } from './ledger.js';
import type { Pool } from './pool.js';
import { withoutFolder } from './places.js';
import { place, weightOf } from './ticket.js';
import type { FlowPosition, Origin, Source, SourceFault, SourceItem, Ticketed } from './types.js';

/** How long a source that never really waits may keep the event loop from timers and signals, in milliseconds. */
const TURN_MS = 5;

export interface GateOptions {
  readonly pool: Pool;
  readonly ledger: Ledger;
  /** The least to take from the pool for each item: what later stages may make of it, in bytes. A function
   *  may ask for more as the run goes on. */
  readonly reserve?: number | (() => number);
  /** Goes on with this position's item. */
  readonly from?: FlowPosition | undefined;
}

export interface Gate<T> {
  /** Opens the source on subscription, which is possible once. Unsubscribing aborts the source's signal and calls its
   *  iterator's `return`; a failing source is a FlowError with its name. */
  readonly items: Observable<Ticketed<T>>;
  /** Resolves when the source is closed: to what its `return` threw, else undefined. */
  readonly closed: Promise<unknown>;
}

/** Puts a gate before a source. */
export function gate<T>(source: Source<T>, options: GateOptions): Gate<T> {
  const pump = new Pump(source, options);
  const items = new Observable<Ticketed<T>>((subscriber) => {
    void pump.run(subscriber);
    return () => pump.close();
  });
  return { items, closed: pump.closed };
}

class Pump<T> {
  readonly closed: Promise<unknown>;
  private readonly pool: Pool;
  private readonly ledger: Ledger;
  private readonly reserve: () => number;
  private readonly controller = new AbortController();
  private iterator: AsyncIterator<SourceItem<T> | SourceFault> | undefined;
  private resolveClosed: (error?: unknown) => void = () => {};
  /** Neither ended by itself nor torn down. */
  private running = true;
  /** What the next item is assumed to weigh. */
  private expected: number;
  private readonly strict: boolean;
  private readonly from: FlowPosition | undefined;

  constructor(
    private readonly source: Source<T>,
    { pool, ledger, reserve = 0, from }: GateOptions,
  ) {
    this.from = from;
    this.pool = pool;
    this.ledger = ledger;
    this.reserve = typeof reserve === 'number' ? () => reserve : reserve;
    this.strict = source.maxItemBytes !== undefined && source.maxItemBytes <= pool.capacity;
    this.expected = Math.max(this.reserve(), this.strict ? (source.maxItemBytes ?? 0) : 0);
    this.closed = new Promise((resolve) => (this.resolveClosed = resolve));
  }

  async run(subscriber: Subscriber<Ticketed<T>>): Promise<void> {
    try {
      await this.pump(subscriber);
      if (this.end()) subscriber.complete();
    } catch (error) {
      if (this.end()) subscriber.error(sourceError(this.source.name, error));
    }
  }

  /** Tears down: nothing is issued from here on. */
  close(): void {
    if (!this.running) return;
    this.running = false;
    this.controller.abort();
    this.pool.nudge();
    const closing = (async () => this.iterator?.return?.())();
    closing.then(
      () => this.resolveClosed(),
      (error: unknown) => this.resolveClosed(sourceError(this.source.name, error)),
    );
  }

  private end(): boolean {
    const byItself = this.running;
    this.running = false;
    if (byItself) this.resolveClosed();
    return byItself;
  }

  private async pump(subscriber: Subscriber<Ticketed<T>>): Promise<void> {
    this.iterator = this.source.open(this.controller.signal, this.from?.cursor)[Symbol.asyncIterator]();
    let turn = performance.now();
    // A source without cursors is read again up to where it stood.
    let toSkip = this.from !== undefined && this.from.cursor === undefined ? this.from.item : 0;
    let isFirst = true;
    while (this.running) {
      const reserve = this.reserve();
      this.expected = Math.max(this.expected, reserve);
      while (!this.pool.fits(this.expected) && !this.ledger.stalled) {
        await this.pool.room(this.expected);
        if (!this.running) return;
      }
      const pulled = await this.iterator.next();
      if (!this.running) return;
      if (pulled.done === true) {
        if (isFirst && this.from) throw this.movedError('the end of the source');
        return;
      }
      if (toSkip > 0) {
        toSkip -= 1;
        continue;
      }
      if (isFirst && this.from?.origin && !sameOrigin(withoutFolder(pulled.value.origin), this.from.origin)) {
        throw this.movedError(place(pulled.value.origin));
      }
      isFirst = false;

      const weight = this.weigh(pulled.value, reserve);
      if (!this.pool.fits(weight)) await this.waitInHand(weight, pulled.value.origin);
      if (!this.running) return;
      this.admit(pulled.value, weight, subscriber);

      if (performance.now() - turn > TURN_MS) {
        await nextTurn();
        turn = performance.now();
      }
    }
  }

  private weigh({ bytes, origin }: SourceItem<T> | SourceFault, reserve: number): number {
    const own = weightOf(bytes, `source ${this.source.name}: ${place(origin)}`);
    const weight = Math.max(own, reserve);
    const { maxItemBytes } = this.source;
    if (own > this.pool.capacity) this.pool.grow(1, own);
    if (own > this.pool.capacity) {
      this.ledger.report({ kind: 'oversize', pool: 'host', origin, bytes: own, limit: this.pool.capacity });
    } else if (maxItemBytes !== undefined && own > maxItemBytes) {
      this.ledger.report({ kind: 'oversize', pool: 'host', origin, bytes: own, limit: maxItemBytes });
    }
    const known = Math.max(this.expected, weight);
    this.expected = this.strict ? Math.min(known, this.pool.capacity) : this.assume(known, reserve);
    return weight;
  }

  private assume(largest: number, reserve: number): number {
    return Math.max(reserve, Math.min(largest, Math.floor(this.pool.capacity / 4)));
  }

  private async waitInHand(weight: number, origin: Origin): Promise<void> {
    this.pool.stage(weight);
    while (this.running && !this.pool.fits(weight)) {
      if (this.ledger.stalled) {
        if (this.pool.grow(1, this.pool.used + weight)) continue;
        if (weight > this.pool.capacity || this.ledger.numOversizeOpen > 0) break;
        throw this.stallError(weight, origin);
      }
      await this.pool.room(weight);
    }
    this.pool.stage(0);
  }

  private admit(
    item: SourceItem<T> | SourceFault,
    weight: number,
    subscriber: Subscriber<Ticketed<T>>,
  ): void {
    const ticket = this.ledger.issue(item.origin, weight, item.cursor);
    if (isFault(item)) ticket.quarantine(this.source.name, item.error);
    else subscriber.next({ value: item.value, ticket });
  }

  private movedError(received: string): FlowError {
    const { item, origin } = this.from!;
    return new FlowError({
      where: `source ${this.source.name}, item ${item}`,
      expected: `${origin ? place(origin) : 'an item'}, where the run stood that is continued`,
      received,
      remedy: 'continue with the same files, seed and options of the source',
    });
  }

  private stallError(weight: number, origin: Origin): FlowError {
    return new FlowError({
      where: `pool of ${this.pool.capacity} bytes`,
      expected: `room for ${weight} bytes (${place(origin)})`,
      received: `${this.ledger.numOpen} samples of ${this.pool.used} bytes that wait for more in ${this.ledger.whereOpen()}`,
      remedy: 'raise poolBytes, or let that stage hold less',
    });
  }
}

function sameOrigin(a: Origin, b: Origin): boolean {
  return a.file === b.file && a.rowGroup === b.rowGroup && a.row === b.row;
}

function isFault(item: SourceItem<unknown> | SourceFault): item is SourceFault {
  return 'error' in item && !('value' in item);
}

/** What a source threw, with the source's name. */
function sourceError(name: string, error: unknown): FlowError {
  if (error instanceof FlowError) return error;
  // An error of ours says already what was expected, received and to be done.
  if (error instanceof SluiceError)
    return new FlowError(`source ${name}: ${error.message}`, { cause: error });
  return new FlowError(
    {
      where: `source ${name}`,
      expected: 'its next item',
      received: `an error: ${messageOf(error)}`,
      remedy: 'mend the source, or let it yield { error } for an item that it can leave out',
    },
    { cause: error },
  );
}
