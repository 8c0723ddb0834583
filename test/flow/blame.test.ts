import { describe, expect, it } from 'vitest';
import { Ledger, Pool } from '../../src/flow/index.js';
import { origin } from './helpers.js';

function clocked() {
  const clock = { ms: 0 };
  const ledger = new Ledger(new Pool(1000), { source: 'rows', now: () => clock.ms });
  const wait = (ms: number): void => void (clock.ms += ms);
  return { ledger, wait };
}

describe('a wait', () => {
  it('is blamed on the source while no sample is on its way', () => {
    const { ledger, wait } = clocked();
    ledger.beginWait();
    wait(5);
    expect(ledger.blame.end()).toEqual({ waitMs: 5, waits: [{ stage: 'rows', ms: 5 }] });
  });

  it('is blamed on the stages that hold the lowest sample, one after the other', () => {
    const { ledger, wait } = clocked();
    ledger.beginWait();
    wait(1);
    const first = ledger.issue(origin(0), 1);
    const second = ledger.issue(origin(1), 1);
    first.enter('decode');
    wait(10);
    second.enter('encode');
    wait(20);
    first.enter('encode');
    wait(3);
    expect(ledger.blame.end()).toEqual({
      waitMs: 34,
      waits: [
        { stage: 'rows', ms: 1 },
        { stage: 'decode', ms: 30, origin: origin(0) },
        { stage: 'encode', ms: 3, origin: origin(0) },
      ],
    });
  });

  it('is blamed on the next sample when the lowest is dropped, delivered or waits for later ones', () => {
    const { ledger, wait } = clocked();
    const tickets = [0, 1, 2, 3].map((row) => ledger.issue(origin(row), 1));
    tickets.forEach((ticket, row) => ticket.enter(`stage ${row}`));
    ledger.beginWait();
    wait(1);
    tickets[0]?.settle('dropped');
    wait(2);
    tickets[1]?.park();
    wait(4);
    tickets[2]?.deliver();
    wait(8);
    tickets[1]?.unpark();
    wait(16);
    expect(ledger.blame.end().waits.map(({ stage, ms }) => [stage, ms])).toEqual([
      ['stage 0', 1],
      ['stage 1', 18],
      ['stage 2', 4],
      ['stage 3', 8],
    ]);
  });

  it('is blamed on the source while all samples wait for later ones', () => {
    const { ledger, wait } = clocked();
    const ticket = ledger.issue(origin(0), 1);
    ticket.enter('batch');
    ticket.park();
    ledger.beginWait();
    wait(7);
    expect(ledger.blame.end().waits).toEqual([{ stage: 'rows', ms: 7 }]);
  });

  it('names the row that cost a stage most', () => {
    const { ledger, wait } = clocked();
    ledger.beginWait();
    for (const [row, ms] of [2, 9, 4].entries()) {
      const ticket = ledger.issue(origin(row), 1);
      ticket.enter('decode');
      wait(ms);
      ticket.settle('dropped');
    }
    expect(ledger.blame.end().waits).toEqual([{ stage: 'decode', ms: 15, origin: origin(1) }]);
  });

  it('is remembered with its row, the ten longest of a run, longest first', () => {
    const { ledger, wait } = clocked();
    for (let row = 0; row < 30; row++) {
      ledger.beginWait();
      const ticket = ledger.issue(origin(row), 1);
      ticket.enter('decode');
      wait(((row * 7) % 30) + 1);
      ticket.enter('encode');
      ticket.settle('dropped');
      wait(row === 3 ? 24.5 : 0);
      ledger.blame.end();
    }
    const { slowest } = ledger.blame;
    expect(slowest.map(({ ms }) => ms)).toEqual([30, 29, 28, 27, 26, 25, 24.5, 24, 23, 22]);
    expect(slowest[0]).toEqual({ stage: 'decode', ms: 30, origin: origin(17) });
    expect(slowest[6]).toEqual({ stage: 'rows', ms: 24.5 });
  });

  it('of two stages for one row is two waits, and of one stage one however often it was looked at', () => {
    const { ledger, wait } = clocked();
    ledger.beginWait();
    const ticket = ledger.issue(origin(0), 1);
    ticket.enter('decode');
    wait(2);
    ledger.issue(origin(1), 1);
    wait(3);
    ticket.enter('decode');
    wait(1);
    ticket.enter('encode');
    wait(4);
    expect(ledger.blame.present()).toEqual({ stage: 'encode', ms: 10, origin: origin(0) });
    ledger.blame.end();
    expect(ledger.blame.present()).toBeUndefined();
    expect(ledger.blame.slowest).toEqual([
      { stage: 'decode', ms: 6, origin: origin(0) },
      { stage: 'encode', ms: 4, origin: origin(0) },
    ]);
  });

  it('is not counted while the consumer is busy, and adds up over the run', () => {
    const { ledger, wait } = clocked();
    ledger.beginWait();
    wait(5);
    ledger.blame.end();
    wait(100);
    ledger.issue(origin(0), 1).enter('decode');
    expect(ledger.blame.end()).toEqual({ waitMs: 0, waits: [] });
    ledger.beginWait();
    wait(3);
    ledger.blame.end();
    expect([ledger.blame.totalMs, ledger.blame.totals]).toEqual([8, { rows: 5, decode: 3 }]);
  });
});
