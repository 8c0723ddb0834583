import { EMPTY, Observable, of, throwError, timer } from 'rxjs';
import { map as rxMap } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { orderedMap, unorderedMap, type MapContext } from '../../src/flow/index.js';
import { books, issue, origin, range, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3, d: 4 };
/** 1 takes 7 ms, 2 takes 5, 3 takes 3, 4 takes 1. */
const slowest = (n: number): Observable<number> => timer(9 - 2 * n).pipe(rxMap(() => n));

describe('orderedMap', () => {
  it('keeps the order of samples that overtake each other', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  abcd---------|', letters);
      const expected = '    -------(abcd)|';
      expectObservable(
        orderedMap(slowest)
          .connect(input.pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe(expected, letters);
    });
  });

  it('works on at most `concurrency` samples at once', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  (abcd|)', letters);
      const inner = cold('  -----(x|)');
      const expected = '    -----(xx)-(xx|)';
      const stage = orderedMap(() => inner, { concurrency: 2 });
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected);
      expectSubscriptions(inner.subscriptions).toBe(['^----!', '^----!', '-----^----!', '-----^----!']);
    });
  });

  it('completes on an empty source, and after the last sample that is pending', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      expectObservable(orderedMap(slowest).connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
      expectObservable(
        orderedMap(slowest)
          .connect(cold('d|', letters).pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe('-(d|)', letters);
      expectObservable(
        orderedMap(slowest)
          .connect(cold('a|', letters).pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe('-------(a|)', letters);
    });
  });

  it('quarantines what throws, rejects or errs, and lets the others pass in order', async () => {
    const { ledger, events } = books();
    const fn = (n: number): number | Promise<number> | Observable<number> => {
      if (n === 0) throw new Error('thrown');
      if (n === 1) return Promise.reject(new Error('rejected'));
      if (n === 2) return throwError(() => new Error('errs'));
      if (n === 3) return EMPTY;
      if (n === 4) return Promise.resolve(4);
      if (n === 5) return of(5);
      return n;
    };
    const values: number[] = [];
    await orderedMap(fn, { name: 'decode' })
      .connect(of(...range(8)).pipe(issue(ledger)))
      .forEach(({ value }) => void values.push(value));
    expect(values).toEqual([4, 5, 6, 7]);
    expect(ledger.counts).toEqual({ issued: 8, trained: 0, dropped: 1, quarantined: 3 });
    expect(events).toMatchObject(
      ['thrown', 'rejected', 'errs'].map((message, row) => ({
        kind: 'quarantine',
        origin: origin(row),
        stage: 'decode',
        error: new Error(message),
      })),
    );
  });

  it('stops the run when an observable makes several values', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      expectObservable(
        orderedMap((n: number) => of(n, n)).connect(cold('-a|', letters).pipe(issue(ledger))),
      ).toBe(
        '-#',
        {},
        new FlowError(
          'orderedMap: rows.parquet row 0: expected at most one value for a sample, received a second value; use flatMap to make several samples of one',
        ),
      );
    });
  });

  it('quarantines a late sample, aborts its signal and goes on', () => {
    const { ledger, events } = books();
    const aborted: unknown[] = [];
    virtual().run(({ cold, expectObservable }) => {
      const fn = (n: number, { signal }: MapContext): Observable<number> | Promise<number> => {
        if (n !== 2) return slowest(n);
        signal.addEventListener('abort', () => aborted.push(signal.reason));
        return new Promise(() => {});
      };
      const input = cold('  bd---------|', letters);
      const expected = '    ----d------|'; // d waits for b, which is given up at 4
      const stage = orderedMap(fn, { name: 'decode', timeoutMs: 4 });
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
    const error = new FlowError(
      'decode: rows.parquet row 0: expected a result within 4 ms, received none; raise timeoutMs, or find out what this sample waits for',
    );
    expect(aborted).toEqual([error]);
    expect(events).toMatchObject([{ kind: 'quarantine', origin: origin(0), stage: 'decode', error }]);
  });

  it('ignores what a late promise says after it was given up', async () => {
    const { ledger, events } = books();
    let resolve: (n: number) => void = () => {};
    const stage = orderedMap(() => new Promise<number>((r) => (resolve = r)), { timeoutMs: 1 });
    await stage.connect(of(1).pipe(issue(ledger))).forEach(() => {});
    resolve(1);
    await Promise.resolve();
    expect(ledger.counts).toEqual({ issued: 1, trained: 0, dropped: 0, quarantined: 1 });
    expect(events).toHaveLength(1);
  });

  it('aborts the signals of pending samples when it is cancelled, and ignores what they say', async () => {
    const { ledger } = books();
    const signals: AbortSignal[] = [];
    const resolves: ((n: number) => void)[] = [];
    const values: number[] = [];
    const stage = orderedMap(
      (_: number, { signal }) => {
        signals.push(signal);
        return new Promise<number>((resolve) => resolves.push(resolve));
      },
      { concurrency: 2 },
    );
    const subscription = stage
      .connect(of(1, 2, 3).pipe(issue(ledger)))
      .subscribe(({ value }) => values.push(value));
    subscription.unsubscribe();
    resolves.forEach((resolve, i) => resolve(i));
    await Promise.resolve();
    expect(signals.map((signal) => signal.aborted)).toEqual([true, true]);
    expect(values).toEqual([]);
    expect(ledger.numOpen).toBe(3);
  });

  it('unsubscribes source and pending samples when it is cancelled or its source fails', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  a--b---|', letters);
      const inner = cold('  ------x|');
      expectObservable(orderedMap(() => inner).connect(input.pipe(issue(ledger))), '----!').toBe('-----');
      expectSubscriptions(input.subscriptions).toBe('^---!');
      expectSubscriptions(inner.subscriptions).toBe(['^---!', '---^!']);
      const failing = cold('  --#', letters);
      expectObservable(orderedMap(() => inner).connect(failing.pipe(issue(ledger)))).toBe('--#');
    });
  });

  it('needs no deep stack for many samples that are done at once behind a slow one', async () => {
    const { ledger } = books(10 ** 9);
    let last = -1;
    await orderedMap((n: number) => (n === 0 ? new Promise<number>((r) => setTimeout(r, 5, 0)) : n), {
      concurrency: 1,
    })
      .connect(
        new Observable<number>((subscriber) => {
          for (let i = 0; i < 200_000; i += 1) subscriber.next(i);
          subscriber.complete();
        }).pipe(issue(ledger)),
      )
      .forEach(({ value }) => {
        if (value === last + 1) last = value;
      });
    expect(last).toBe(199_999);
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(orderedMap((n: number) => slowest((n % 4) + 1)));
    expect(result.values).toEqual(range(12).map((n) => (n % 4) + 1));
    expect(result.peak).toBe(400);
    expect(result.counts.trained).toBe(12);
  });

  it('stays within the pool when its first sample is the slowest by far', () => {
    const result = runSlowly(
      orderedMap((n: number) => timer(n === 0 ? 1000 : 1).pipe(rxMap(() => n))),
      {
        takes: 0,
      },
    );
    expect(result.values).toEqual(range(12));
    expect(result.peak).toBe(400);
  });

  it('tells its function where the sample came from', () => {
    const { ledger } = books();
    const seen: unknown[] = [];
    orderedMap((_: number, context) => seen.push(context.origin, context.origins, context.signal.aborted))
      .connect(of(1).pipe(issue(ledger)))
      .subscribe();
    expect(seen).toEqual([origin(0), [origin(0)], false]);
  });

  it('refuses a concurrency that is none', () => {
    expect(() => orderedMap((n: number) => n, { name: 'decode', concurrency: 1.5 })).toThrow(
      'decode: concurrency: expected a positive whole number, received 1.5; correct this option',
    );
  });
});

describe('unorderedMap', () => {
  it('lets samples overtake each other', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  (abcd)-----|', letters);
      const expected = '    -d-c-b-a---|';
      const stage = unorderedMap(slowest);
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
  });

  it('works on at most `concurrency` samples, unsubscribes them on cancel, and quarantines', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const inner = cold('  --#');
      const stage = unorderedMap(() => inner, { concurrency: 1 });
      expectObservable(stage.connect(cold('(ab|)', letters).pipe(issue(ledger))), '---!').toBe('----');
      expectSubscriptions(inner.subscriptions).toBe(['^-!', '--^!']);
    });
    expect(events).toHaveLength(1);
  });

  it('says that it is not reproducible', () => {
    expect(unorderedMap((n: number) => n)).toMatchObject({ name: 'unorderedMap', reproducible: false });
    expect(orderedMap((n: number) => n)).not.toHaveProperty('reproducible');
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(unorderedMap((n: number) => slowest((n % 4) + 1)));
    expect([...result.values].sort((a, b) => a - b)).toEqual(
      range(12)
        .map((n) => (n % 4) + 1)
        .sort((a, b) => a - b),
    );
    expect(result.peak).toBe(400);
    expect(result.counts.trained).toBe(12);
  });
});
