// The time limit of one sample.

import { timer } from 'rxjs';
import { FlowError } from '../errors.js';
import { checkPositive, type Call } from './options.js';
import { Failure, Pending, at, type Done } from './transform.js';
import type { Ticket } from './types.js';

type Outcome<B> = Done<B> | Pending<B>;

/** Quarantines a sample that is not done `timeoutMs` after it was started; its signal is aborted. The time is RxJS's, so
 *  that tests can make it virtual. */
export function withTimeout<B>(
  name: string,
  timeoutMs: number | undefined,
): (outcome: Outcome<B>, ticket: Ticket, call?: Call) => Outcome<B> {
  if (timeoutMs === undefined) return (outcome) => outcome;
  checkPositive(`${name}: timeoutMs`, timeoutMs);
  return (outcome, ticket, call) => {
    if (!(outcome instanceof Pending)) return outcome;
    return new Pending((finish) => {
      let cancel = (): void => {};
      const clock = timer(timeoutMs).subscribe(() => {
        const error = lateError(name, timeoutMs, ticket);
        call?.abort(error);
        cancel();
        finish(new Failure(error));
      });
      cancel = outcome.begin((done) => {
        clock.unsubscribe();
        finish(done);
      });
      return () => {
        clock.unsubscribe();
        cancel();
      };
    });
  };
}

function lateError(name: string, timeoutMs: number, ticket: Ticket): FlowError {
  return new FlowError({
    where: at(name, ticket.origin),
    expected: `a result within ${timeoutMs} ms`,
    received: 'none',
    remedy: 'raise timeoutMs, or find out what this sample waits for',
  });
}
