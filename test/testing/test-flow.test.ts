import { AssertionError } from 'node:assert';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Observable, map as rxMap, mergeMap, timer } from 'rxjs';
import { describe, expect, it } from 'vitest';
import {
  batch,
  filter,
  flatMap,
  lift,
  map,
  orderedMap,
  type Stage,
  type Ticketed,
} from '../../src/flow/index.js';
import { fault, testFlow, type FlowTest } from '../../src/testing/index.js';

const values = { a: 1, b: 2, c: 3, d: 4, x: 10, y: 20, z: 30, p: [1, 2], q: [3, 4], r: [3] };
const tens = lift(
  rxMap((n: number) => n * 10),
  { name: 'tens' },
);
const pairs = batch({ size: 2 }, (numbers: readonly number[]) => numbers);

/** A stage that is told each item and its subscriber. */
function stage(name: string, next: (item: Ticketed<number>, emit: Emit) => void): Stage<number, number> {
  return {
    name,
    connect: (source) =>
      new Observable((subscriber) =>
        source.subscribe({
          next: (item) => next(item, (emitted) => subscriber.next(emitted)),
          error: (error: unknown) => subscriber.error(error),
          complete: () => subscriber.complete(),
        }),
      ),
  };
}
type Emit = (item: Ticketed<number>) => void;

/** The message that a test fails with. */
async function failureOf(test: FlowTest): Promise<string> {
  const error = await testFlow(test).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(AssertionError);
  return (error as AssertionError).message;
}

describe('a flow in virtual time', () => {
  it('shows pulls, values, what is taken, both pools, tickets and waits', () =>
    testFlow({
      source: '   -a-b-c-|',
      values,
      bytes: 10,
      poolBytes: 20,
      consumeMs: 4,
      stages: [filter((n: number) => n !== 2), tens],
      expect: {
        pulls: '  ab-c-|',
        values: ' -x---z-|',
        taken: '  -x---z---|',
        pool: '   01.......0',
        device: ' 01.......0',
        tickets: { a: 'trained', b: 'dropped in filter', c: 'trained' },
        waits: { source: 1 },
        peakBytes: 20, // for a moment, until b is dropped
      },
    }));

  it('shows how a slow consumer holds the source back', () =>
    testFlow({
      source: '   (abcd|)',
      values,
      poolBytes: 2,
      consumeMs: 3,
      stages: [tens],
      expect: {
        pulls: '  (ab)',
        pool: '   2..0',
        peakBytes: 2,
      },
      cancel: '  -!',
    }));

  it('hands values over one by one, or as many as the device has room for', async () => {
    const flow = { source: '(abc|)', values, bytes: 10, poolBytes: 100, consumeMs: 5, stages: [tens] };
    await testFlow({ ...flow, expect: { taken: 'x----y----z----|', device: '1..............0' } });
    await testFlow({
      ...flow,
      inFlight: 3,
      deviceBytes: 20,
      expect: { taken: '(xy)-z----|', device: '2....1....0', peakDeviceBytes: 20 },
    });
  });

  it('tells what each item became, also of one that became several', async () => {
    const { tickets } = await testFlow({
      source: 'abcd|',
      values: { ...values, d: fault(new Error('bad page')) },
      poolBytes: 100,
      stages: [
        flatMap((n: number) => Array.from({ length: n }, (_, i) => n + i)),
        filter((n: number) => n !== 4),
        map((n: number) => {
          if (n === 5) throw new Error('five');
          return n;
        }),
      ],
    });
    expect(tickets).toEqual({
      a: 'trained',
      b: '2 trained',
      c: '1 trained, 1 dropped in filter, 1 quarantined in map: five',
      d: 'quarantined in source: bad page',
    });
  });

  it('calls a letter that comes twice by its row', async () => {
    const { tickets } = await testFlow({ source: 'a-b-a|', values, stages: [filter((n: number) => n > 1)] });
    expect(tickets).toEqual({ 'a#0': 'dropped in filter', b: 'trained', 'a#2': 'dropped in filter' });
  });

  it('parks what waits for more, and makes batches', () =>
    testFlow({
      source: '   -a-b-c|',
      values,
      bytes: 1,
      poolBytes: 2,
      consumeMs: 2,
      stages: [pairs],
      expect: {
        values: ' ---p--(r|)',
        taken: '  ---p--r-|',
        pool: '   01.2.1..0',
        device: ' 0..2.01.0',
        waits: { source: 4 },
      },
    }));

  it('ends as cancelled, and shows that a stage left a timer', async () => {
    const { numTimers, summary } = await testFlow({
      source: 'ab--|',
      values,
      cancel: '--!',
      stages: [orderedMap((n: number) => new Promise((resolve) => setTimeout(resolve, 9, n)))],
      expect: { values: '', tickets: { a: 'dropped in orderedMap', b: 'dropped in orderedMap' } },
    });
    expect([numTimers, summary.ended]).toEqual([2, 'cancelled']);
  });

  it('cancels what RxJS runs without a trace', async () => {
    const { numTimers } = await testFlow({
      source: 'ab--|',
      values,
      cancel: '--!',
      stages: [lift(mergeMap((n: number) => timer(9).pipe(rxMap(() => n))))],
    });
    expect(numTimers).toBe(0);
  });

  it('lets a source end in an error, and a stage as well', async () => {
    await testFlow({
      source: 'ab#',
      values,
      error: new Error('lost disk'),
      stages: [tens],
      expect: { values: 'xy#', taken: 'xy#', error: 'source source: expected its next item, received' },
    });
    await testFlow({
      source: 'ab|',
      values,
      stages: [(numbers: Observable<number>) => numbers.pipe(mergeMap((n) => [n, n]))],
      expect: { error: /at most one value for a sample, received a second value/ },
    });
  });

  it('takes a source without an end for one that goes on, and cancels it when all is still', async () => {
    const { summary } = await testFlow({
      source: '-a-b-c',
      values,
      stages: [pairs],
      expect: { values: '---p', tickets: { c: 'dropped in batch' } },
    });
    expect(summary.ended).toBe('cancelled');
  });

  it('shows an item bigger than the pool, alone', async () => {
    const { summary } = await testFlow({
      source: ' (abc|)',
      bytes: { b: 50 },
      poolBytes: 20,
      consumeMs: 5,
      stages: [],
      expect: { taken: 'a----b----c----|', peakBytes: 51 },
    });
    expect(summary.oversize).toBe(1);
  });

  it('takes a consumer of the test', async () => {
    const taken: number[] = [];
    await testFlow({
      source: 'abc|',
      values,
      stages: [tens],
      consume: async (n: number, { stop }) => {
        await delay(2);
        taken.push(n);
        if (n === 20) stop();
      },
      expect: { ended: 'stopped', taken: 'x-y' },
    });
    expect(taken).toEqual([10, 20]);
  });
});

describe('time', () => {
  it('is virtual for every timer, and no time of the machine', async () => {
    const begun = performance.now();
    const after = (ms: number): Promise<void> => promisify(setTimeout)(ms);
    await testFlow({
      source: '  a 1s b 1s c 1s d|',
      values: { a: 0, b: 1, c: 2, d: 3 },
      stages: [
        orderedMap(async (n: number) => {
          const from = [Date.now(), performance.now()];
          await [() => after(500), () => delay(500), () => new Promise((f) => setTimeout(f, 500)), turns][
            n
          ]!();
          expect([Date.now() - from[0]!, performance.now() - from[1]!]).toEqual(
            n === 3 ? [0, 0] : [500, 500],
          );
          return n;
        }),
      ],
      expect: { values: '500ms a 1s b 1s c 500ms d|' },
    });
    expect(performance.now() - begun).toBeLessThan(400);

    async function turns(): Promise<void> {
      for (let i = 0; i < 3; i += 1) await new Promise((resolve) => setImmediate(resolve));
    }
  });

  it('is the machine’s again afterwards, also when the test fails', async () => {
    const now = (): unknown[] => [
      ...[setTimeout, setInterval, setImmediate, clearTimeout, delay],
      ...[Object.getOwnPropertyDescriptor(Date, 'now'), Object.getOwnPropertyDescriptor(performance, 'now')],
    ];
    const before = now();
    await failureOf({ source: 'a|', stages: [], expect: { values: 'b|' } });
    expect(now()).toEqual(before);
    expect(setTimeout).toBe(before[0]);
  });

  it('belongs to one test at a time', async () => {
    const flow = (ms: number): Promise<unknown> =>
      testFlow({
        source: 'a|',
        values,
        stages: [lift(mergeMap((n: number) => timer(ms).pipe(rxMap(() => n))))],
        expect: { values: `${ms}ms (a|)` },
      });
    await Promise.all([flow(3), flow(5), flow(2)]);
  });

  it('aborts signals that have a time limit', () =>
    testFlow({
      source: 'a|',
      stages: [
        orderedMap((_: string) => {
          const signal = AbortSignal.timeout(3);
          return new Promise<string>((resolve, reject) => {
            setTimeout(() => resolve('late'), 50);
            signal.addEventListener('abort', () => reject(signal.reason as Error));
          });
        }),
      ],
      expect: {
        taken: '---|',
        tickets: { a: /^quarantined in orderedMap: The operation was aborted due to timeout$/ },
      },
      limitMs: 40,
    }));
});

describe('a failing test', () => {
  it('draws the flow, and what was expected below what differs', async () => {
    expect(
      await failureOf({
        source: '-a-b-|',
        values,
        bytes: 10,
        poolBytes: 100,
        stages: [tens],
        consumeMs: 2,
        expect: { values: '-x--y|', tickets: { b: 'dropped in tens' }, pool: '01.2.0' },
      }),
    ).toBe(`values, pool, ticket b are not as expected

  ms        0    5
  source    -a-b-|
  pulls     ab-|
  values    -x-y-|
   expected -x--y|
            first: expected y at 4 ms, received y at 3 ms (all: 1 ms: x; 3 ms: y; 5 ms: |)
  taken     -x-y-|
  pool      01...0   (10 bytes a digit), of 100 bytes
   expected 01.2.0
            first: at 3 ms expected 20 bytes, received 10
  device    01...0   (10 bytes a digit)
  tickets   a  trained at 3 ms
            b  trained at 5 ms
  waits     source 1 ms
  ended     complete at 5 ms
  ticket b: expected dropped in tens, received trained
`);
  });

  it('says what letters without a value stand for', async () => {
    const message = await failureOf({
      source: 'a|',
      values,
      stages: [map((n: number) => ({ n }))],
      expect: { values: 'x|' },
    });
    expect(message).toContain('  values    ?|\n   expected x|\n');
    expect(message).toContain('  letters   ? at 0 ms: { n: 1 }\n');
  });

  it('lists what marbles cannot draw', async () => {
    const { values: drawn } = await testFlow({
      source: 'ab|',
      stages: [flatMap((key: string) => [key, key])],
    });
    expect(drawn).toBe('0 ms: a a; 1 ms: b b; 2 ms: |');
  });

  it('tells an error that was not expected, and one that was and did not come', async () => {
    expect(await failureOf({ source: 'a#', stages: [], error: new Error('gone') })).toContain(
      'the run failed: source source: expected its next item, received an error: gone;',
    );
    expect(await failureOf({ source: 'a|', stages: [], expect: { error: 'gone' } })).toContain(
      '  ended     complete at 1 ms\n   expected failed\n',
    );
  });

  it('gives runners the two sides to compare', async () => {
    const error: unknown = await testFlow({ source: 'a|', stages: [], expect: { values: 'b|' } }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({
      expected: { values: 'b|' },
      actual: { values: 'a|' },
      operator: 'testFlow',
    });
  });
});

describe('a stage that mistreats tickets', () => {
  it('is named with the sample when it loses one', async () => {
    const leaky = stage('leaky', ({ value, ticket }, emit) => {
      if (value !== 2) emit({ value, ticket });
    });
    expect(await failureOf({ source: 'abc|', values, stages: [leaky, tens] })).toMatch(
      /^the run failed: ledger: .*1 open in leaky \(1\); a stage lost tickets/,
    );
    expect(await failureOf({ source: 'abc|', values, stages: [leaky] })).toContain('lost in leaky');
  });

  it('is named when what it lost keeps the pool full', async () => {
    const leaky = stage('leaky', () => {});
    expect(await failureOf({ source: 'abc|', values, poolBytes: 2, stages: [leaky] })).toMatch(
      /^nothing moves any more after 1 ms: leaky has a and b; let each stage pass a ticket on/,
    );
  });

  it('is named when it settles one that it emits', async () => {
    const greedy = stage('greedy', ({ value, ticket }, emit) => {
      ticket.settle('dropped');
      emit({ value, ticket });
    });
    expect(await failureOf({ source: 'a|', values, stages: [greedy] })).toMatch(
      /^the run failed: stage greedy: expected to pass a on or to settle it, received both;/,
    );
  });

  it('is named when it emits one twice, or settles one twice', async () => {
    const twice = stage('twice', (item, emit) => (emit(item), emit(item)));
    expect(await failureOf({ source: 'a|', values, stages: [twice] })).toMatch(
      /^the run failed: stage twice: expected to emit a once, received its ticket a second time;/,
    );
    const settles = stage('settles', ({ ticket }) => (ticket.settle('dropped'), ticket.settle('dropped')));
    expect(await failureOf({ source: 'a|', values, stages: [settles] })).toContain(
      'a stage threw where nothing catches it: ticket of source row 0: expected to be settled once, received dropped after dropped in settles;',
    );
  });

  it('is named when it emits a value without one', async () => {
    const bare = stage('bare', ({ value }, emit) => emit(value as never));
    expect(await failureOf({ source: 'a|', values, stages: [bare] })).toMatch(
      /^the run failed: stage bare: expected to emit \{ value, ticket \}, received number;/,
    );
  });

  it('is named when it makes samples heavier than it declared', async () => {
    const grows = (itemBytes?: number): FlowTest => ({
      source: 'ab|',
      values,
      bytes: 10,
      poolBytes: 50,
      consumeMs: 3,
      stages: [
        map((n: number) => n, {
          name: 'decode',
          weigh: () => 40,
          ...(itemBytes !== undefined && { itemBytes }),
        }),
      ],
    });
    expect(await failureOf(grows())).toMatch(
      /^at 1 ms stage decode let b weigh 40 bytes, which makes 80 in a pool of 50; declare the most/,
    );
    const { summary } = await testFlow(grows(40));
    expect(summary.peakBytes).toBe(40);
  });

  it('is named when it keeps a sample for ever', async () => {
    const keeps = orderedMap(() => new Promise<number>(() => {}), { name: 'keeps' });
    expect(await failureOf({ source: 'ab|', values, stages: [keeps] })).toMatch(
      /^nothing moves any more after 2 ms: keeps has a and b/,
    );
    const ticks = orderedMap((_: number) => new Promise<number>(() => void setInterval(() => {}, 10)));
    expect(await failureOf({ source: 'ab|', values, stages: [ticks], limitMs: 1000 })).toMatch(
      /^it has not ended after 1000 ms: orderedMap has a and b/,
    );
  });

  it('is named when it waits for more than the pool has room for', async () => {
    const three = batch({ size: 3 }, (numbers: readonly number[]) => numbers, { name: 'three' });
    await expect(testFlow({ source: 'abc|', poolBytes: 2, stages: [three] })).rejects.toThrow(
      'pool of 2 bytes: expected at least 3 bytes, since three holds up to 3 items of up to 1 bytes',
    );
  });
});
