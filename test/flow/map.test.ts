import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { map } from '../../src/flow/index.js';
import { books, issue, origin, range, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3, x: 10, y: 20, z: 30 };

describe('map', () => {
  it('maps each value at once', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      const expected = '    -x-y-z-|';
      const stage = map((n: number) => n * 10);
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
  });

  it('keeps undefined, null and false as values', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const results = [undefined, null, false];
      const stage = map((n: number) => results[n - 1]);
      expectObservable(stage.connect(cold('abc|', letters).pipe(issue(ledger))).pipe(valuesOf())).toBe(
        'xyz|',
        {
          x: undefined,
          y: null,
          z: false,
        },
      );
    });
  });

  it('completes on an empty source, and passes its error on', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const stage = map((n: number) => n);
      expectObservable(stage.connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
      expectObservable(stage.connect(cold<number>('--#').pipe(issue(ledger)))).toBe('--#');
    });
  });

  it('quarantines only the sample that its function throws at', () => {
    const { ledger, events } = books();
    const error = new TypeError('no column question');
    virtual().run(({ cold, expectObservable }) => {
      const stage = map((n: number) => {
        if (n === 2) throw error;
        return n * 10;
      });
      expectObservable(stage.connect(cold('abc|', letters).pipe(issue(ledger))).pipe(valuesOf())).toBe(
        'x-z|',
        letters,
      );
    });
    expect(events).toMatchObject([{ kind: 'quarantine', origin: origin(1), stage: 'map', error }]);
  });

  it('awaits a promise before it begins the next sample', async () => {
    const { ledger, events } = books();
    let active = 0;
    let most = 0;
    const stage = map(
      async (n: number, { origin: { row } }) => {
        active += 1;
        most = Math.max(most, active);
        await new Promise((resolve) => setTimeout(resolve, 1));
        active -= 1;
        if (n === 2) throw new Error(`row ${row}`);
        return n * 10;
      },
      { name: 'ask' },
    );
    const values: number[] = [];
    await stage.connect(of(1, 2, 3).pipe(issue(ledger))).forEach(({ value }) => void values.push(value));
    expect([values, most]).toEqual([[10, 30], 1]);
    expect(events).toMatchObject([
      { kind: 'quarantine', origin: origin(1), stage: 'ask', error: new Error('row 1') },
    ]);
  });

  it('stops when it is cancelled', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      const stage = map((n: number) => n * 10);
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf()), '---!').toBe(
        '-x-',
        letters,
      );
      expectSubscriptions(input.subscriptions).toBe('^--!');
    });
  });

  it('weighs what it made, and quarantines what cannot be weighed', () => {
    const { pool, ledger, events } = books();
    const stage = map((n: number) => n, { weigh: (n) => (n === 2 ? NaN : 7) });
    stage.connect(of(1, 2).pipe(issue(ledger))).subscribe();
    expect(pool.used).toBe(7);
    expect(events.map((event) => event.kind === 'quarantine' && String(event.error))).toEqual([
      'FlowError: source: rows.parquet row 1: expected a weight in bytes, 0 or more, received NaN; give what the value takes in memory',
    ]);
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(map((n: number) => n));
    expect(result.values).toEqual(range(12));
    expect(result.peak).toBe(400);
    expect(result.counts.trained).toBe(12);
  });

  it('declares what its outputs weigh', () => {
    expect(map((n: number) => n, { itemBytes: 9, name: 'grow' })).toMatchObject({
      name: 'grow',
      itemBytes: 9,
    });
  });
});
