// One ticket for several samples (a batch): what happens to it happens to each member.

import { FlowError } from '../errors.js';
import { place } from './ticket.js';
import type { FlowEvent, FlowPosition, Origin, Ticket } from './types.js';

export class GroupTicket implements Ticket {
  private closed = false;
  private readonly place: FlowPosition;

  /** @param members at least one, unsettled, arrived; the group settles them from now on
   *  @param last the last sample that was gathered, also where it is no member for a fault of its own */
  constructor(
    readonly members: readonly [Ticket, ...Ticket[]],
    last: Ticket = members.at(-1) ?? members[0],
  ) {
    this.place = last.position();
  }

  get origin(): Origin {
    return this.members[0].origin;
  }

  get origins(): readonly Origin[] {
    return this.members.flatMap((member) => member.origins);
  }

  get bytes(): number {
    return this.members.reduce((sum, member) => sum + member.bytes, 0);
  }

  get settled(): boolean {
    return this.closed;
  }

  settle(outcome: 'trained' | 'dropped'): void {
    this.close(outcome);
    for (const member of this.members) member.settle(outcome);
  }

  quarantine(stage: string, error: unknown): void {
    this.close('quarantined');
    for (const member of this.members) member.quarantine(stage, error);
  }

  enter(stage: string, reserve = 0): void {
    for (const member of this.members) member.enter(stage, reserve);
  }

  park(): void {
    for (const member of this.members) member.park();
  }

  unpark(): void {
    for (const member of this.members) member.unpark();
  }

  deliver(): void {
    for (const member of this.members) member.deliver();
  }

  arrive(): boolean {
    return true;
  }

  position(): FlowPosition {
    return this.place;
  }

  /** Members weigh equal shares; the first carries the rest. */
  weigh(bytes: number): void {
    const [first, ...others] = this.members;
    const share = Math.floor(bytes / this.members.length);
    first.weigh(bytes - share * others.length);
    for (const member of others) member.weigh(share);
  }

  split(count: number): Ticket[] {
    if (count === 1) return [this];
    throw new FlowError({
      where: `batch that begins with ${place(this.origin)}`,
      expected: 'one value for one batch',
      received: `${count} values`,
      remedy: 'split samples before they are batched',
    });
  }

  report(event: FlowEvent): void {
    this.members[0].report(event);
  }

  private close(outcome: string): void {
    if (this.closed) {
      throw new FlowError({
        where: `ticket of the batch that begins with ${place(this.origin)}`,
        expected: 'to be settled once',
        received: `${outcome} again`,
        remedy: 'let each stage pass a ticket on or settle it, not both',
      });
    }
    this.closed = true;
  }
}
