// What happens in a flow under test, with its times.

import type { FlowEvent, ObservedTicket, TicketChange } from '../flow/index.js';
import { messageOf } from '../errors.js';
import type { Mark } from './marbles.js';

/** Behind the last stage. */
export const CONSUMER = 'consumer';

export interface RecorderOptions {
  readonly now: () => number;
  /** Names an item of the source by its number. */
  readonly nameOf: (sequence: number) => string;
  readonly poolBytes: number;
}

export class Recorder {
  readonly pulls: Mark[] = [];
  readonly values: Mark[] = [];
  readonly taken: Mark[] = [];
  /** Bytes at the end of each millisecond: of all open tickets, and of those with the consumer. */
  readonly levels: number[] = [];
  readonly deviceLevels: number[] = [];
  readonly events: FlowEvent[] = [];
  /** The first time that a stage took the pool over its bound, in words. */
  overdrawn: string | undefined;
  /** What an open ticket is from now on, when the run settles it in the end: 'lost', since its stage is done. */
  leftOver: 'dropped' | 'lost' | 'kept' = 'dropped';
  private readonly fates = new Map<number, { outcome: string; ms: number }[]>();
  private readonly open = new Map<ObservedTicket, number>();
  private readonly delivered = new Set<ObservedTicket>();
  private level = 0;

  constructor(private readonly options: RecorderOptions) {}

  observe(ticket: ObservedTicket, change: TicketChange): void {
    if (change === 'settled') {
      this.level -= this.open.get(ticket) ?? 0;
      this.open.delete(ticket);
      this.delivered.delete(ticket);
      if (ticket.outcome !== 'quarantined') this.fate(ticket);
      return;
    }
    if (change === 'delivered') this.delivered.add(ticket);
    // A ticket that was split weighs less from then on, without a change of its own.
    const changed = change === 'issued' ? [...this.open.keys()].filter(isSibling(ticket)) : [];
    for (const each of [...changed, ticket]) {
      this.level += each.bytes - (this.open.get(each) ?? 0);
      this.open.set(each, each.bytes);
    }
    if (change === 'weighed') this.checkBound(ticket);
  }

  event(event: FlowEvent): void {
    this.events.push(event);
    if (event.kind !== 'quarantine') return;
    this.addFate(event.item, `quarantined in ${event.stage}: ${messageOf(event.error)}`);
  }

  /** The levels stay as they are until `ms`. */
  fill(ms: number): void {
    if (this.levels.length >= ms) return;
    const device = [...this.delivered].reduce((sum, { bytes }) => sum + bytes, 0);
    while (this.levels.length < ms) {
      this.levels.push(this.level);
      this.deviceLevels.push(device);
    }
  }

  /** What became of each item, in order: "trained", "dropped in odd", "2 trained, 1 dropped in odd". */
  tickets(): Record<string, string> {
    const tickets: Record<string, string> = {};
    for (const [sequence, fates] of [...this.fates].sort(([a], [b]) => a - b)) {
      tickets[this.options.nameOf(sequence)] = tally(fates.map(({ outcome }) => outcome));
    }
    return tickets;
  }

  /** A line for each item: "a  trained at 3 ms". */
  ticketLines(): string[] {
    return [...this.fates]
      .sort(([a], [b]) => a - b)
      .map(([sequence, fates]) => {
        const last = Math.max(...fates.map(({ ms }) => ms));
        return `${this.options.nameOf(sequence)}  ${tally(fates.map(({ outcome }) => outcome))} at ${last} ms`;
      });
  }

  /** The stages that have open tickets, and whose: "hold has a and b". */
  whereOpen(): string {
    const stages = new Map<string, string[]>();
    for (const { stage, sequence } of this.open.keys()) {
      stages.set(stage, [...(stages.get(stage) ?? []), this.options.nameOf(sequence)]);
    }
    return [...stages].map(([stage, names]) => `${stage} has ${names.join(' and ')}`).join(', ');
  }

  /** Whether no sample is open but such as wait for more in a stage that said so. */
  get isAtRest(): boolean {
    return [...this.open.keys()].every(({ isParked }) => isParked);
  }

  private fate({ sequence, outcome, stage }: ObservedTicket): void {
    this.addFate(
      sequence,
      outcome === 'dropped'
        ? `${stage === CONSUMER ? 'dropped' : this.leftOver} in ${stage}`
        : String(outcome),
    );
  }

  private addFate(sequence: number, outcome: string): void {
    const fate = { outcome, ms: this.options.now() };
    this.fates.set(sequence, [...(this.fates.get(sequence) ?? []), fate]);
  }

  private checkBound({ sequence, stage, bytes }: ObservedTicket): void {
    const { poolBytes, now, nameOf } = this.options;
    if (this.overdrawn !== undefined || this.level <= poolBytes) return;
    this.overdrawn = `at ${now()} ms stage ${stage} let ${nameOf(sequence)} weigh ${bytes} bytes, which makes ${this.level} in a pool of ${poolBytes}; declare the most that it makes of a sample as its itemBytes, and it is kept free`;
  }
}

function isSibling(ticket: ObservedTicket): (other: ObservedTicket) => boolean {
  return ({ sequence }) => sequence === ticket.sequence;
}

function tally(outcomes: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const outcome of outcomes) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  const [only] = counts.keys();
  if (outcomes.length === 1 && only !== undefined) return only;
  return [...counts].map(([outcome, count]) => `${count} ${outcome}`).join(', ');
}
