import { describe, expect, it } from 'vitest';
import { DataError, FlowError } from '../../src/errors.js';
import { gate, type Source, type Ticketed } from '../../src/flow/index.js';
import { books, origin, range, sourceFrom, sourceOf } from './helpers.js';

/** Lets everything run that needs no timer. */
const idle = async (): Promise<void> => {
  for (let i = 0; i < 3; i += 1) await new Promise((resolve) => setImmediate(resolve));
};

function open<T>(source: Source<T>, poolBytes = 1000, reserve = 0) {
  const { pool, ledger, events } = books(poolBytes);
  const entrance = gate(source, { pool, ledger, reserve });
  const items: Ticketed<T>[] = [];
  const end: { error?: unknown; completed: boolean } = { completed: false };
  const subscription = entrance.items.subscribe({
    next: (item) => items.push(item),
    error: (error: unknown) => (end.error = error),
    complete: () => (end.completed = true),
  });
  return { pool, ledger, events, items, end, subscription, closed: entrance.closed };
}

describe('the gate', () => {
  it('issues a ticket for each item, in order, and completes', async () => {
    const source = sourceOf(['a', 'b']);
    const { items, end, ledger, closed } = open(source);
    expect(await closed).toBeUndefined();
    expect(items.map(({ value, ticket }) => [value, ticket.origin, ticket.bytes])).toEqual([
      ['a', origin(0), 100],
      ['b', origin(1), 100],
    ]);
    expect(end).toEqual({ completed: true });
    expect(ledger.counts.issued).toBe(2);
    expect(source.log).toEqual({ opened: 1, pulled: 3, returned: 0, aborted: 0 });
  });

  it('completes on an empty source', async () => {
    const { items, end, closed } = open(sourceOf([]));
    await closed;
    expect([items, end]).toEqual([[], { completed: true }]);
  });

  it('does not open the source before it is subscribed to', () => {
    const source = sourceOf([1]);
    const { pool, ledger } = books();
    gate(source, { pool, ledger });
    expect(source.log.opened).toBe(0);
  });

  it('stops pulling when the pool is full, and goes on as tickets are settled', async () => {
    const source = sourceOf(range(100), { maxItemBytes: 100 });
    const { items, pool } = open(source, 450);
    await idle();
    expect([items.length, source.log.pulled, pool.used]).toEqual([4, 4, 400]);
    items[0]?.ticket.settle('trained');
    await idle();
    expect([items.length, source.log.pulled]).toEqual([5, 5]);
    items.slice(1).forEach(({ ticket }) => ticket.settle('trained'));
    await idle();
    expect([items.length, pool.peak]).toEqual([9, 400]);
  });

  it('reads no further for a consumer that never takes', async () => {
    let made = 0;
    const endless = sourceFrom(async function* () {
      for (;;) yield { value: (made += 1), bytes: 10, origin: origin(made) };
    });
    const { items } = open(endless, 100);
    await idle();
    expect(items).toHaveLength(10);
    expect(made).toBeLessThanOrEqual(11);
  });

  it('keeps the bound whatever items weigh, when their most is declared', async () => {
    const weights = range(200).map((i) => 1 + ((i * 37) % 90));
    const source = sourceOf(weights, { bytes: (n) => n, maxItemBytes: 90 });
    const { items, pool, end } = open(source, 250);
    for (let taken = 0; !end.completed; taken += 1) {
      await idle();
      items[taken]?.ticket.settle('trained');
    }
    expect(items).toHaveLength(200);
    expect(pool.peak).toBeLessThanOrEqual(250);
    expect(pool.peak).toBeGreaterThan(160);
  });

  it('holds one item in hand, counted, when nothing is declared and it does not fit', async () => {
    const source = sourceOf([30, 30, 90, 10], { bytes: (n) => n });
    const { items, pool, events } = open(source, 100);
    await idle();
    expect([items.length, source.log.pulled]).toEqual([2, 3]);
    expect(pool.peak).toBe(150);
    items.forEach(({ ticket }) => ticket.settle('trained'));
    await idle();
    expect([items.length, pool.used]).toEqual([3, 90]);
    expect(events).toEqual([]);
  });

  it('admits an item that is bigger than the pool alone, and reports it', async () => {
    const source = sourceOf([50, 500, 50], { bytes: (n) => n });
    const { items, pool, events, ledger } = open(source, 100);
    await idle();
    expect(items).toHaveLength(1);
    expect(events).toEqual([{ kind: 'oversize', pool: 'host', origin: origin(1), bytes: 500, limit: 100 }]);
    items[0]?.ticket.settle('trained');
    await idle();
    expect([items.length, pool.used]).toEqual([2, 500]);
    items[1]?.ticket.settle('trained');
    await idle();
    expect([items.length, pool.used, ledger.oversize]).toEqual([3, 50, 1]);
  });

  it('reports an item that is bigger than its source declared', async () => {
    const source = sourceOf([50, 70], { bytes: (n) => n, maxItemBytes: 60 });
    const { events, closed } = open(source, 1000);
    await closed;
    expect(events).toEqual([{ kind: 'oversize', pool: 'host', origin: origin(1), bytes: 70, limit: 60 }]);
  });

  it('takes from the pool what later stages may make of an item', async () => {
    const { items, pool } = open(sourceOf(range(10)), 1000, 300);
    await idle();
    expect([items.length, pool.used]).toEqual([3, 900]);
    expect(items[0]?.ticket.bytes).toBe(300);
  });

  it('charges an item that claims to weigh nothing at least one byte, so that their number is bounded', async () => {
    const { items } = open(sourceOf(range(100), { bytes: () => 0 }), 10);
    await idle();
    expect(items).toHaveLength(10);
  });

  it('refuses a weight that is none, with source and row', async () => {
    const { end, closed } = open(sourceOf([1, NaN], { bytes: (n) => n }));
    await closed;
    expect(end.error).toEqual(
      new FlowError(
        'source rows: rows.parquet row 1: expected a weight in bytes, 0 or more, received NaN; give what the value takes in memory',
      ),
    );
  });

  it('quarantines an item that the source could not read, and goes on', async () => {
    const source = sourceFrom<number>(async function* () {
      yield { value: 1, bytes: 1, origin: origin(0) };
      yield { error: new Error('broken page'), bytes: 1, origin: origin(1) };
      yield { value: 3, bytes: 1, origin: origin(2) };
    });
    const { items, events, ledger, closed } = open(source);
    await closed;
    expect(items.map(({ value }) => value)).toEqual([1, 3]);
    expect(events).toMatchObject([
      { kind: 'quarantine', origin: origin(1), stage: 'rows', error: new Error('broken page') },
    ]);
    expect(ledger.counts.issued).toBe(3);
  });

  it('fails with the name of a source that fails, and keeps the cause', async () => {
    const cause = new Error('EIO');
    const source = sourceFrom<number>(async function* () {
      yield { value: 1, bytes: 1, origin: origin(0) };
      throw cause;
    });
    const { items, end, closed } = open(source);
    expect(await closed).toBeUndefined();
    expect(items).toHaveLength(1);
    expect(end.error).toEqual(
      new FlowError(
        'source rows: expected its next item, received an error: EIO; mend the source, or let it yield { error } for an item that it can leave out',
      ),
    );
    expect((end.error as FlowError).cause).toBe(cause);
  });

  it('puts the name before an error that says already what to do', async () => {
    const cause = new DataError('a.parquet: expected a Parquet file, received 3 bytes; check the path');
    const source: Source<number> = {
      name: 'train',
      open: () => {
        throw cause;
      },
    };
    const { end, closed } = open(source);
    await closed;
    expect(end.error).toEqual(new FlowError(`source train: ${cause.message}`));
    expect((end.error as FlowError).cause).toBe(cause);
  });

  it('closes the source once when it is cancelled while it waits for room', async () => {
    const source = sourceOf(range(100), { maxItemBytes: 100 });
    const { subscription, closed, items } = open(source, 200);
    await idle();
    subscription.unsubscribe();
    subscription.unsubscribe();
    expect(await closed).toBeUndefined();
    items[0]?.ticket.settle('dropped');
    await idle();
    expect(source.log).toEqual({ opened: 1, pulled: 2, returned: 1, aborted: 1 });
    expect(items).toHaveLength(2);
  });

  it('closes the source once when it is cancelled while a pull is pending, and issues nothing more', async () => {
    let release: () => void = () => {};
    const source = sourceOf(range(3), { wait: () => new Promise((resolve) => (release = resolve)) });
    const { subscription, closed, ledger } = open(source);
    await idle();
    subscription.unsubscribe();
    await closed;
    release();
    await idle();
    expect(source.log).toEqual({ opened: 1, pulled: 1, returned: 1, aborted: 1 });
    expect(ledger.counts.issued).toBe(0);
  });

  it('runs the finally of a generator that is cancelled', async () => {
    const log: string[] = [];
    const source = sourceFrom(async function* (signal) {
      try {
        for (let row = 0; ; row += 1) yield { value: row, bytes: 10, origin: origin(row) };
      } finally {
        log.push(`closed, aborted ${signal.aborted}`);
      }
    });
    const { subscription, closed } = open(source, 20);
    await idle();
    subscription.unsubscribe();
    await closed;
    expect(log).toEqual(['closed, aborted true']);
  });

  it('tells when closing the source fails', async () => {
    const source = sourceFrom(async function* () {
      try {
        for (;;) yield { value: 1, bytes: 10, origin: origin(0) };
      } finally {
        throw new Error('EBADF');
      }
    });
    const { subscription, closed } = open(source, 20);
    await idle();
    subscription.unsubscribe();
    expect(String(await closed)).toMatch(/^FlowError: source rows: .*EBADF/);
  });

  it('lets timers run beside a source that never really waits', async () => {
    const { pool, ledger } = books(10 ** 9);
    let row = 0;
    const endless = sourceFrom(async function* () {
      for (;;) yield { value: row, bytes: 1, origin: origin((row += 1)) };
    });
    const subscription = gate(endless, { pool, ledger }).items.subscribe(({ ticket }) =>
      ticket.settle('trained'),
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    subscription.unsubscribe();
    expect(row).toBeGreaterThan(100);
  });
});

describe('a pool that is full of samples that wait for more', () => {
  it('is an error with the numbers, not a stall', async () => {
    const source = sourceOf(range(10), { bytes: () => 40 });
    const { items, end } = open(source, 100);
    await idle();
    items.forEach(({ ticket }) => {
      ticket.enter('pack');
      ticket.park();
    });
    await idle();
    expect(end.error).toEqual(
      new FlowError(
        'pool of 100 bytes: expected room for 40 bytes (rows.parquet row 2), received 2 samples of 80 bytes that wait for more in pack (2); raise poolBytes, or let that stage hold less',
      ),
    );
  });

  it('lets in one more when a sample is bigger than the pool, since nothing else could go on', async () => {
    const source = sourceOf([300, 40, 40], { bytes: (n) => n });
    const { items, end, pool } = open(source, 100);
    await idle();
    items[0]?.ticket.park();
    await idle();
    expect([items.length, pool.used]).toEqual([2, 340]);
    items[1]?.ticket.park();
    await idle();
    expect([items.length, pool.used, end.completed]).toEqual([3, 380, false]);
    items[2]?.ticket.park();
    await idle();
    expect(end.completed).toBe(true);
  });
});
