// Guards around a stage under test: what it emits must carry the ticket it came with, open, and once.

import { Observable } from 'rxjs';
import { FlowError } from '../errors.js';
import type { AnyStage, Stage, Ticket, Ticketed } from '../flow/index.js';

/** The stage, with an error that names it where it mistreats a ticket.
 *  @param nameOf names a ticket's sample */
export function guarded(stage: AnyStage, nameOf: (ticket: Ticket) => string): AnyStage {
  const { name } = stage;
  const connect = stage.connect as Stage<unknown, unknown>['connect'];

  const faultOf = (
    item: Partial<Ticketed<unknown>> | undefined,
    left: WeakSet<Ticket>,
  ): FlowError | undefined => {
    const ticket = item?.ticket;
    const where = `stage ${name}`;
    if (typeof ticket?.settle !== 'function') {
      return new FlowError({
        where,
        expected: 'to emit { value, ticket }',
        received: typeof item === 'object' ? 'a value without a ticket' : typeof item,
        remedy: 'pass the ticket on with its value; an operator that need not know tickets is lifted',
      });
    }
    if (left.has(ticket)) {
      return new FlowError({
        where,
        expected: `to emit ${nameOf(ticket)} once`,
        received: 'its ticket a second time',
        remedy: 'split a ticket for each value that is made of it',
      });
    }
    if (ticket.settled) {
      return new FlowError({
        where,
        expected: `to pass ${nameOf(ticket)} on or to settle it`,
        received: 'both',
        remedy: 'emit nothing whose ticket the stage has settled',
      });
    }
    left.add(ticket);
    return undefined;
  };

  const guardedStage: Stage<unknown, unknown> = {
    ...stage,
    connect: (source) =>
      new Observable((subscriber) => {
        const left = new WeakSet<Ticket>();
        return connect(source).subscribe({
          next: (item) => {
            const fault = faultOf(item, left);
            if (fault) subscriber.error(fault);
            else subscriber.next(item);
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => subscriber.complete(),
        });
      }),
  };
  return guardedStage;
}
