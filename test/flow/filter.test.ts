import { of } from 'rxjs';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { filter, type StageOf } from '../../src/flow/index.js';
import { books, issue, origin, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3 };
const isOdd = (n: number): boolean => n % 2 === 1;

describe('filter', () => {
  it('keeps what the predicate holds for and drops the rest', () => {
    const { ledger, pool } = books();
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  -a-b-c-|', letters);
      const expected = '    -a---c-|';
      expectObservable(
        filter(isOdd)
          .connect(input.pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe(expected, letters);
    });
    expect(ledger.counts).toEqual({ issued: 3, trained: 0, dropped: 1, quarantined: 0 });
    expect(pool.used).toBe(200);
  });

  it('completes on an empty source, and passes its error on', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      expectObservable(filter(isOdd).connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
      expectObservable(filter(isOdd).connect(cold<number>('--#').pipe(issue(ledger)))).toBe('--#');
    });
  });

  it('quarantines only the sample that its predicate throws at', () => {
    const { ledger, events } = books();
    const error = new Error('bad');
    const stage = filter(
      (n: number) => {
        if (n === 2) throw error;
        return true;
      },
      { name: 'long' },
    );
    stage.connect(of(1, 2, 3).pipe(issue(ledger))).subscribe();
    expect(events).toMatchObject([{ kind: 'quarantine', origin: origin(1), stage: 'long', error }]);
  });

  it('stops the run on a promise, which would always hold', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const late = (async () => false) as unknown as (n: number) => boolean;
      expectObservable(filter(late).connect(cold('a|', letters).pipe(issue(ledger)))).toBe(
        '#',
        {},
        new FlowError(
          'filter: rows.parquet row 0: expected true or false, received a promise; decide in an asynchronous map before it, and filter by what that found',
        ),
      );
    });
  });

  it('stops when it is cancelled', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      expectObservable(
        filter(isOdd)
          .connect(input.pipe(issue(ledger)))
          .pipe(valuesOf()),
        '---!',
      ).toBe('-a-', letters);
      expectSubscriptions(input.subscriptions).toBe('^--!');
    });
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(filter(isOdd));
    expect(result.values).toEqual([1, 3, 5, 7, 9, 11]);
    expect(result.peak).toBe(400);
    expect(result.counts).toEqual({ issued: 12, trained: 6, dropped: 6, quarantined: 0 });
  });

  it('narrows the type by a type guard', () => {
    const stage = filter((value: string | number): value is string => typeof value === 'string');
    expectTypeOf(stage).toEqualTypeOf<StageOf<string | number, string>>();
  });
});
