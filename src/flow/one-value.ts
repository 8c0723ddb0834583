// Runs an observable that stands for one sample: its only value, nothing (dropped), or an error (quarantined).

import { Subscriber, type Observable, type Observer } from 'rxjs';
import { FlowError } from '../errors.js';
import { DROP, Failure, Fatal, Pending, at, type Done } from './transform.js';
import type { Origin } from './types.js';

/** Subscribes now. The value counts when the observable completes, so that an error after it still counts.
 *  Several values stop the run with a FlowError: the operator does not mean what it says, whatever the sample. */
export function oneValue<B>(observable: Observable<B>, name: string, origin: Origin): Done<B> | Pending<B> {
  const observer = new OneValue<B>(name, origin);
  // Made here, not by `subscribe`, so that a stream that is endless and synchronous can be stopped from inside.
  const subscriber = new Subscriber<B>(observer);
  observer.subscriber = subscriber;
  observable.subscribe(subscriber);
  if (observer.done) return observer.outcome as Done<B>;
  return new Pending((finish) => {
    observer.finish = finish;
    return () => subscriber.unsubscribe();
  });
}

class OneValue<B> implements Observer<B> {
  done = false;
  outcome: Done<B> | undefined;
  subscriber: Subscriber<B> | undefined;
  finish: ((outcome: Done<B>) => void) | undefined;
  private numValues = 0;
  private value: B | undefined;

  constructor(
    private readonly name: string,
    private readonly origin: Origin,
  ) {}

  next(value: B): void {
    this.numValues += 1;
    if (this.numValues === 1) {
      this.value = value;
      return;
    }
    this.settle(new Fatal(severalError(this.name, this.origin)));
    this.subscriber?.unsubscribe();
  }

  error(error: unknown): void {
    this.settle(new Failure(error));
  }

  complete(): void {
    this.settle(this.numValues === 0 ? DROP : (this.value as B));
  }

  private settle(outcome: Done<B>): void {
    if (this.done) return;
    this.done = true;
    this.outcome = outcome;
    this.finish?.(outcome);
  }
}

function severalError(name: string, origin: Origin): FlowError {
  return new FlowError({
    where: at(name, origin),
    expected: 'at most one value for a sample',
    received: 'a second value',
    remedy: 'use flatMap to make several samples of one',
  });
}
