import { map as rxMap, Observable } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FlowError, TrainError } from '../../src/errors.js';
import {
  batch,
  filter,
  map,
  orderedMap,
  runFlow,
  tee,
  unorderedMap,
  type ConsumeContext,
  type FlowEvent,
  type FlowSummary,
  type Stage,
} from '../../src/flow/index.js';
import { origin, range, sourceFrom, sourceOf } from './helpers.js';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const add = map((n: number) => n + 1, { name: 'add' });
const pair = batch({ size: 2 }, (values: readonly number[]) => values);

describe('a run', () => {
  it('delivers in order, settles as trained, and ends with its books balanced', async () => {
    const values: number[] = [];
    const events: FlowEvent[] = [];
    const summary = await runFlow({
      source: sourceOf(range(5)),
      stages: [add, rxMap((n: number) => n * 10), filter((n: number) => n !== 30)],
      poolBytes: 1000,
      consume: async (n) => void values.push(n),
      onEvent: (event) => events.push(event),
    });
    expect(values).toEqual([10, 20, 40, 50]);
    expect(summary).toMatchObject({
      ended: 'complete',
      ledger: { issued: 5, trained: 4, dropped: 1, quarantined: 0 },
      oversize: 0,
      consumed: 4,
      reproducible: true,
    });
    expect(events).toEqual([{ kind: 'end', summary }]);
  });

  it('ends at once on an empty source', async () => {
    const summary = await runFlow({
      source: sourceOf<number>([]),
      stages: [add, pair],
      poolBytes: 1000,
      consume: () => {},
    });
    expect(summary).toMatchObject({
      ended: 'complete',
      ledger: { issued: 0, trained: 0, dropped: 0, quarantined: 0 },
      peakBytes: 0,
      consumed: 0,
    });
  });

  it('takes a consumer that is done at once', async () => {
    const values: number[] = [];
    await runFlow({
      source: sourceOf(range(3)),
      stages: [],
      poolBytes: 100,
      consume: (n) => void values.push(n),
    });
    expect(values).toEqual([0, 1, 2]);
  });

  it('tells the consumer what it gets', async () => {
    const seen: Pick<ConsumeContext, 'index' | 'origins'>[] = [];
    await runFlow({
      source: sourceOf(range(3)),
      stages: [pair],
      poolBytes: 1000,
      consume: (_, { index, origins, signal }) => {
        expect(signal.aborted).toBe(false);
        seen.push({ index, origins });
      },
    });
    expect(seen).toEqual([
      { index: 0, origins: [origin(0), origin(1)] },
      { index: 1, origins: [origin(2)] },
    ]);
  });

  it('quarantines the samples that fail, with row, stage and error, and goes on', async () => {
    const events: FlowEvent[] = [];
    const values: number[] = [];
    const decode = orderedMap(
      async (n: number) => {
        await sleep(1);
        if (n % 3 === 1) throw new Error(`corrupt ${n}`);
        return n;
      },
      { name: 'decode' },
    );
    const { ledger } = await runFlow({
      source: sourceOf(range(6)),
      stages: [decode],
      poolBytes: 1000,
      consume: (n) => void values.push(n),
      onEvent: (event) => events.push(event),
    });
    expect(values).toEqual([0, 2, 3, 5]);
    expect(ledger).toEqual({ issued: 6, trained: 4, dropped: 0, quarantined: 2 });
    expect(events.slice(0, -1)).toMatchObject(
      [1, 4].map((row) => ({
        kind: 'quarantine',
        origin: origin(row),
        stage: 'decode',
        error: new Error(`corrupt ${row}`),
      })),
    );
  });

  it('keeps the bytes of all samples under the bound while the consumer is slow', async () => {
    const source = sourceOf(range(60), { bytes: () => 100, maxItemBytes: 100 });
    let ahead = 0;
    let consumed = 0;
    const summary = await runFlow({
      source,
      stages: [orderedMap(async (n: number) => n, { concurrency: 3 }), pair],
      poolBytes: 700,
      consume: async (values) => {
        await sleep(1);
        ahead = Math.max(ahead, source.log.pulled - consumed);
        consumed += values.length;
      },
    });
    expect(summary.peakBytes).toBe(700);
    expect(ahead).toBeLessThanOrEqual(8);
  });

  it('does not let the source run on for a consumer that never takes', async () => {
    const source = sourceOf(range(1000), { maxItemBytes: 100 });
    const controller = new AbortController();
    const running = runFlow({
      source,
      stages: [add, pair],
      poolBytes: 600,
      consume: () => new Promise(() => {}),
      signal: controller.signal,
      graceMs: 5,
    });
    await sleep(30);
    expect(source.log.pulled).toBe(6);
    controller.abort();
    expect((await running).ledger).toEqual({ issued: 6, trained: 0, dropped: 6, quarantined: 0 });
  });

  it('has one value at a time with the consumer, or as many as inFlight says', async () => {
    const most = async (inFlight?: number): Promise<number> => {
      let active = 0;
      let highest = 0;
      await runFlow({
        source: sourceOf(range(8)),
        stages: [add],
        poolBytes: 1000,
        ...(inFlight === undefined ? {} : { inFlight }),
        consume: async () => {
          active += 1;
          highest = Math.max(highest, active);
          await sleep(1);
          active -= 1;
        },
      });
      return highest;
    };
    expect([await most(), await most(2)]).toEqual([1, 2]);
  });

  it('prepares the next value while the consumer works on this one', async () => {
    const log: string[] = [];
    await runFlow({
      source: sourceOf(range(2)),
      stages: [map((n: number) => (log.push(`prepare ${n}`), n))],
      poolBytes: 1000,
      consume: async (n) => {
        log.push(`begin ${n}`);
        await sleep(2);
        log.push(`end ${n}`);
      },
    });
    expect(log).toEqual(['prepare 0', 'begin 0', 'prepare 1', 'end 0', 'begin 1', 'end 1']);
  });

  it('says when it is not reproducible', async () => {
    const events: FlowEvent[] = [];
    const summary = await runFlow({
      source: sourceOf(range(2)),
      stages: [unorderedMap((n: number) => n, { name: 'decode' })],
      poolBytes: 1000,
      consume: () => {},
      onEvent: (event) => events.push(event),
    });
    expect(events[0]).toEqual({ kind: 'unordered', stage: 'decode' });
    expect(summary.reproducible).toBe(false);
  });

  it('reserves what stages make of a sample, and frees what they do not need', async () => {
    const seen: number[] = [];
    const source = sourceOf(range(20), { maxItemBytes: 100 });
    const decode = map((n: number) => n, { name: 'decode', itemBytes: 500, weigh: () => 200 });
    const encode = map((n: number) => n, { name: 'encode', itemBytes: 300, weigh: () => 250 });
    const summary = await runFlow({
      source,
      stages: [decode, encode],
      poolBytes: 1000,
      consume: async () => {
        await sleep(1);
        seen.push(source.log.pulled);
      },
    });
    expect(summary.peakBytes).toBeLessThanOrEqual(1000);
    expect(summary.ledger.trained).toBe(20);
  });

  it('blames the wait on the stage that makes the consumer wait', async () => {
    const waits: ConsumeContext['waits'][] = [];
    const summary = await runFlow({
      source: sourceOf(range(4)),
      stages: [
        add,
        orderedMap(
          async (n: number) => {
            await sleep(15);
            return n;
          },
          { name: 'slow', concurrency: 1 },
        ),
        batch({ size: 1 }, (v: readonly number[]) => v),
      ],
      poolBytes: 1000,
      consume: (_, context) => {
        waits.push(context.waits);
        expect(context.waitMs).toBeGreaterThan(5);
      },
    });
    expect(summary.waits.slow).toBeGreaterThan(0.8 * summary.waitMs);
    expect(summary.waitMs).toBeGreaterThan(40);
    expect(waits[1]?.find(({ stage }) => stage === 'slow')?.origin).toEqual(origin(1));
  });

  it('blames the wait on the source when that is slow, though a batch is open', async () => {
    const { waits, waitMs } = await runFlow({
      source: sourceOf(range(4), { wait: () => sleep(10) }),
      stages: [pair],
      poolBytes: 1000,
      consume: () => {},
    });
    expect(waits.rows).toBeGreaterThan(0.8 * waitMs);
  });

  it('counts no wait while the consumer is busy', async () => {
    const { waitMs } = await runFlow({
      source: sourceOf(range(6)),
      stages: [
        orderedMap(async (n: number) => {
          await sleep(1);
          return n;
        }),
      ],
      poolBytes: 1000,
      consume: () => sleep(15),
    });
    expect(waitMs).toBeLessThan(40);
  });
});

describe('a run that is refused', () => {
  const options = { source: sourceOf([1], { maxItemBytes: 100 }), consume: () => {} };

  it('names the pool and the stage before the source is opened', async () => {
    const source = sourceOf(range(10), { maxItemBytes: 100 });
    await expect(runFlow({ source, stages: [pair], poolBytes: 150, consume: () => {} })).rejects.toThrow(
      new FlowError(
        'pool of 150 bytes: expected at least 200 bytes, since batch holds up to 2 items of up to 100 bytes, received 150 bytes; raise poolBytes, or let the stage hold less',
      ),
    );
    expect(source.log.opened).toBe(0);
  });

  it('names a pool and a number in flight that are none', async () => {
    await expect(runFlow({ ...options, stages: [], poolBytes: 0 })).rejects.toThrow(
      'poolBytes: expected a positive whole number of bytes, received 0;',
    );
    await expect(runFlow({ ...options, stages: [], poolBytes: 100, inFlight: 0 })).rejects.toThrow(
      'inFlight: expected a positive whole number, received 0; correct this option',
    );
  });

  it('shows a pool that is too small for a batch of undeclared items when it comes to that', async () => {
    const failed = runFlow({
      source: sourceOf(range(10)),
      stages: [batch({ size: 4 }, (v: readonly number[]) => v)],
      poolBytes: 350,
      consume: () => {},
    });
    await expect(failed).rejects.toThrow(
      'pool of 350 bytes: expected room for 100 bytes (rows.parquet row 3), received 3 samples of 300 bytes that wait for more in batch (3); raise poolBytes, or let that stage hold less',
    );
  });
});

describe('a run with items bigger than its pool', () => {
  it('goes on, one by one, and reports them', async () => {
    const events: FlowEvent[] = [];
    const summary = await runFlow({
      source: sourceOf([50, 1000, 60, 2000, 70], { bytes: (n) => n }),
      stages: [pair],
      poolBytes: 200,
      consume: () => {},
      onEvent: (event) => events.push(event),
    });
    expect(summary).toMatchObject({ ended: 'complete', oversize: 2, ledger: { issued: 5, trained: 5 } });
    expect(events.filter(({ kind }) => kind === 'oversize')).toEqual([
      { kind: 'oversize', pool: 'host', origin: origin(1), bytes: 1000, limit: 200 },
      { kind: 'oversize', pool: 'host', origin: origin(3), bytes: 2000, limit: 200 },
    ]);
  });
});

describe('a run with a bound on what the consumer has', () => {
  /** The bytes that the consumer had at each hand-over, itself included. */
  async function handed(
    weights: readonly number[],
    options: { deviceBytes?: number; inFlight: number },
  ): Promise<{ had: number[]; summary: FlowSummary; events: FlowEvent[] }> {
    const had: number[] = [];
    const events: FlowEvent[] = [];
    let now = 0;
    const summary = await runFlow({
      source: sourceOf(weights, { bytes: (n) => n }),
      stages: [],
      poolBytes: 1000,
      ...options,
      consume: async (n: number) => {
        had.push((now += n));
        await sleep(2);
        now -= n;
      },
      onEvent: (event) => events.push(event),
    });
    return { had, summary, events };
  }

  it('hands values over by weight, as many as fit', async () => {
    const { had, summary } = await handed([40, 40, 40, 10, 10, 100], { deviceBytes: 100, inFlight: 4 });
    expect(Math.max(...had)).toBe(100);
    expect(had.slice(0, 2)).toEqual([40, 80]);
    expect(summary).toMatchObject({ peakDeviceBytes: 100, oversize: 0, ledger: { trained: 6 } });
  });

  it('hands one that is bigger over alone, and reports it', async () => {
    const { had, summary, events } = await handed([40, 300, 40, 40], { deviceBytes: 100, inFlight: 4 });
    expect(had.slice(0, 3)).toEqual([40, 300, 40]);
    expect(summary).toMatchObject({ peakDeviceBytes: 300, oversize: 1, ledger: { trained: 4 } });
    expect(events[0]).toEqual({
      kind: 'oversize',
      pool: 'device',
      origin: origin(1),
      bytes: 300,
      limit: 100,
    });
  });

  it('is bounded by the number alone where no bytes are given', async () => {
    const { had, summary } = await handed([40, 300, 40], { inFlight: 2 });
    expect(had[1]).toBe(340);
    expect(summary).toMatchObject({ peakDeviceBytes: 340, oversize: 0 });
  });

  it('counts what the consumer has towards the host pool too, until it is settled', async () => {
    const source = sourceOf(range(8), { maxItemBytes: 100 });
    const pulled: number[] = [];
    await runFlow({
      source,
      stages: [],
      poolBytes: 300,
      inFlight: 3,
      deviceBytes: 200,
      consume: async () => {
        await sleep(2);
        pulled.push(source.log.pulled);
      },
    });
    expect(pulled[0]).toBe(3);
  });

  it('frees the room of a value whose consumer failed, and ends', async () => {
    const failing = runFlow({
      source: sourceOf(range(4)),
      stages: [],
      poolBytes: 1000,
      inFlight: 2,
      deviceBytes: 100,
      consume: async (n: number) => {
        if (n === 1) throw new Error('lost device');
      },
    });
    await expect(failing).rejects.toThrow('lost device');
  });

  it('is refused when the bound is none', async () => {
    await expect(handed([1], { deviceBytes: 1.5, inFlight: 1 })).rejects.toThrow(
      'deviceBytes: expected a positive whole number of bytes, received 1.5;',
    );
  });
});

describe('a run that is cancelled', () => {
  it('closes the source once, drops what is on its way, and resolves', async () => {
    const source = sourceOf(range(1000), { maxItemBytes: 100 });
    const controller = new AbortController();
    const summary = await runFlow({
      source,
      stages: [add, pair],
      poolBytes: 1000,
      signal: controller.signal,
      consume: async (_, { index, signal }) => {
        if (index === 2) controller.abort();
        expect(signal.aborted).toBe(index === 2);
        await sleep(0);
      },
    });
    expect(summary.ended).toBe('cancelled');
    const { issued, trained, dropped } = summary.ledger;
    expect([trained, issued]).toEqual([6, trained + dropped]);
    expect(source.log).toMatchObject({ returned: 1, aborted: 1 });
  });

  it('drops what its consumer gave up', async () => {
    const controller = new AbortController();
    const summary = await runFlow({
      source: sourceOf(range(10)),
      stages: [],
      poolBytes: 100,
      signal: controller.signal,
      consume: (_, { signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => reject(new Error('stopped half way')));
          controller.abort(new Error('enough'));
        }),
    });
    expect(summary).toMatchObject({
      ended: 'cancelled',
      consumed: 0,
      ledger: { issued: 1, trained: 0, dropped: 1, quarantined: 0 },
    });
  });

  it('waits no longer than graceMs for a consumer and a source that do not listen', async () => {
    const controller = new AbortController();
    const before = performance.now();
    const running = runFlow({
      source: sourceFrom<number>(async function* () {
        yield { value: 1, bytes: 1, origin: origin(0) };
        await new Promise(() => {});
      }),
      stages: [],
      poolBytes: 100,
      signal: controller.signal,
      graceMs: 20,
      consume: () => new Promise(() => {}),
    });
    setTimeout(() => controller.abort(), 5);
    expect((await running).ledger).toEqual({ issued: 1, trained: 0, dropped: 1, quarantined: 0 });
    expect(performance.now() - before).toBeLessThan(2000);
  });

  it('never opens the source when it was cancelled before', async () => {
    const source = sourceOf(range(3));
    const summary = await runFlow({
      source,
      stages: [],
      poolBytes: 100,
      signal: AbortSignal.abort(),
      consume: () => {},
    });
    expect(summary).toMatchObject({ ended: 'cancelled', ledger: { issued: 0 } });
    expect(source.log.opened).toBe(0);
  });

  it('can be cancelled by a timer though nothing in it ever really waits', async () => {
    const source = sourceFrom(async function* () {
      for (let row = 0; ; row += 1) yield { value: row, bytes: 1, origin: origin(row) };
    });
    const summary = await runFlow({
      source,
      stages: [add],
      poolBytes: 100,
      signal: AbortSignal.timeout(20),
      consume: async () => {},
    });
    expect(summary.ended).toBe('cancelled');
  });

  it('aborts the signals of its stages, and ignores what they fail with', async () => {
    const controller = new AbortController();
    const events: FlowEvent[] = [];
    const stage = orderedMap(
      (_: number, { signal }) =>
        new Promise<number>((_, reject) => {
          signal.addEventListener('abort', () => reject(new Error('aborted')));
          setTimeout(() => controller.abort(), 1);
        }),
    );
    const summary = await runFlow({
      source: sourceOf([1]),
      stages: [stage],
      poolBytes: 100,
      signal: controller.signal,
      consume: () => {},
      onEvent: (event) => events.push(event),
    });
    expect(summary.ledger).toEqual({ issued: 1, trained: 0, dropped: 1, quarantined: 0 });
    expect(events.map(({ kind }) => kind)).toEqual(['end']);
  });

  it('leaves no listener on the signal', async () => {
    const listeners = new Set<unknown>();
    const signal = {
      aborted: false,
      addEventListener: (_: string, listener: unknown) => listeners.add(listener),
      removeEventListener: (_: string, listener: unknown) => listeners.delete(listener),
    } as unknown as AbortSignal;
    await runFlow({ source: sourceOf([1]), stages: [], poolBytes: 100, signal, consume: () => {} });
    expect(listeners.size).toBe(0);
  });
});

describe('a run that its consumer stops', () => {
  it('delivers nothing more, drops the rest, and closes the source once', async () => {
    const source = sourceOf(range(1000), { maxItemBytes: 100 });
    const values: number[] = [];
    const summary = await runFlow({
      source,
      stages: [add],
      poolBytes: 500,
      consume: async (n, { index, stop, signal }) => {
        values.push(n);
        if (index === 2) stop();
        await sleep(1);
        expect(signal.aborted).toBe(false);
      },
    });
    expect(values).toEqual([1, 2, 3]);
    expect(summary).toMatchObject({ ended: 'stopped', consumed: 3, ledger: { trained: 3, quarantined: 0 } });
    expect(source.log.returned).toBe(1);
  });

  it('delivers nothing more though another value may be in flight', async () => {
    const values: number[] = [];
    await runFlow({
      source: sourceOf(range(10)),
      stages: [],
      poolBytes: 1000,
      inFlight: 2,
      consume: (n, { stop }) => {
        values.push(n);
        stop();
      },
    });
    expect(values).toEqual([0]);
  });
});

describe('a run that fails', () => {
  const run = async (
    overrides: Partial<Parameters<typeof runFlow<number>>[0]> & { stages?: readonly Stage<number, number>[] },
  ): Promise<{ error: unknown; end: FlowEvent | undefined; returned: number }> => {
    const source = sourceOf(range(100), { maxItemBytes: 100 });
    let end: FlowEvent | undefined;
    const error: unknown = await runFlow<number>({
      source,
      poolBytes: 500,
      consume: () => {},
      onEvent: (event) => {
        end = event;
      },
      ...overrides,
      stages: overrides.stages ?? [],
    }).then(
      () => undefined,
      (error: unknown) => error,
    );
    return { error, end, returned: source.log.returned };
  };

  it('rejects with what its consumer rejected with, and ends its books first', async () => {
    const failure = new TrainError('step 3: the loss is not finite');
    const { error, end, returned } = await run({
      consume: async (n) => {
        if (n === 3) throw failure;
      },
    });
    expect(error).toBe(failure);
    expect(end).toMatchObject({
      kind: 'end',
      summary: { ended: 'failed', consumed: 3, ledger: { trained: 3 } },
    });
    expect(returned).toBe(1);
  });

  it('rejects with what its consumer threw at once', async () => {
    const failure = new Error('thrown');
    const { error, end } = await run({
      consume: (n) => {
        if (n === 1) throw failure;
      },
    });
    expect(error).toBe(failure);
    expect(end).toMatchObject({ summary: { ended: 'failed', ledger: { trained: 1 } } });
  });

  it('waits for the other value in flight, whose samples are trained', async () => {
    const failure = new Error('second');
    const { error, end } = await run({
      inFlight: 2,
      consume: async (n) => {
        if (n === 1) throw failure;
        await sleep(5);
      },
    });
    expect(error).toBe(failure);
    expect(end).toMatchObject({ summary: { ledger: { trained: 1 } } });
  });

  it('names the source that failed', async () => {
    const source = sourceFrom<number>(async function* () {
      yield { value: 1, bytes: 1, origin: origin(0) };
      throw new Error('EIO');
    });
    const { error } = await run({ source });
    expect(error).toBeInstanceOf(FlowError);
    expect(String(error)).toBe(
      'FlowError: source rows: expected its next item, received an error: EIO; mend the source, or let it yield { error } for an item that it can leave out',
    );
  });

  it('names the sink that failed', async () => {
    const { error, returned } = await run({
      stages: [
        tee<number>({
          name: 'log',
          write: () => {
            throw new Error('disk full');
          },
        }),
      ],
    });
    expect(String(error)).toMatch(/^FlowError: log: rows.parquet row 0: expected the sink to take the value/);
    expect(returned).toBe(1);
  });

  it('says so when a stage loses tickets', async () => {
    const leaky: Stage<number, number> = {
      name: 'leaky',
      connect: (flow) =>
        new Observable((subscriber) =>
          flow.subscribe({
            next: (item) => item.value % 2 === 0 && subscriber.next(item),
            complete: () => subscriber.complete(),
          }),
        ),
    };
    const { error, end } = await run({ source: sourceOf(range(4)), stages: [leaky] });
    expect(String(error)).toBe(
      'FlowError: ledger: expected 4 samples issued to be trained, dropped or quarantined, received 2 trained, 0 dropped, 0 quarantined, 2 open in leaky (2); a stage lost tickets: let it pass each one on, or settle it',
    );
    expect(end).toMatchObject({
      summary: { ended: 'failed', ledger: { issued: 4, trained: 2, dropped: 2 } },
    });
  });

  it('stops when a stage settles a ticket and passes it on', async () => {
    const greedy: Stage<number, number> = {
      name: 'greedy',
      connect: rxMap((item) => {
        item.ticket.settle('dropped');
        return item;
      }),
    };
    const { error } = await run({ stages: [greedy] });
    expect(String(error)).toMatch(/^FlowError: ticket of rows.parquet row 0: expected to be settled once/);
  });

  it('ends its books also when a stage cannot be connected', async () => {
    const failure = new Error('no such column');
    const broken: Stage<number, number> = {
      name: 'broken',
      connect: () => {
        throw failure;
      },
    };
    const { error, end, returned } = await run({ stages: [broken] });
    expect(error).toBe(failure);
    expect(end).toMatchObject({ summary: { ended: 'failed', ledger: { issued: 0 } } });
    expect(returned).toBe(0);
  });

  it('stops when onEvent throws', async () => {
    const failure = new Error('no room for events');
    const bad = map((n: number): number => {
      throw new Error(String(n));
    });
    let ends = 0;
    const { error } = await run({
      stages: [bad],
      onEvent: ({ kind }) => {
        if (kind === 'quarantine') throw failure;
        ends += 1;
      },
    });
    expect(error).toBe(failure);
    expect(ends).toBe(1);
  });

  it('fails when the source cannot be closed after a stop', async () => {
    const source = sourceFrom<number>(async function* () {
      try {
        for (;;) yield { value: 1, bytes: 100, origin: origin(0) };
      } finally {
        throw new Error('EBADF');
      }
    });
    const { error } = await run({ source, consume: (_, { stop }) => stop() });
    expect(String(error)).toMatch(/^FlowError: source rows: .*EBADF/);
  });
});
