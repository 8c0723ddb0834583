// Delivery: hands values to the consumer, a few at a time, and settles their tickets when it is done with them.

import type { Ledger } from './ledger.js';
import type { Pool } from './pool.js';
import { Queue } from './queue.js';
import { isPromise } from './transform.js';
import type { ConsumeContext, Ticketed, WaitShare } from './types.js';

export interface DeliveryOptions<T> {
  readonly consume: (value: T, context: ConsumeContext) => void | Promise<void>;
  readonly inFlight: number;
  /** The bytes of what the consumer has. */
  readonly pool: Pool;
  readonly ledger: Ledger;
  readonly signal: AbortSignal;
  /** A value is about to be handed over, after this wait. */
  readonly onWaited?: ((waitMs: number, waits: readonly WaitShare[]) => void) | undefined;
  /** The consumer wants no more. */
  readonly onStop: () => void;
  /** The consumer failed. */
  readonly onError: (error: unknown) => void;
  /** All that was offered is consumed, and no more will be offered. */
  readonly onDone: () => void;
}

export class Delivery<T> {
  /** Values whose `consume` resolved. */
  numConsumed = 0;
  /** Values that wait for the consumer; all hold tickets, so the pool bounds them. */
  private readonly queue = new Queue<Ticketed<T>>();
  private numActive = 0;
  private numDelivered = 0;
  private accepting = true;
  private delivering = false;
  private completed = false;
  private resolveIdle: (() => void) | undefined;

  constructor(private readonly options: DeliveryOptions<T>) {}

  /** The consumer is there, and waits. */
  begin(): void {
    this.options.ledger.beginWait();
  }

  offer(item: Ticketed<T>): void {
    if (!this.accepting || !item.ticket.arrive()) return;
    this.queue.push(item);
    this.deliver();
  }

  /** No more will be offered. */
  complete(): void {
    this.completed = true;
    this.deliver();
  }

  /** Nothing more is delivered; open `consume` calls go on. */
  close(): void {
    this.accepting = false;
    this.queue.clear();
  }

  /** Resolves when no `consume` call is open. */
  idle(): Promise<void> {
    if (this.numActive === 0) return Promise.resolve();
    return new Promise((resolve) => (this.resolveIdle = resolve));
  }

  /** A loop, so that a consumer that is done at once needs no deep stack. */
  private deliver(): void {
    if (this.delivering) return;
    this.delivering = true;
    const { pool, inFlight } = this.options;
    while (this.accepting && this.numActive < inFlight) {
      const bytes = this.queue.peek()?.ticket.bytes;
      if (bytes === undefined || !pool.fits(bytes)) break;
      this.hand(this.queue.shift()!, bytes);
    }
    this.delivering = false;
    if (this.numActive === 0 && this.completed && this.accepting && this.queue.length === 0) {
      this.options.onDone();
    }
  }

  private hand({ value, ticket }: Ticketed<T>, bytes: number): void {
    const { ledger, pool, signal, onStop } = this.options;
    ticket.deliver();
    pool.take(bytes);
    if (bytes > pool.capacity) {
      const { origin } = ticket;
      ledger.report({ kind: 'oversize', pool: 'device', origin, bytes, limit: pool.capacity });
    }
    const position = ticket.position();
    const { waitMs, waits } = ledger.blame.end();
    this.options.onWaited?.(waitMs, waits);
    const index = this.numDelivered;
    this.numDelivered += 1;
    this.numActive += 1;
    let result: unknown;
    try {
      result = this.options.consume(value, {
        index,
        origins: ticket.origins,
        position,
        waitMs,
        waits,
        signal,
        stop: onStop,
      });
    } catch (error) {
      this.failed(error, bytes);
      return;
    }
    if (!isPromise(result)) {
      this.done(ticket, bytes);
      return;
    }
    result.then(
      () => {
        this.done(ticket, bytes);
        this.deliver();
      },
      (error: unknown) => this.failed(error, bytes),
    );
  }

  private done(ticket: Ticketed<T>['ticket'], bytes: number): void {
    try {
      ticket.settle('trained');
    } catch (error) {
      this.failed(error, bytes);
      return;
    }
    this.numConsumed += 1;
    this.release(bytes);
    if (this.numActive === 0 && this.accepting && this.queue.length === 0) this.options.ledger.beginWait();
  }

  private failed(error: unknown, bytes: number): void {
    this.release(bytes);
    this.options.onError(error);
  }

  private release(bytes: number): void {
    this.options.pool.give(bytes);
    this.numActive -= 1;
    if (this.numActive === 0) this.resolveIdle?.();
  }
}
