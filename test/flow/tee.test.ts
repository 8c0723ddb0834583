import { of } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { tee, type TeeSink } from '../../src/flow/index.js';
import { books, issue, origin, range, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3 };

function collector(fails: (n: number) => boolean = () => false): TeeSink<number> & { seen: number[] } {
  const seen: number[] = [];
  return {
    name: 'log',
    seen,
    write: (n) => {
      seen.push(n);
      if (fails(n)) throw new Error('disk full');
    },
  };
}

describe('tee', () => {
  it('shows values to its sink and passes them on unchanged', () => {
    const sink = collector();
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      const expected = '    -a-b-c-|';
      expectObservable(
        tee(sink)
          .connect(input.pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe(expected, letters);
    });
    expect(sink.seen).toEqual([1, 2, 3]);
  });

  it('completes on an empty source, and passes its error on', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      expectObservable(tee(collector()).connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
      expectObservable(tee(collector()).connect(cold<number>('--#').pipe(issue(ledger)))).toBe('--#');
    });
  });

  it('holds a value until its sink is done with it, one at a time and in order', async () => {
    const { ledger } = books();
    const log: string[] = [];
    const sink: TeeSink<number> = {
      write: async (n, { origin: { row } }) => {
        log.push(`begin ${n} of row ${row}`);
        await new Promise((resolve) => setTimeout(resolve, 3 - n));
        log.push(`end ${n}`);
      },
    };
    await tee(sink)
      .connect(of(1, 2).pipe(issue(ledger)))
      .forEach(({ value }) => void log.push(`passed ${value}`));
    expect(log).toEqual(['begin 1 of row 0', 'end 1', 'passed 1', 'begin 2 of row 1', 'end 2', 'passed 2']);
  });

  it('stops the run when its sink fails', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      const expected = '    -a-#';
      const sink = collector((n) => n === 2);
      expectObservable(
        tee(sink)
          .connect(input.pipe(issue(ledger)))
          .pipe(valuesOf()),
      ).toBe(
        expected,
        letters,
        new FlowError(
          "log: rows.parquet row 1: expected the sink to take the value, received an error: disk full; mend the sink, or declare { onError: 'detach' } to go on without it",
          { cause: new Error('disk full') },
        ),
      );
      expect(sink.seen).toEqual([]);
    });
  });

  it('stops the run when its sink rejects, and keeps the cause', async () => {
    const { ledger } = books();
    const cause = new Error('gone');
    const failure: unknown = await tee({ write: () => Promise.reject(cause) })
      .connect(of(1).pipe(issue(ledger)))
      .forEach(() => {})
      .catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(FlowError);
    expect((failure as FlowError).cause).toBe(cause);
  });

  it('calls a failing sink no more when it may be detached, says so once, and loses no value', async () => {
    const { ledger, events } = books();
    const sink = collector((n) => n === 2);
    const values: number[] = [];
    await tee(sink, { onError: 'detach' })
      .connect(of(1, 2, 3, 4).pipe(issue(ledger)))
      .forEach(({ value }) => void values.push(value));
    expect(values).toEqual([1, 2, 3, 4]);
    expect(sink.seen).toEqual([1, 2]);
    expect(events).toEqual([
      { kind: 'detach', origin: origin(1), stage: 'log', error: new Error('disk full') },
    ]);
  });

  it('says so once when several writes fail at once', async () => {
    const { ledger, events } = books();
    const sink: TeeSink<number> = { write: () => Promise.reject(new Error('disk full')) };
    const values: number[] = [];
    await tee(sink, { onError: 'detach', concurrency: 2 })
      .connect(of(1, 2, 3).pipe(issue(ledger)))
      .forEach(({ value }) => void values.push(value));
    expect(values).toEqual([1, 2, 3]);
    expect(events).toHaveLength(1);
  });

  it('attaches its sink anew for each run', () => {
    const { ledger } = books();
    const sink = collector((n) => n === 1);
    const stage = tee(sink, { onError: 'detach' });
    stage.connect(of(1, 2).pipe(issue(ledger))).subscribe();
    stage.connect(of(3, 4).pipe(issue(ledger))).subscribe();
    expect(sink.seen).toEqual([1, 3, 4]);
  });

  it('stops and aborts the signal of a pending write when it is cancelled', () => {
    const signals: AbortSignal[] = [];
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const { ledger } = books();
      const input = cold('  -a-b-c-|', letters);
      const sink: TeeSink<number> = {
        write: (_, { signal }) => {
          signals.push(signal);
          return new Promise<void>(() => {});
        },
      };
      expectObservable(tee(sink).connect(input.pipe(issue(ledger))), '----!').toBe('-----');
      expectSubscriptions(input.subscriptions).toBe('^---!');
    });
    expect(signals.map((signal) => signal.aborted)).toEqual([true]);
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(tee(collector()));
    expect(result.values).toEqual(range(12));
    expect(result.peak).toBe(400);
    expect(result.counts.trained).toBe(12);
  });

  it('refuses a concurrency that is none', () => {
    expect(() => tee(collector(), { concurrency: 0 })).toThrow(
      'log: concurrency: expected a positive whole number, received 0; correct this option',
    );
  });
});
