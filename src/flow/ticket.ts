// The ticket of one sample: the duty to settle it exactly once. Its books are kept by the ledger.

import { FlowError } from '../errors.js';
import type { Cursor, FlowEvent, FlowPosition, Origin, Outcome, Ticket } from './types.js';

/** What a ticket tells its ledger. */
export interface Books {
  settled(ticket: SampleTicket, outcome: Outcome): void;
  parked(ticket: SampleTicket): void;
  unparked(ticket: SampleTicket): void;
  delivered(ticket: SampleTicket): void;
  /** @returns its number among the samples of its item; 0 for one done before, which is taken out of the books */
  arrived(ticket: SampleTicket): number;
  position(ticket: SampleTicket): FlowPosition;
  /** The number of its item in the whole stream, from 0. */
  itemOf(ticket: SampleTicket): number;
  entered(ticket: SampleTicket): void;
  weighed(ticket: SampleTicket, before: number): void;
  /** A further ticket right after this one, whose bytes the pool holds already. */
  split(ticket: SampleTicket, bytes: number): SampleTicket;
  grown(bytes: number): void;
  report(event: FlowEvent): void;
}

/** Names a sample in messages. */
export function place(origin: Origin): string {
  return `${origin.file} row ${origin.row}`;
}

/** What is charged for something that claims to weigh `bytes`: whole bytes, at least 1, so that counts are bounded too.
 *  @throws {FlowError} when it is no finite number >= 0 */
export function weightOf(bytes: number, where: string): number {
  if (Number.isFinite(bytes) && bytes >= 0) return Math.max(1, Math.ceil(bytes));
  throw new FlowError({
    where,
    expected: 'a weight in bytes, 0 or more',
    received: String(bytes),
    remedy: 'give what the value takes in memory',
  });
}

export class SampleTicket implements Ticket {
  /** Neighbours among the open tickets, in order of issue. */
  previous: SampleTicket | undefined;
  next: SampleTicket | undefined;
  outcome: Outcome | undefined;
  isParked = false;
  isDelivered = false;
  /** Its number among the samples of its item that have arrived, from 1; 0 before it has. */
  arrival = 0;
  /** Its run has ended: late settling is ignored. */
  abandoned = false;
  private reserve = 0;

  constructor(
    private readonly books: Books,
    readonly sequence: number,
    readonly origin: Origin,
    public bytes: number,
    public stage: string,
    /** It weighs more than the pool. */
    readonly oversize: boolean,
    /** Its item's. */
    readonly cursor?: Cursor,
  ) {}

  get origins(): readonly Origin[] {
    return [this.origin];
  }

  get settled(): boolean {
    return this.outcome !== undefined;
  }

  settle(outcome: 'trained' | 'dropped'): void {
    this.close(outcome);
  }

  quarantine(stage: string, error: unknown): void {
    if (this.close('quarantined')) {
      const { origin, cursor, arrival } = this;
      const item = this.books.itemOf(this);
      this.books.report({ kind: 'quarantine', origin, item, part: arrival, cursor, stage, error });
    }
  }

  enter(stage: string, reserve = 0): void {
    if (this.outcome === undefined) this.stage = stage; // a settled one shows where it was settled
    this.reserve = reserve;
    this.books.entered(this);
  }

  park(): void {
    if (this.isParked || this.settled) return;
    this.isParked = true;
    this.books.parked(this);
  }

  unpark(): void {
    if (!this.isParked || this.settled) return;
    this.isParked = false;
    this.books.unparked(this);
  }

  deliver(): void {
    if (this.isDelivered || this.settled) return;
    this.isDelivered = true;
    this.books.delivered(this);
  }

  arrive(): boolean {
    if (this.arrival > 0) return true;
    if (this.abandoned) return false;
    this.arrival = this.books.arrived(this);
    if (this.arrival > 0) return true;
    this.outcome = 'dropped'; // of another run; this one's books do not know it
    return false;
  }

  position(): FlowPosition {
    return this.books.position(this);
  }

  weigh(bytes: number): void {
    if (this.settled) return;
    const before = this.bytes;
    this.bytes = Math.max(weightOf(bytes, `${this.stage}: ${place(this.origin)}`), this.reserve);
    if (this.bytes !== before) this.books.weighed(this, before);
  }

  split(count: number): Ticket[] {
    const before = this.bytes;
    const share = Math.max(1, Math.floor(before / count));
    this.bytes = Math.max(1, before - share * (count - 1));
    const tickets: SampleTicket[] = [this];
    for (let i = 1; i < count; i += 1) {
      const child = this.books.split(tickets[i - 1] ?? this, share);
      child.reserve = this.reserve;
      tickets.push(child);
    }
    // The shares add up to what the pool holds already, unless there are more samples than bytes.
    const together = this.bytes + share * (count - 1);
    if (together > before) this.books.grown(together - before);
    return tickets;
  }

  report(event: FlowEvent): void {
    this.books.report(event);
  }

  /** @returns false when the run has ended, so that nothing is to be said */
  private close(outcome: Outcome): boolean {
    if (this.abandoned) return false;
    if (this.outcome !== undefined) {
      throw new FlowError({
        where: `ticket of ${place(this.origin)}`,
        expected: 'to be settled once',
        received: `${outcome} after ${this.outcome} in ${this.stage}`,
        remedy: 'let each stage pass a ticket on or settle it, not both',
      });
    }
    this.outcome = outcome;
    this.books.settled(this, outcome);
    return true;
  }
}
