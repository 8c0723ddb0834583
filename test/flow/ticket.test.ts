import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import { GroupTicket, Ledger, Pool, type FlowEvent } from '../../src/flow/index.js';
import { books, origin } from './helpers.js';

describe('a ticket', () => {
  it('takes its weight from the pool and frees it on settling', () => {
    const { pool, ledger } = books();
    const ticket = ledger.issue(origin(0), 70);
    expect(pool.used).toBe(70);
    ticket.settle('trained');
    expect(pool.used).toBe(0);
    expect(pool.peak).toBe(70);
  });

  it('is counted by what became of it', () => {
    const { ledger, events } = books();
    ledger.issue(origin(0), 1).settle('trained');
    ledger.issue(origin(1), 1).settle('dropped');
    ledger.issue(origin(2), 1).quarantine('decode', new Error('corrupt'));
    ledger.issue(origin(3), 1);
    expect(ledger.counts).toEqual({ issued: 4, trained: 1, dropped: 1, quarantined: 1 });
    expect(events).toMatchObject([
      { kind: 'quarantine', origin: origin(2), stage: 'decode', error: new Error('corrupt') },
    ]);
  });

  it('refuses to be settled twice', () => {
    const { ledger } = books();
    const ticket = ledger.issue(origin(7), 1);
    ticket.settle('dropped');
    const again =
      'ticket of rows.parquet row 7: expected to be settled once, received trained after dropped in source; let each stage pass a ticket on or settle it, not both';
    expect(() => ticket.settle('trained')).toThrow(new FlowError(again));
    expect(() => ticket.quarantine('x', 1)).toThrow(/received quarantined after dropped/);
    expect(ledger.counts).toEqual({ issued: 1, trained: 0, dropped: 1, quarantined: 0 });
  });

  it('may change its weight, but not below what later stages need', () => {
    const { pool, ledger } = books();
    const ticket = ledger.issue(origin(0), 500);
    ticket.enter('decode', 300);
    ticket.weigh(100);
    expect(pool.used).toBe(300);
    ticket.weigh(800);
    expect([ticket.bytes, pool.used, pool.peak]).toEqual([800, 800, 800]);
    ticket.settle('trained');
    expect(pool.used).toBe(0);
  });

  it('refuses a weight that is none', () => {
    const { ledger } = books();
    const ticket = ledger.issue(origin(3), 5);
    ticket.enter('decode');
    expect(() => ticket.weigh(NaN)).toThrow(
      'decode: rows.parquet row 3: expected a weight in bytes, 0 or more, received NaN; give what the value takes in memory',
    );
  });

  it('splits into tickets of the same origin that share its weight and are settled one by one', () => {
    const { pool, ledger } = books();
    const tickets = ledger.issue(origin(4), 100).split(3);
    expect(tickets.map((ticket) => [ticket.origin.row, ticket.bytes])).toEqual([
      [4, 34],
      [4, 33],
      [4, 33],
    ]);
    expect(pool.used).toBe(100);
    tickets.forEach((ticket) => ticket.settle('trained'));
    expect(ledger.counts).toEqual({ issued: 3, trained: 3, dropped: 0, quarantined: 0 });
    expect(pool.used).toBe(0);
    ledger.check();
  });

  it('ignores late settling after its run has ended', () => {
    const { ledger, events } = books();
    const ticket = ledger.issue(origin(0), 1);
    ledger.abandon();
    ticket.settle('trained');
    ticket.quarantine('decode', new Error('late'));
    expect(ledger.counts).toEqual({ issued: 1, trained: 0, dropped: 1, quarantined: 0 });
    expect(events).toEqual([]);
  });
});

describe('a group ticket', () => {
  it('settles all its members', () => {
    const { pool, ledger } = books();
    const group = new GroupTicket([ledger.issue(origin(0), 10), ledger.issue(origin(1), 20)]);
    expect(group.bytes).toBe(30);
    expect(group.origins).toEqual([origin(0), origin(1)]);
    group.settle('trained');
    expect(ledger.counts.trained).toBe(2);
    expect(pool.used).toBe(0);
  });

  it('quarantines all its members, with an event for each', () => {
    const { ledger, events } = books();
    new GroupTicket([ledger.issue(origin(0), 1), ledger.issue(origin(1), 1)]).quarantine('pad', 'no');
    expect(events).toMatchObject([
      { kind: 'quarantine', origin: origin(0), stage: 'pad', error: 'no' },
      { kind: 'quarantine', origin: origin(1), stage: 'pad', error: 'no' },
    ]);
  });

  it('refuses to be settled twice', () => {
    const { ledger } = books();
    const group = new GroupTicket([ledger.issue(origin(5), 1)]);
    group.settle('dropped');
    expect(() => group.settle('trained')).toThrow(
      'ticket of the batch that begins with rows.parquet row 5: expected to be settled once, received trained again; let each stage pass a ticket on or settle it, not both',
    );
  });

  it('shares a new weight among its members', () => {
    const { pool, ledger } = books();
    const group = new GroupTicket([ledger.issue(origin(0), 1), ledger.issue(origin(1), 1)]);
    group.weigh(101);
    expect([pool.used, ledger.numOpen]).toEqual([101, 2]);
  });

  it('cannot be split into several', () => {
    const { ledger } = books();
    const group = new GroupTicket([ledger.issue(origin(2), 1)]);
    expect(group.split(1)).toEqual([group]);
    expect(() => group.split(2)).toThrow(
      'batch that begins with rows.parquet row 2: expected one value for one batch, received 2 values; split samples before they are batched',
    );
  });
});

describe('the ledger', () => {
  it('is content when issued = trained + dropped + quarantined', () => {
    const { ledger } = books();
    ledger.issue(origin(0), 1).settle('trained');
    expect(() => ledger.check()).not.toThrow();
  });

  it('says which stage lost tickets', () => {
    const { ledger } = books();
    ledger.issue(origin(0), 1).settle('trained');
    ledger.issue(origin(1), 1).enter('leaky');
    ledger.issue(origin(2), 1).enter('leaky');
    expect(() => ledger.check()).toThrow(
      new FlowError(
        'ledger: expected 3 samples issued to be trained, dropped or quarantined, received 1 trained, 0 dropped, 0 quarantined, 2 open in leaky (2); a stage lost tickets: let it pass each one on, or settle it',
      ),
    );
  });

  it('drops what is open when it is abandoned, once', () => {
    const { pool, ledger } = books();
    ledger.issue(origin(0), 10);
    ledger.issue(origin(1), 10).park();
    ledger.abandon();
    ledger.abandon();
    expect(ledger.counts).toEqual({ issued: 2, trained: 0, dropped: 2, quarantined: 0 });
    expect([pool.used, ledger.numOpen, ledger.numParked]).toEqual([0, 0, 0]);
  });

  it('is stalled when all that is open waits for later samples', () => {
    const { ledger } = books();
    expect(ledger.stalled).toBe(false);
    const [a, b] = [ledger.issue(origin(0), 1), ledger.issue(origin(1), 1)];
    a.park();
    a.park();
    expect(ledger.stalled).toBe(false);
    b.park();
    expect(ledger.stalled).toBe(true);
    b.unpark();
    b.unpark();
    expect(ledger.stalled).toBe(false);
    b.settle('trained');
    expect(ledger.stalled).toBe(true);
  });

  it('does not keep settled tickets alive through each other', () => {
    const { ledger } = books();
    const first = ledger.issue(origin(0), 1);
    for (let row = 1; row < 10; row += 1) ledger.issue(origin(row), 1).settle('trained');
    first.settle('trained');
    expect([first.previous, first.next]).toEqual([undefined, undefined]);
  });

  it('hands what onEvent throws to onEventError', () => {
    const errors: unknown[] = [];
    const ledger = new Ledger(new Pool(10), {
      onEvent: (event: FlowEvent) => {
        throw new Error(`no ${event.kind}`);
      },
      onEventError: (error) => errors.push(error),
    });
    ledger.issue(origin(0), 1).quarantine('decode', 'bad');
    expect(errors).toEqual([new Error('no quarantine')]);
    expect(ledger.counts.quarantined).toBe(1);
  });
});
