import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { map, orderedMap, runFlow, type FlowEvent } from '../../src/flow/index.js';
import { origin, sourceOf } from './helpers.js';

// Not `performance`: the gate would take its leaps for work that lasts, and yield to a loop that stands still.
const FAKED = ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] as const;
beforeEach(() => void vi.useFakeTimers({ toFake: [...FAKED] }));
afterEach(() => void vi.useRealTimers());

function stalls(events: readonly FlowEvent[]): FlowEvent[] {
  return events.filter(({ kind }) => kind === 'stall');
}

describe('a wait that lasts', () => {
  it('is told while it lasts, with stage and row, and again when it has doubled', async () => {
    const events: FlowEvent[] = [];
    let letGo = (): void => {};
    const run = runFlow({
      source: sourceOf([1, 2, 3]),
      stages: [
        orderedMap(
          (value: number) => (value === 2 ? new Promise<number>((done) => (letGo = () => done(2))) : value),
          {
            name: 'decode',
          },
        ),
      ],
      poolBytes: 1000,
      stallMs: 1000,
      now: () => Date.now(),
      consume: () => undefined,
      onEvent: (event) => void events.push(event),
    });
    await vi.advanceTimersByTimeAsync(900);
    expect(stalls(events)).toEqual([]);
    await vi.advanceTimersByTimeAsync(6100);
    expect(stalls(events)).toEqual([
      { kind: 'stall', stage: 'decode', ms: 1000, origin: origin(1) },
      { kind: 'stall', stage: 'decode', ms: 2000, origin: origin(1) },
      { kind: 'stall', stage: 'decode', ms: 4000, origin: origin(1) },
    ]);
    letGo();
    const { waits, ...summary } = await run;
    expect(summary).toMatchObject({ ended: 'complete', ledger: { trained: 3 } });
    // what began before its first look was the source's
    expect(waits['decode']).toBeGreaterThan(6000);
    expect(waits['decode']).toBeLessThanOrEqual(7000);
    await vi.advanceTimersByTimeAsync(5000);
    expect(stalls(events)).toHaveLength(3);
  });

  it('for a source that gives nothing is told with its name; each wait is told anew', async () => {
    const events: FlowEvent[] = [];
    const source = sourceOf([1, 2], { wait: () => new Promise((done) => setTimeout(done, 1500)) });
    const run = runFlow({
      source,
      stages: [map((value: number) => value)],
      poolBytes: 1000,
      stallMs: 1000,
      now: () => Date.now(),
      consume: () => undefined,
      onEvent: (event) => void events.push(event),
    });
    await vi.advanceTimersByTimeAsync(10_000);
    await run;
    // Two items, and the end of the source.
    expect(stalls(events)).toEqual(Array(3).fill({ kind: 'stall', stage: 'rows', ms: 1000 }));
  });

  it('is not told of a consumer that is busy, nor with a limit of Infinity', async () => {
    const events: FlowEvent[] = [];
    const long = () => new Promise<void>((done) => setTimeout(done, 3000));
    const busy = runFlow({
      source: sourceOf([1, 2]),
      stages: [map((value: number) => value)],
      poolBytes: 1000,
      stallMs: 1000,
      now: () => Date.now(),
      consume: long,
      onEvent: (event) => void events.push(event),
    });
    const patient = runFlow({
      source: sourceOf([1, 2], { wait: long }),
      stages: [map((value: number) => value)],
      poolBytes: 1000,
      stallMs: Infinity,
      now: () => Date.now(),
      consume: () => undefined,
      onEvent: (event) => void events.push(event),
    });
    await vi.advanceTimersByTimeAsync(12_000);
    await Promise.all([busy, patient]);
    expect(stalls(events)).toEqual([]);
  });

  it('has a limit that is a positive number', async () => {
    const run = runFlow({
      source: sourceOf([1]),
      stages: [map((value: number) => value)],
      poolBytes: 1000,
      stallMs: 0,
      consume: () => undefined,
    });
    await expect(run).rejects.toThrow('stallMs: expected a positive number, received 0');
  });
});
