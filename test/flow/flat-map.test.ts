import { of, take } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { batch, flatMap } from '../../src/flow/index.js';
import { books, issue, origin, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3 };
const outputs = { x: 'x', y: 'y' };
const times = (n: number): string[] => ['x', 'y', 'z'].slice(0, n);

describe('flatMap', () => {
  it('makes several samples of one, and drops those that make none', () => {
    const { ledger } = books();
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  -a-----b-----0-|', { ...letters, 0: 0 });
      const expected = '    -x-----(xy)----|';
      expectObservable(
        flatMap(times)
          .connect(input.pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe(expected, outputs);
    });
    expect(ledger.counts).toEqual({ issued: 4, trained: 0, dropped: 1, quarantined: 0 });
  });

  it('completes on an empty source, and passes its error on', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      expectObservable(flatMap(times).connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
      expectObservable(flatMap(times).connect(cold<number>('--#').pipe(issue(ledger)))).toBe('--#');
    });
  });

  it('quarantines one sample, not several, when they cannot be made', () => {
    const { ledger, events } = books();
    const error = new Error('half way');
    const stage = flatMap(function* (n: number) {
      yield n;
      if (n === 2) throw error;
    });
    const values: number[] = [];
    stage.connect(of(1, 2, 3).pipe(issue(ledger))).subscribe(({ value }) => values.push(value));
    expect(values).toEqual([1, 3]);
    expect(ledger.counts.issued).toBe(3);
    expect(events).toMatchObject([{ kind: 'quarantine', origin: origin(1), stage: 'flatMap', error }]);
  });

  it('quarantines a sample that makes more than maxOutputs, and reads no further', () => {
    const { ledger, events } = books();
    let made = 0;
    const stage = flatMap(
      function* (_: number) {
        for (;;) yield (made += 1);
      },
      { maxOutputs: 3, name: 'turns' },
    );
    stage.connect(of(1).pipe(issue(ledger))).subscribe();
    expect(made).toBe(4);
    expect(events.map((event) => event.kind === 'quarantine' && String(event.error))).toEqual([
      'FlowError: turns: rows.parquet row 0: expected at most 3 samples of one, received more; raise maxOutputs',
    ]);
  });

  it('shares the weight, or weighs each output', () => {
    const { pool, ledger } = books();
    flatMap(times)
      .connect(of(3).pipe(issue(ledger)))
      .subscribe();
    expect(pool.used).toBe(100);
    flatMap(times, { weigh: () => 5 })
      .connect(of(3).pipe(issue(ledger)))
      .subscribe();
    expect(pool.used).toBe(115);
  });

  it('stops the run when it is asked to split a batch', () => {
    const { ledger } = books();
    let failure: unknown;
    const batches = batch({ size: 2 }, (values: readonly number[]) => values).connect(
      of(1, 2).pipe(issue(ledger)),
    );
    flatMap((values: readonly number[]) => values)
      .connect(batches)
      .subscribe({ error: (error: unknown) => (failure = error) });
    expect(failure).toEqual(
      new FlowError(
        'batch that begins with rows.parquet row 0: expected one value for one batch, received 2 values; split samples before they are batched',
      ),
    );
  });

  it('stops when it is cancelled, also between the samples of one', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  -c-c-|', letters);
      const stage = flatMap(times)
        .connect(input.pipe(issue(ledger)))
        .pipe(valuesOf(), take(2));
      expectObservable(stage).toBe('-(xy|)', outputs);
      expectSubscriptions(input.subscriptions).toBe('^!');
    });
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(flatMap((n: number) => [n, n + 0.5]));
    expect(result.values).toHaveLength(24);
    expect(result.peak).toBe(400);
    expect(result.counts).toEqual({ issued: 24, trained: 24, dropped: 0, quarantined: 0 });
  });

  it('declares what it may become', () => {
    expect(flatMap(times, { maxOutputs: 3, itemBytes: 10 })).toMatchObject({ splits: 3, itemBytes: 10 });
    expect(() => flatMap(times, { maxOutputs: 0 })).toThrow(
      'flatMap: maxOutputs: expected a positive whole number, received 0; correct this option',
    );
  });
});
