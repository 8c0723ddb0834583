// The books of a run: every sample that was issued is trained, dropped or quarantined, or it is an error.

import { FlowError } from '../errors.js';
import { Blame } from './blame.js';
import type { Pool } from './pool.js';
import { SampleTicket, type Books } from './ticket.js';
import { Places } from './places.js';
import type {
  Cursor,
  FlowEvent,
  FlowObserver,
  FlowPosition,
  LedgerCounts,
  Origin,
  Outcome,
} from './types.js';

export interface LedgerOptions {
  /** The source's name: it is blamed for a wait while no sample is on its way. */
  readonly source?: string;
  readonly onEvent?: (event: FlowEvent) => void;
  /** Gets what `onEvent` throws; by default it is thrown to whoever settled the ticket. */
  readonly onEventError?: (error: unknown) => void;
  readonly observer?: FlowObserver | undefined;
  /** Milliseconds; `performance.now` by default. */
  readonly now?: () => number;
  /** Where the run that this one continues stood. */
  readonly from?: FlowPosition | undefined;
}

export class Ledger implements Books {
  /** Items bigger than the pool or than their source declared. */
  oversize = 0;
  /** Open tickets. */
  numOpen = 0;
  /** Open tickets that wait for later samples. */
  numParked = 0;
  /** Open tickets that weigh more than the pool. */
  numOversizeOpen = 0;
  readonly blame: Blame;
  private issued = 0;
  private items = 0;
  private readonly settledAs: Record<Outcome, number> = { trained: 0, dropped: 0, quarantined: 0 };
  private first: SampleTicket | undefined;
  private last: SampleTicket | undefined;
  /** The lowest open ticket that is neither delivered nor parked. */
  private lowest: SampleTicket | undefined;
  private readonly source: string;
  private readonly places: Places;
  private readonly observer: FlowObserver | undefined;

  constructor(
    private readonly pool: Pool,
    private readonly options: LedgerOptions = {},
  ) {
    this.source = options.source ?? 'source';
    this.observer = options.observer;
    this.places = new Places(options.from);
    this.blame = new Blame(this.source, options.now ?? (() => performance.now()));
  }

  get counts(): LedgerCounts {
    return { issued: this.issued, ...this.settledAs };
  }

  /** Whether nothing can move unless another item is admitted: all that is open waits for later samples. */
  get stalled(): boolean {
    return this.numOpen > 0 && this.numParked === this.numOpen;
  }

  /** Issues a ticket for an item and takes its weight from the pool. */
  issue(origin: Origin, bytes: number, cursor?: Cursor): SampleTicket {
    const ticket = new SampleTicket(
      this,
      this.items++,
      origin,
      bytes,
      this.source,
      bytes > this.pool.capacity,
      cursor,
    );
    this.pool.take(bytes);
    this.open(ticket, this.last);
    return ticket;
  }

  /** The consumer has nothing to do from now on. */
  beginWait(): void {
    this.blame.begin(this.lowest);
  }

  /** Drops every open ticket: the run has ended before they were done. Later calls on them are ignored. */
  abandon(): void {
    for (let ticket = this.first; ticket !== undefined; ticket = this.first) {
      ticket.settle('dropped');
      ticket.abandoned = true;
    }
  }

  /** @throws {FlowError} when a ticket was not settled */
  check(): void {
    const { issued, trained, dropped, quarantined } = this.counts;
    if (issued === trained + dropped + quarantined && this.numOpen === 0) return;
    throw new FlowError({
      where: 'ledger',
      expected: `${issued} samples issued to be trained, dropped or quarantined`,
      received: `${trained} trained, ${dropped} dropped, ${quarantined} quarantined, ${this.numOpen} open in ${this.whereOpen()}`,
      remedy: 'a stage lost tickets: let it pass each one on, or settle it',
    });
  }

  /** The stages that hold open tickets, for messages: "batch (3), decode (1)". */
  whereOpen(): string {
    const stages = new Map<string, number>();
    for (let ticket = this.first; ticket !== undefined; ticket = ticket.next) {
      stages.set(ticket.stage, (stages.get(ticket.stage) ?? 0) + 1);
    }
    return [...stages].map(([stage, count]) => `${stage} (${count})`).join(', ') || 'no stage';
  }

  report(event: FlowEvent): void {
    if (event.kind === 'oversize') this.oversize += 1;
    try {
      this.options.onEvent?.(event);
    } catch (error) {
      if (this.options.onEventError === undefined) throw error;
      this.options.onEventError(error);
    }
  }

  settled(ticket: SampleTicket, outcome: Outcome): void {
    this.settledAs[outcome] += 1;
    this.places.settled(ticket, outcome, this.first?.sequence ?? Infinity);
    this.close(ticket);
    this.observer?.(ticket, 'settled');
  }

  arrived(ticket: SampleTicket): number {
    const arrival = this.places.arrived(ticket);
    if (arrival > 0) return arrival;
    this.issued -= 1;
    this.close(ticket);
    return 0;
  }

  position(ticket: SampleTicket): FlowPosition {
    return this.places.behind(ticket);
  }

  itemOf({ sequence }: SampleTicket): number {
    return (this.options.from?.item ?? 0) + sequence;
  }

  private close(ticket: SampleTicket): void {
    this.numOpen -= 1;
    if (ticket.isParked) this.numParked -= 1;
    if (ticket.oversize) this.numOversizeOpen -= 1;
    if (ticket.previous === undefined) this.first = ticket.next;
    else ticket.previous.next = ticket.next;
    if (ticket.next === undefined) this.last = ticket.previous;
    else ticket.next.previous = ticket.previous;
    if (ticket === this.lowest) this.advance();
    ticket.previous = undefined; // a settled ticket that somebody keeps must not keep its neighbours
    ticket.next = undefined;
    this.pool.give(ticket.bytes);
    this.lookForStall();
  }

  parked(ticket: SampleTicket): void {
    this.numParked += 1;
    if (ticket === this.lowest) this.advance();
    this.lookForStall();
  }

  unparked(ticket: SampleTicket): void {
    this.numParked -= 1;
    this.retreat(ticket);
  }

  delivered(ticket: SampleTicket): void {
    if (ticket === this.lowest) this.advance();
    this.observer?.(ticket, 'delivered');
  }

  entered(ticket: SampleTicket): void {
    if (ticket === this.lowest && this.blame.waiting) this.blame.look(ticket);
    this.observer?.(ticket, 'entered');
  }

  weighed(ticket: SampleTicket, before: number): void {
    if (ticket.bytes > before) this.pool.take(ticket.bytes - before);
    else this.pool.give(before - ticket.bytes);
    this.observer?.(ticket, 'weighed');
  }

  split(ticket: SampleTicket, bytes: number): SampleTicket {
    const { sequence, origin, stage, oversize, cursor } = ticket;
    const child = new SampleTicket(this, sequence, origin, bytes, stage, oversize, cursor);
    this.open(child, ticket);
    return child;
  }

  grown(bytes: number): void {
    this.pool.take(bytes);
  }

  private open(ticket: SampleTicket, after: SampleTicket | undefined): void {
    this.issued += 1;
    this.places.issued(ticket);
    this.numOpen += 1;
    if (ticket.oversize) this.numOversizeOpen += 1;
    ticket.previous = after;
    ticket.next = after?.next;
    if (after === undefined) this.first = ticket;
    else after.next = ticket;
    if (ticket.next === undefined) this.last = ticket;
    else ticket.next.previous = ticket;
    this.retreat(ticket);
    this.observer?.(ticket, 'issued');
  }

  /** The lowest ticket blocks nobody any more: the next one does. */
  private advance(): void {
    let ticket = this.lowest;
    while (ticket !== undefined && (ticket.settled || ticket.isDelivered || ticket.isParked))
      ticket = ticket.next;
    this.lowest = ticket;
    if (this.blame.waiting) this.blame.look(ticket);
  }

  private retreat(ticket: SampleTicket): void {
    if (this.lowest !== undefined && this.lowest.sequence <= ticket.sequence) return;
    if (ticket.isDelivered) return;
    this.lowest = ticket;
    if (this.blame.waiting) this.blame.look(ticket);
  }

  /** The gate looks again at what it waits for, since nothing else will wake it. */
  private lookForStall(): void {
    if (this.stalled) this.pool.nudge();
  }
}
