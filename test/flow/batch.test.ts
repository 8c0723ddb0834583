import { of, Subject } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { batch } from '../../src/flow/index.js';
import { books, issue, origin, runSlowly, valuesOf, virtual } from './helpers.js';

const letters = { a: 1, b: 2, c: 3, d: 4, e: 5 };
const joined = { x: '1 2', y: '3 4', z: '5' };
const join = (values: readonly number[]): string => values.join(' ');

/** What the batches are, of these values. */
function batchesOf(values: number[], stage: ReturnType<typeof batch<number, string>>): string[] {
  const { ledger } = books();
  const batches: string[] = [];
  stage.connect(of(...values).pipe(issue(ledger))).subscribe(({ value }) => batches.push(value));
  return batches;
}

describe('batch by size', () => {
  it('gathers values and emits the last, smaller batch at the end', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  a-b-c-d-e-|', letters);
      const expected = '    --x---y---(z|)';
      const stage = batch({ size: 2 }, join);
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, joined);
    });
  });

  it('drops the last, smaller batch when it is told to', () => {
    const { ledger } = books();
    virtual().run(({ cold, expectObservable }) => {
      const input = cold('  a-b-c-|', letters);
      const expected = '    --x---|';
      const stage = batch({ size: 2 }, join, { dropLast: true });
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, joined);
    });
    expect(ledger.counts).toEqual({ issued: 3, trained: 0, dropped: 1, quarantined: 0 });
  });

  it('emits nothing on an empty source, and passes its error on', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const stage = batch({ size: 2 }, join);
      expectObservable(stage.connect(cold<number>('--|').pipe(issue(ledger)))).toBe('--|');
      expectObservable(stage.connect(cold('a-#', letters).pipe(issue(ledger)))).toBe('--#');
    });
  });

  it('settles all members when its batch is settled', () => {
    const { ledger, pool } = books();
    batch({ size: 3 }, join)
      .connect(of(1, 2, 3).pipe(issue(ledger)))
      .subscribe(({ ticket }) => {
        expect(ticket.origins).toEqual([origin(0), origin(1), origin(2)]);
        expect(ticket.bytes).toBe(300);
        ticket.settle('trained');
      });
    expect(ledger.counts.trained).toBe(3);
    expect(pool.used).toBe(0);
  });

  it('parks the members of an open batch, until it is emitted', () => {
    const { ledger } = books();
    const input = new Subject<number>();
    const parked: number[] = [];
    batch({ size: 3 }, join)
      .connect(input.pipe(issue(ledger)))
      .subscribe(() => parked.push(ledger.numParked));
    for (const n of [1, 2, 3, 4]) {
      input.next(n);
      parked.push(ledger.numParked);
    }
    input.complete();
    expect(parked).toEqual([1, 2, 0, 0, 1, 0]);
  });

  it('stops when it is cancelled, and leaves the open batch to the ledger', () => {
    const { ledger } = books();
    virtual().run(({ cold, expectObservable, expectSubscriptions }) => {
      const input = cold('  a-b-c-d-|', letters);
      const stage = batch({ size: 2 }, join);
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf()), '-----!').toBe(
        '--x--',
        joined,
      );
      expectSubscriptions(input.subscriptions).toBe('^----!');
    });
    expect([ledger.numOpen, ledger.numParked]).toEqual([3, 1]);
    ledger.abandon();
    expect(ledger.counts.dropped).toBe(3);
  });

  it('stays within the pool before a slow consumer', () => {
    const result = runSlowly(batch({ size: 3 }, join), { rows: 11, poolBytes: 400 });
    expect(result.values).toEqual(['0 1 2', '3 4 5', '6 7 8', '9 10']);
    expect(result.peak).toBe(400);
    expect(result.counts.trained).toBe(11);
  });

  it('declares what it holds', () => {
    expect(batch({ size: 8 }, join, { itemBytes: 5 })).toMatchObject({
      name: 'batch',
      holdsItems: 8,
      gathers: 8,
      itemBytes: 5,
    });
    expect(() => batch({ size: 0 }, join, { name: 'pad' })).toThrow(
      'pad: size: expected a positive whole number, received 0; correct this option',
    );
  });

  it('frees what the batch does not weigh, and quarantines it when it cannot be weighed', () => {
    const { ledger, pool, events } = books();
    const weigh = (text: string): number => (text === '3 4' ? NaN : 50);
    batch({ size: 2 }, join, { weigh })
      .connect(of(1, 2, 3, 4).pipe(issue(ledger)))
      .subscribe();
    expect(pool.used).toBe(50);
    expect(events).toHaveLength(2);
  });
});

describe('batch by cost', () => {
  it('closes a batch before its cost would pass the limit, or when it meets it', () => {
    const stage = batch({ cost: (n) => n, limit: 5 }, join);
    expect(batchesOf([1, 2, 3, 2, 4, 4, 5, 1], stage)).toEqual(['1 2', '3 2', '4', '4', '5', '1']);
  });

  it('counts the padding when it is told to', () => {
    const stage = batch({ cost: (n) => n, limit: 6, padded: true }, join);
    expect(batchesOf([1, 2, 3, 3, 1, 1, 1, 1], stage)).toEqual(['1 2', '3 3', '1 1 1 1']);
  });

  it('takes at most maxItems, however cheap', () => {
    const stage = batch({ cost: () => 0, limit: 6, maxItems: 2 }, join);
    expect(batchesOf([1, 2, 3], stage)).toEqual(['1 2', '3']);
    expect(stage).toMatchObject({ holdsItems: 2, gathers: 2 });
  });

  it('emits a batch when the sample comes that does not fit', () => {
    virtual().run(({ cold, expectObservable }) => {
      const { ledger } = books();
      const input = cold('  a-b-c-|', letters);
      const expected = '    ----x-(y|)';
      const stage = batch({ cost: (n: number) => n, limit: 5 }, join);
      expectObservable(stage.connect(input.pipe(issue(ledger))).pipe(valuesOf())).toBe(expected, {
        x: '1 2',
        y: '3',
      });
    });
  });

  it('quarantines a sample that is too costly for any batch, or whose cost cannot be told', () => {
    const { ledger, events } = books();
    const cost = (n: number): number => {
      if (n === 0) throw new Error('no length');
      return n;
    };
    const values: string[] = [];
    batch({ cost, limit: 5 }, join, { name: 'pack' })
      .connect(of(1, 9, 0, -1, NaN, 2).pipe(issue(ledger)))
      .subscribe(({ value }) => values.push(value));
    expect(values).toEqual(['1 2']);
    expect(events.map((event) => event.kind === 'quarantine' && String(event.error))).toEqual([
      'FlowError: pack: rows.parquet row 1: expected a sample that costs 0 to 5, received 9; raise the limit, or shorten or filter such samples before',
      'Error: no length',
      'FlowError: pack: rows.parquet row 3: expected a sample that costs 0 to 5, received -1; raise the limit, or shorten or filter such samples before',
      'FlowError: pack: rows.parquet row 4: expected a sample that costs 0 to 5, received NaN; raise the limit, or shorten or filter such samples before',
    ]);
  });

  it('refuses a limit that is none', () => {
    expect(() => batch({ cost: () => 1, limit: 0 }, join)).toThrow(
      'batch: limit: expected a positive number, received 0; correct this option',
    );
    expect(() => batch({ cost: () => 1, limit: 1, maxItems: 0 }, join)).toThrow(
      'batch: maxItems: expected a positive whole number, received 0; correct this option',
    );
  });
});

describe('a collate that throws', () => {
  class CollateError extends Error {
    constructor(readonly index: number) {
      super(`sample ${index} is bad`);
    }
  }

  it('has all samples of its batch quarantined, and no others', () => {
    const { ledger, events } = books();
    const values: string[] = [];
    batch({ size: 2 }, (v: readonly number[]) => {
      if (v.includes(2)) throw new Error('ragged');
      return join(v);
    })
      .connect(of(1, 2, 3, 4).pipe(issue(ledger)))
      .subscribe(({ value }) => values.push(value));
    expect(values).toEqual(['3 4']);
    expect(events).toMatchObject(
      [0, 1].map((row) => ({
        kind: 'quarantine',
        origin: origin(row),
        stage: 'batch',
        error: new Error('ragged'),
      })),
    );
  });

  it('has only the samples quarantined that its errors name, and gets the others again', () => {
    const { ledger, events } = books();
    const values: string[] = [];
    batch({ size: 4 }, (v: readonly number[], origins) => {
      expect(origins).toHaveLength(v.length);
      const bad = v.findIndex((n) => n % 2 === 0);
      if (bad >= 0) throw new CollateError(bad);
      return join(v);
    })
      .connect(of(1, 2, 3, 4).pipe(issue(ledger)))
      .subscribe(({ value, ticket }) => {
        values.push(value);
        ticket.settle('trained');
      });
    expect(values).toEqual(['1 3']);
    expect(events.map((event) => event.kind === 'quarantine' && event.origin.row)).toEqual([1, 3]);
    expect(ledger.counts).toEqual({ issued: 4, trained: 2, dropped: 0, quarantined: 2 });
  });

  it('may find all samples bad one by one', () => {
    const { ledger } = books();
    const stage = batch({ size: 3 }, (_: readonly number[]): string => {
      throw new CollateError(0);
    });
    const values: string[] = [];
    stage.connect(of(1, 2, 3).pipe(issue(ledger))).subscribe(({ value }) => values.push(value));
    expect(values).toEqual([]);
    expect(ledger.counts.quarantined).toBe(3);
  });

  it.each([-1, 3, 0.5, NaN])('is not believed when its error names sample %s of three', (index) => {
    const { ledger } = books();
    const stage = batch({ size: 3 }, (_: readonly number[]): string => {
      throw new CollateError(index);
    });
    stage.connect(of(1, 2, 3).pipe(issue(ledger))).subscribe();
    expect(ledger.counts.quarantined).toBe(3);
  });

  it('stops the run when it returns a promise', () => {
    const { ledger } = books();
    let failure: unknown;
    batch({ size: 1 }, async (v: readonly number[]) => v)
      .connect(of(1).pipe(issue(ledger)))
      .subscribe({ error: (error: unknown) => (failure = error) });
    expect(failure).toEqual(
      new FlowError(
        'batch: rows.parquet row 0: expected collate to return the batch, received a promise; collate at once, and go on in an orderedMap after the batch',
      ),
    );
  });
});
