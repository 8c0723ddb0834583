// testFlow: stages under a marble source, through the real gate, pool, ledger and delivery, in virtual time.

import { AssertionError } from 'node:assert';
import { isDeepStrictEqual } from 'node:util';
import { inspect } from 'node:util';
import { Observable } from 'rxjs';
import { messageOf } from '../errors.js';
import {
  type AnyEntry,
  type ConsumeContext,
  type FlowEntries,
  type FlowSummary,
  type Stage,
  runFlow,
  stagesOf,
} from '../flow/index.js';
import { VirtualClock } from './clock.js';
import { guarded } from './guard.js';
import { type Mark, drawLevels, drawMarbles, parseEnd, parseMarbles } from './marbles.js';
import {
  type Difference,
  type Drawing,
  type FlowExpectation,
  type FlowPicture,
  differences,
  draw,
} from './picture.js';
import { CONSUMER, Recorder } from './recorder.js';
import { marbleSource } from './source.js';

export interface FlowTest {
  /** When each item of the source is there, in RxJS's marbles: '-a-b-|', '(abc|)', 'a 20ms b#'. It is given when it is asked
   *  for, at that time or later. Without '|' the source never ends: the run is then cancelled when all has come to rest. */
  readonly source: string;
  /** What letters stand for, in the source and in what is expected; a letter that is not here stands for itself. `fault(error)`
   *  is an item that cannot be read. */
  readonly values?: Readonly<Record<string, unknown>>;
  /** What each item weighs, or each by its letter; 1 by default. */
  readonly bytes?: number | Readonly<Record<string, number>>;
  /** What the source declares as its largest item: by default its largest that fits into the pool; false for none. */
  readonly maxItemBytes?: number | false;
  /** What '#' in the source stands for. */
  readonly error?: unknown;
  /** The stages, or RxJS operators, as in a pipeline's `flow`. Annotate lambdas' parameters. */
  readonly stages: readonly AnyEntry[];
  /** 1 MiB by default. */
  readonly poolBytes?: number;
  readonly deviceBytes?: number;
  readonly inFlight?: number;
  /** How long the consumer takes for each value, in milliseconds; 0 (at once) by default. */
  readonly consumeMs?: number;
  /** A consumer of your own instead, in virtual time as well. */
  readonly consume?: (value: never, context: ConsumeContext) => void | Promise<void>;
  /** When the run is cancelled: '-----!'. */
  readonly cancel?: string;
  /** Bytes that a digit of the pool's line stands for; what every item weighs, or 1, by default. */
  readonly unit?: number;
  /** Virtual milliseconds after which a flow that does not end has failed; 60,000 by default. */
  readonly limitMs?: number;
  readonly expect?: FlowExpectation;
}

/** Runs stages in virtual time and holds what happens against what is expected. Time is that of RxJS and of all timers of
 *  JavaScript (see `VirtualClock`), so promises work as well; a test of minutes takes a moment. Files, sockets and threads
 *  are not waited for: put a timer in their place.
 *
 *  Expected or not, the test fails where a stage loses a ticket, settles one twice, emits without one, keeps one for ever, or
 *  makes samples so heavy that the pool's bound does not hold. Messages name the stage and the sample, and draw the flow.
 *
 *  @example
 *  await testFlow({
 *    source: '   -a-b-c-|',
 *    values: { a: 1, b: 2, c: 3, x: 10, z: 30 },
 *    bytes: 10,
 *    poolBytes: 20,
 *    consumeMs: 3,
 *    stages: [filter((n: number) => n !== 2), lift(map((n: number) => n * 10))],
 *    expect: {
 *      values: ' -x---z-|',
 *      taken: '  -x---z--|',
 *      pool: '   .1..01..0',
 *      tickets: { a: 'trained', b: 'dropped in filter', c: 'trained' },
 *    },
 *  });
 *  @returns the picture of the flow
 *  @throws {AssertionError} with a drawing of the flow, and where it differs */
export function testFlow(test: FlowTest): Promise<FlowPicture> {
  return new FlowTester(test).run();
}

class FlowTester {
  private readonly clock = new VirtualClock();
  private readonly marks: readonly Mark[];
  private readonly items: readonly string[];
  private readonly recorder: Recorder;
  private readonly unit: number;
  private readonly poolBytes: number;
  private readonly controller = new AbortController();
  /** Letters of values that were given none. */
  private readonly unknown: string[] = [];
  /** Why it did not come to an end by itself. */
  private hung: string | undefined;

  constructor(private readonly test: FlowTest) {
    this.marks = parseMarbles(test.source);
    this.items = this.marks.map(({ key }) => key).filter((key) => key !== '|' && key !== '#');
    this.poolBytes = test.poolBytes ?? 2 ** 20;
    this.unit = test.unit ?? (typeof test.bytes === 'number' ? test.bytes : 1);
    this.recorder = new Recorder({
      now: () => this.clock.nowMs,
      nameOf: (sequence) => this.nameOf(sequence),
      poolBytes: this.poolBytes,
    });
  }

  async run(): Promise<FlowPicture> {
    let summary: FlowSummary | undefined;
    let failure: { readonly error: unknown } | undefined;
    await this.clock.run(async () => {
      const running = this.start().then(
        (result) => (summary = result),
        (error: unknown) => (failure = { error }),
      );
      await this.drive(running);
    });
    for (const event of this.recorder.events) if (event.kind === 'end') summary = event.summary;
    if (summary === undefined) throw failure?.error; // refused before it began
    return this.judge(summary, failure?.error);
  }

  /** The run itself, within the clock's time. */
  private async start(): Promise<FlowSummary> {
    const { test, clock, recorder } = this;
    if (test.cancel !== undefined) clock.after(parseEnd(test.cancel), () => this.controller.abort());
    const stages = stagesOf(test.stages).map((stage) =>
      guarded(stage, ({ origin }) => this.nameOf(origin.row)),
    );
    const summary = await runFlow({
      source: marbleSource({
        clock,
        marks: this.marks,
        valueOf: (key) => this.valueOf(key),
        bytesOf: (key) => this.bytesOf(key),
        maxItemBytes: this.maxItemBytes(),
        error: test.error ?? new Error('#'),
        onPull: (key) => recorder.pulls.push({ ms: clock.nowMs, key }),
      }),
      stages: [...stages, this.probe()] as unknown as FlowEntries<unknown, unknown>,
      poolBytes: this.poolBytes,
      ...(test.deviceBytes !== undefined && { deviceBytes: test.deviceBytes }),
      ...(test.inFlight !== undefined && { inFlight: test.inFlight }),
      consume: (value: unknown, context) => this.consume(value, context),
      signal: this.controller.signal,
      stallMs: Infinity,
      now: () => clock.nowMs,
      observer: (ticket, change) => recorder.observe(ticket, change),
      onEvent: (event) => {
        recorder.event(event);
        if (event.kind === 'end') this.ended(event.summary.ended);
      },
    });
    return summary;
  }

  /** Lets time pass until the run has ended. */
  private async drive(running: Promise<unknown>): Promise<void> {
    const { clock, recorder, controller } = this;
    const limitMs = this.test.limitMs ?? 60_000;
    let done = false;
    void running.finally(() => (done = true));
    for (;;) {
      await clock.settle();
      const next = clock.nextMs;
      recorder.fill(done || next === undefined ? clock.nowMs + 1 : Math.min(next, limitMs));
      if (done) return;
      if (clock.nowMs > limitMs) this.stuck(`it has not ended after ${limitMs} ms`);
      else if (this.tick()) continue;
      else if (!this.isEndless() || !recorder.isAtRest)
        this.stuck(`nothing moves any more after ${clock.nowMs} ms`);
      if (controller.signal.aborted && !this.tick()) return; // nothing can end it
      controller.abort();
    }
  }

  /** Runs the next timer. What it throws, nothing would catch in a run. */
  private tick(): boolean {
    try {
      return this.clock.tick();
    } catch (error) {
      this.hung ??= `a stage threw where nothing catches it: ${messageOf(error)}`;
      this.controller.abort();
      return true;
    }
  }

  private stuck(how: string): void {
    if (this.hung !== undefined) return;
    const open = this.recorder.whereOpen();
    this.hung = `${how}: ${open === '' ? 'no sample is open' : open}; let each stage pass a ticket on, settle it, or park it until more come`;
    this.recorder.leftOver = 'kept';
  }

  /** Ends with what the stages gave; keeps tickets no longer than a consumer does. */
  private probe(): Stage<unknown, unknown> {
    const { recorder, clock } = this;
    return {
      name: CONSUMER,
      connect: (source) =>
        new Observable((subscriber) =>
          source.subscribe({
            next: (item) => {
              recorder.values.push({ ms: clock.nowMs, key: this.keyOf(item.value, 'values') });
              subscriber.next(item);
            },
            error: (error: unknown) => {
              recorder.values.push({ ms: clock.nowMs, key: '#' });
              subscriber.error(error);
            },
            complete: () => {
              recorder.values.push({ ms: clock.nowMs, key: '|' });
              if (recorder.leftOver === 'dropped') recorder.leftOver = 'lost';
              subscriber.complete();
            },
          }),
        ),
    };
  }

  private consume(value: unknown, context: ConsumeContext): void | Promise<void> {
    const { consume, consumeMs = 0 } = this.test;
    this.recorder.taken.push({ ms: this.clock.nowMs, key: this.keyOf(value, 'taken') });
    if (consume) return consume(value as never, context);
    if (consumeMs > 0) return new Promise((resolve) => this.clock.after(consumeMs, resolve));
  }

  private ended(how: FlowSummary['ended']): void {
    const key = how === 'complete' ? '|' : how === 'failed' ? '#' : undefined;
    if (key !== undefined) this.recorder.taken.push({ ms: this.clock.nowMs, key });
  }

  private judge(summary: FlowSummary, error: unknown): FlowPicture {
    const { recorder, test, clock } = this;
    const drawing: Drawing = {
      source: test.source.trim(),
      marks: { pulls: recorder.pulls, values: recorder.values, taken: recorder.taken },
      levels: { pool: recorder.levels, device: recorder.deviceLevels },
      unit: this.unit,
      poolBytes: this.poolBytes,
      ticketLines: recorder.ticketLines(),
      unknown: this.unknown,
      waits: summary.waits,
      ended: `${summary.ended} at ${clock.nowMs} ms${error === undefined ? '' : `: ${messageOf(error)}`}`,
    };
    const picture: FlowPicture = {
      source: drawing.source,
      pulls: drawMarbles(recorder.pulls),
      values: drawMarbles(recorder.values),
      taken: drawMarbles(recorder.taken),
      pool: drawLevels(recorder.levels, this.unit),
      device: drawLevels(recorder.deviceLevels, this.unit),
      tickets: recorder.tickets(),
      summary,
      events: recorder.events,
      error,
      numTimers: clock.numTimers,
      toString: () => draw(drawing),
    };
    const expected = this.expectation();
    const found = differences(expected, drawing, picture);
    const reason = this.hung ?? this.failed(expected, error) ?? recorder.overdrawn;
    if (reason !== undefined) throw failure(reason, drawing, found);
    if (found.length > 0) throw failure(`${names(found)} not as expected`, drawing, found);
    return picture;
  }

  /** What fails a test that expects no error. */
  private failed({ error: wanted, ended }: FlowExpectation, error: unknown): string | undefined {
    if (error === undefined || wanted !== undefined || ended === 'failed') return undefined;
    return `the run failed: ${messageOf(error)}`;
  }

  /** A source that never ends is cancelled, and so it may be. */
  private expectation(): FlowExpectation {
    const { expect = {}, cancel } = this.test;
    const ended = cancel !== undefined || this.isEndless() ? { ended: 'cancelled' as const } : {};
    return expect.error === undefined ? { ...ended, ...expect } : expect;
  }

  private isEndless(): boolean {
    return this.marks.length === this.items.length;
  }

  private nameOf(sequence: number): string {
    const key = this.items[sequence] ?? String(sequence);
    return this.items.indexOf(key) === this.items.lastIndexOf(key) ? key : `${key}#${sequence}`;
  }

  private valueOf(key: string): unknown {
    const { values = {} } = this.test;
    return Object.hasOwn(values, key) ? values[key] : key;
  }

  private bytesOf(key: string): number {
    const { bytes = 1 } = this.test;
    return typeof bytes === 'number' ? bytes : (bytes[key] ?? 1);
  }

  private maxItemBytes(): number | undefined {
    const { maxItemBytes } = this.test;
    if (maxItemBytes === false) return undefined;
    const fitting = this.items.map((key) => this.bytesOf(key)).filter((bytes) => bytes <= this.poolBytes);
    return maxItemBytes ?? Math.max(1, ...fitting);
  }

  /** The letter of a value: the one expected at its place, where several are equal; '?' where there is none. */
  private keyOf(value: unknown, line: 'values' | 'taken'): string {
    const wanted = this.test.expect?.[line];
    const place = this.recorder[line].length;
    const key = wanted === undefined ? undefined : parseMarbles(wanted)[place]?.key;
    if (key !== undefined && isDeepStrictEqual(this.valueOf(key), value)) return key;
    const { values = {} } = this.test;
    const known = Object.keys(values).find((each) => isDeepStrictEqual(values[each], value));
    if (known !== undefined) return known;
    if (typeof value === 'string' && value.length === 1) return value;
    this.unknown.push(
      `? at ${this.clock.nowMs} ms: ${inspect(value, { depth: 3, breakLength: Infinity, maxStringLength: 80 })}`,
    );
    return '?';
  }
}

function names(found: readonly Difference[]): string {
  const all = found.map(({ name }) => name);
  return `${all.join(', ')} ${all.length === 1 ? 'is' : 'are'}`;
}

function failure(reason: string, drawing: Drawing, found: readonly Difference[]): AssertionError {
  const only = (side: 'expected' | 'received'): Record<string, unknown> =>
    Object.fromEntries(found.map((each) => [each.name, each[side]]));
  return new AssertionError({
    message: `${reason}\n\n${draw(drawing, found)}\n`,
    actual: only('received'),
    expected: only('expected'),
    operator: 'testFlow',
    stackStartFn: testFlow,
  });
}
