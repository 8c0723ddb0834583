import {
  concatWith,
  delay,
  filter,
  ignoreElements,
  map,
  mergeMap,
  NEVER,
  Observable,
  of,
  pipe,
  repeat,
  retry,
  throwError,
  timeout,
  timer,
} from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { lift } from '../../src/flow/index.js';
import { books, issue, origin, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3, x: 10, y: 20, z: 30 };

describe('lift', () => {
  it('passes values of a synchronous operator on at once', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      const expected = '    -x-y-z-|';
      const stage = lift(map((n: number) => n * 10));
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
  });

  it('completes on an empty source', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const stage = lift(map((n: number) => n));
      expectObservable(stage.connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
    });
  });

  it('drops the samples whose stream ends empty', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  a-b-c|', letters);
      const expected = '    --b--|';
      const stage = lift(filter((n: number) => n === 2));
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
    expect(ledger.counts).toEqual({ issued: 3, trained: 0, dropped: 2, quarantined: 0 });
    expect(events).toEqual([]);
  });

  it('quarantines only the sample that fails, under the name of the stage', () => {
    const { ledger, events } = books();
    const error = new Error('two is bad');
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  a-b-c|', letters);
      const expected = '    x---z|';
      const stage = lift(
        map((n: number) => {
          if (n === 2) throw error;
          return n * 10;
        }),
        { name: 'tens' },
      );
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
    expect(events).toMatchObject([{ kind: 'quarantine', origin: origin(1), stage: 'tens', error }]);
  });

  it('quarantines a sample whose operator throws when it is applied', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable }) => {
      const stage = lift((_: Observable<number>): Observable<number> => {
        throw new Error('at once');
      });
      expectObservable(stage.connect(cold('a|', letters).pipe(issue(ledger)))).toBe('-|');
    });
    expect(events).toMatchObject([
      { kind: 'quarantine', origin: origin(0), stage: 'lift', error: new Error('at once') },
    ]);
  });

  it('keeps the order of samples that take different times', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  abc-------|', letters);
      // 1 takes 5 ms, 2 takes 3, 3 takes 1: both wait for the first
      const expected = '    -----(abc)|';
      const stage = lift(mergeMap((n: number) => of(n).pipe(delay(7 - 2 * n))));
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
  });

  it('runs at most `concurrency` streams at once', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  (abc|)', letters);
      const expected = '    ---a--b--(c|)';
      const stage = lift(delay<number>(3), { concurrency: 1 });
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
  });

  it('lets retry work on each sample', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable }) => {
      const failures = new Map<number, number>();
      const flaky = (n: number): Observable<number> => {
        const count = (failures.get(n) ?? 0) + 1;
        failures.set(n, count);
        return count < 3 ? throwError(() => new Error(`try ${count}`)) : of(n);
      };
      const input = cold('  a-----b---|', letters);
      const expected = '    --a-----b-|';
      const stage = lift(pipe(mergeMap(flaky), retry({ count: 2, delay: 1 })));
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
    expect(events).toEqual([]);
  });

  it('lets timeout work on each sample', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  a-b-----|', letters);
      const expected = '    -a------|';
      const stage = lift(
        pipe(
          mergeMap((n: number) => timer(n === 1 ? 1 : 50).pipe(map(() => n))),
          timeout(3),
        ),
        { name: 'fetch' },
      );
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, letters);
    });
    expect(
      events.map((event) => event.kind === 'quarantine' && [event.origin.row, String(event.error)]),
    ).toEqual([[1, 'TimeoutError: Timeout has occurred']]);
  });

  it('counts an error that comes after the value', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable }) => {
      const stage = lift(concatWith<number, [number]>(throwError(() => new Error('after'))));
      expectObservable(stage.connect(cold('a|', letters).pipe(issue(ledger)))).toBe('-|');
    });
    expect(events).toHaveLength(1);
  });

  it('stops the run when an operator makes several values of one sample', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const stage = lift(
        mergeMap((n: number) => [n, n]),
        { name: 'twice' },
      );
      expectObservable(stage.connect(cold('-a|', letters).pipe(issue(ledger)))).toBe(
        '-#',
        {},
        new FlowError(
          'twice: rows.parquet row 0: expected at most one value for a sample, received a second value; use flatMap to make several samples of one',
        ),
      );
    });
  });

  it('stops an endless synchronous stream at its second value', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const stage = lift(repeat<number>());
      expectObservable(stage.connect(cold('a|', letters).pipe(issue(ledger)))).toBe(
        '#',
        {},
        new FlowError(
          'lift: rows.parquet row 0: expected at most one value for a sample, received a second value; use flatMap to make several samples of one',
        ),
      );
    });
  });

  it('quarantines a sample whose stream does not end within timeoutMs', () => {
    const { ledger, events } = books();
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  a-b--------|', letters);
      const expected = '    -----------|';
      const stage = lift(concatWith<number, [number]>(NEVER), { name: 'stuck', timeoutMs: 5 });
      expectObservable(stage.connect(input.pipe(issue(ledger)))).toBe(expected);
    });
    expect(events.map((event) => event.kind === 'quarantine' && String(event.error))).toEqual([
      'FlowError: stuck: rows.parquet row 0: expected a result within 5 ms, received none; raise timeoutMs, or find out what this sample waits for',
      'FlowError: stuck: rows.parquet row 1: expected a result within 5 ms, received none; raise timeoutMs, or find out what this sample waits for',
    ]);
  });

  it('passes an error of the source on and unsubscribes what is pending', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  a-#', letters);
      const inner = cold('  ------x|');
      const lifetime = '    ^-!';
      const stage = lift(mergeMap((_: number) => inner));
      expectObservable(stage.connect(input.pipe(issue(ledger)))).toBe('--#');
      expectSubscriptions(inner.subscriptions).toBe(lifetime);
    });
  });

  it('unsubscribes source and pending samples when it is cancelled', () => {
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  a-b-----|', letters);
      const inner = cold('  ------x|');
      const cancel = '      ---!';
      const stage = lift(mergeMap((_: number) => inner));
      expectObservable(stage.connect(input.pipe(issue(ledger))), cancel).toBe('----');
      expectSubscriptions(input.subscriptions).toBe('^--!');
      expectSubscriptions(inner.subscriptions).toBe(['^--!', '--^!']);
    });
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(lift(delay<number>(3)), { rows: 20, poolBytes: 400, takes: 10 });
    expect(result.values).toEqual(Array.from({ length: 20 }, (_, i) => i));
    expect(result.peak).toBe(400);
    expect(result.counts).toEqual({ issued: 20, trained: 20, dropped: 0, quarantined: 0 });
  });

  it('names itself after the operator, or as told', () => {
    expect(lift(ignoreElements()).name).toBe('lift');
    expect(
      lift(function shout(source: Observable<number>) {
        return source;
      }).name,
    ).toBe('shout');
    expect(lift(ignoreElements(), { name: 'nothing' }).name).toBe('nothing');
  });

  it('refuses a concurrency and a time limit that are none', () => {
    expect(() => lift(ignoreElements(), { concurrency: 0 })).toThrow(
      'lift: concurrency: expected a positive whole number, received 0; correct this option',
    );
    expect(() => lift(ignoreElements(), { timeoutMs: -1 })).toThrow(
      'lift: timeoutMs: expected a positive number, received -1; correct this option',
    );
  });
});
