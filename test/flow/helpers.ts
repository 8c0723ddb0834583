// Sources, tickets and virtual time for the tests of the flow.

import { concatMap, map as rxMap, Observable, timer, type OperatorFunction } from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { expect } from 'vitest';
import {
  Ledger,
  Pool,
  type FlowEvent,
  type Origin,
  type Source,
  type SourceFault,
  type SourceItem,
  type Stage,
  type Ticketed,
} from '../../src/flow/index.js';

export function origin(row: number): Origin {
  return { file: 'rows.parquet', rowGroup: 0, row };
}

export interface SpySource<T> extends Source<T> {
  readonly log: { opened: number; pulled: number; returned: number; aborted: number };
}

/** A source of these values that counts what is done to it. `bytes` is 100 unless told. */
export function sourceOf<T>(
  values: Iterable<T>,
  {
    bytes = () => 100,
    maxItemBytes,
    wait,
  }: { bytes?: (value: T) => number; maxItemBytes?: number; wait?: () => Promise<void> } = {},
): SpySource<T> {
  const log = { opened: 0, pulled: 0, returned: 0, aborted: 0 };
  return {
    name: 'rows',
    log,
    ...(maxItemBytes === undefined ? {} : { maxItemBytes }),
    open: (signal) => {
      log.opened += 1;
      signal.addEventListener('abort', () => (log.aborted += 1));
      const iterator = values[Symbol.iterator]();
      let row = -1;
      return {
        [Symbol.asyncIterator]: () => ({
          next: async () => {
            log.pulled += 1;
            await wait?.();
            const next = iterator.next();
            if (next.done === true) return { done: true, value: undefined };
            row += 1;
            return {
              done: false,
              value: { value: next.value, bytes: bytes(next.value), origin: origin(row) },
            };
          },
          return: async () => {
            log.returned += 1;
            return { done: true, value: undefined };
          },
        }),
      };
    },
  };
}

/** A source from a generator of items, faults and errors. */
export function sourceFrom<T>(
  open: (signal: AbortSignal) => AsyncIterable<SourceItem<T> | SourceFault>,
): Source<T> {
  return { name: 'rows', open };
}

export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A ledger over a pool that tells when something is given back, and the events so far. */
export function books(poolBytes = 1_000_000): { pool: EchoPool; ledger: Ledger; events: FlowEvent[] } {
  const pool = new EchoPool(poolBytes);
  const events: FlowEvent[] = [];
  return { pool, ledger: new Ledger(pool, { onEvent: (event) => events.push(event) }), events };
}

class EchoPool extends Pool {
  onGive: () => void = () => {};

  override give(bytes: number): void {
    super.give(bytes);
    this.onGive();
  }
}

/** Issues a ticket of 100 bytes for each value. */
export function issue<T>(ledger: Ledger, bytes = 100): OperatorFunction<T, Ticketed<T>> {
  let row = 0;
  return rxMap((value) => {
    const ticket = ledger.issue(origin(row), bytes);
    row += 1;
    return { value, ticket };
  });
}

export function valuesOf<T>(): OperatorFunction<Ticketed<T>, T> {
  return rxMap(({ value }) => value);
}

export function virtual(): TestScheduler {
  return new TestScheduler((actual, expected) => expect(actual).toEqual(expected));
}

/** Rows 0, 1, ... through a stage in virtual time, admitted while the pool has room, to a consumer that takes `takes` ms
 *  a value. Returns what it got, the peak and the books. */
export function runSlowly<B>(
  stage: Stage<number, B>,
  { rows = 12, bytes = 100, poolBytes = 400, takes = 10 } = {},
): {
  values: B[];
  peak: number;
  counts: Ledger['counts'];
  events: FlowEvent[];
} {
  const { pool, ledger, events } = books(poolBytes);
  const source = new Observable<Ticketed<number>>((subscriber) => {
    let row = 0;
    let pumping = false;
    const pump = (): void => {
      if (pumping) return;
      pumping = true;
      while (row < rows && pool.fits(bytes)) {
        const ticket = ledger.issue(origin(row), bytes);
        row += 1;
        subscriber.next({ value: row - 1, ticket });
      }
      pumping = false;
      if (row === rows) {
        row += 1;
        subscriber.complete();
      }
    };
    pool.onGive = pump;
    pump();
  });
  const values: B[] = [];
  virtual().run(() => {
    stage
      .connect(source)
      .pipe(
        concatMap(({ value, ticket }) =>
          timer(takes).pipe(
            rxMap(() => {
              values.push(value);
              ticket.settle('trained');
            }),
          ),
        ),
      )
      .subscribe();
  });
  return { values, peak: pool.peak, counts: ledger.counts, events };
}
