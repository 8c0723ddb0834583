// runFlow: source -> gate -> stages -> consumer, and the end of it in every way a run can end.

import { setTimeout as delay } from 'node:timers/promises';
import { Observable } from 'rxjs';
import { checkBounds, heldAtMost, reservesOf } from './bounds.js';
import { stagesOf } from './chain.js';
import { Delivery } from './deliver.js';
import { gate, type Gate } from './gate.js';
import { Ledger } from './ledger.js';
import { checkCount, checkPositive } from './options.js';
import { Pool } from './pool.js';
import { watchStalls } from './stall-watch.js';
import { Tuner } from './tune.js';
import type { AnyStage, FlowOptions, FlowSummary, Ticketed } from './types.js';

/** Runs a flow to its end.
 *
 *  Values are handed to `consume` in order, `inFlight` at a time and as many as `deviceBytes` has room for; their samples
 *  are trained when it resolves. While it is
 *  busy the stages prepare what fits into the pool, and no more is pulled.
 *
 *  It ends
 *  - complete, when the source is empty and all is consumed;
 *  - stopped, when the consumer calls `context.stop()`;
 *  - cancelled, when `signal` is aborted: the promise resolves, with `ended: 'cancelled'`;
 *  - failed: the promise rejects with what `consume` threw, or with a FlowError that names the source, stage or sink.
 *
 *  However it ends: the source's iterator is returned once, stages are unsubscribed, open `consume` calls are awaited (at
 *  most `graceMs`; what they finish counts as trained), all that is left is dropped, the ledger is checked, and the event
 *  'end' carries the summary.
 *  @throws {FlowError} before the run when the pool is too small for the graph or an entry is no stage */
export async function runFlow<T, A = T, B = A, C = B, D = C, E = D, F = E, G = F, H = G>(
  options: FlowOptions<T, A, B, C, D, E, F, G, H>,
): Promise<FlowSummary> {
  const stages = stagesOf(options.stages);
  const { poolBytes, maxPoolBytes: mostBytes = poolBytes } = options;
  checkBounds(options.source, stages, mostBytes);
  const { needed } = heldAtMost(options.source, stages);
  const isFixed = mostBytes <= poolBytes;
  const pool = new Pool(isFixed ? poolBytes : Math.max(poolBytes, 2 * needed), 'poolBytes', mostBytes);
  checkCount('inFlight', options.inFlight ?? 1);
  if (options.stallMs !== Infinity) checkPositive('stallMs', options.stallMs ?? STALL_MS);
  const devicePool = new Pool(options.deviceBytes ?? Number.MAX_SAFE_INTEGER, 'deviceBytes');
  return new Run(options as unknown as FlowOptions<unknown, unknown>, stages, pool, devicePool).run();
}

/** How long the consumer waits before it is told for what, in milliseconds. */
const STALL_MS = 30_000;

type Ended = FlowSummary['ended'];

class Run {
  private readonly controller = new AbortController();
  private readonly ledger: Ledger;
  private readonly delivery: Delivery<unknown>;
  private readonly tuner: Tuner | undefined;
  private ended: Ended | undefined;
  private failure: { readonly error: unknown } | undefined;
  /** What a sample may come to weigh from each stage on, as of the last pull: a stage's `itemBytes` may grow. */
  private reserves: readonly number[] = [];
  private resolveEnd: () => void = () => {};
  private readonly end = new Promise<void>((resolve) => (this.resolveEnd = resolve));

  constructor(
    private readonly options: FlowOptions<unknown, unknown>,
    private readonly stages: readonly AnyStage[],
    private readonly pool: Pool,
    private readonly devicePool: Pool,
  ) {
    this.ledger = new Ledger(pool, {
      source: options.source.name,
      onEvent: options.onEvent,
      onEventError: (error) => this.fail(error),
      now: options.now,
      observer: options.observer,
      from: options.from,
    });
    const tunes = stages.flatMap((stage) => stage.tunes ?? []);
    if (tunes.length > 0 || pool.most > pool.capacity) {
      this.tuner = new Tuner({ stages: tunes, pool, now: options.now ?? (() => performance.now()) });
    }
    this.delivery = new Delivery({
      consume: options.consume,
      inFlight: options.inFlight ?? 1,
      pool: devicePool,
      ledger: this.ledger,
      signal: this.controller.signal,
      onWaited: this.tuner && ((waitMs, waits) => this.tuner?.delivered(waitMs, waits)),
      onStop: () => this.finish('stopped'),
      onError: (error) => this.fail(error),
      onDone: () => this.finish('complete'),
    });
  }

  async run(): Promise<FlowSummary> {
    const { signal } = this.options;
    for (const { name, reproducible } of this.stages) {
      if (reproducible === false) this.ledger.report({ kind: 'unordered', stage: name });
    }
    const entrance = gate(this.options.source, {
      pool: this.pool,
      ledger: this.ledger,
      reserve: () => (this.reserves = reservesOf(this.stages))[0] ?? 0,
      from: this.options.from,
    });
    const cancel = (): void => this.finish('cancelled');
    if (signal?.aborted === true) cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    let endWatch = (): void => {};
    try {
      const graph = this.ended === undefined ? this.connect(entrance) : undefined;
      if (graph !== undefined) {
        this.delivery.begin();
        endWatch = watchStalls(this.ledger.blame, this.options.stallMs ?? STALL_MS, (stall) =>
          this.ledger.report({ kind: 'stall', ...stall }),
        );
        const subscription = graph.subscribe({
          next: (item) => this.delivery.offer(item),
          error: (error: unknown) => this.fail(error),
          complete: () => this.delivery.complete(),
        });
        await this.end;
        subscription.unsubscribe();
      }
      await this.settle(graph === undefined ? undefined : entrance);
    } finally {
      endWatch();
      signal?.removeEventListener('abort', cancel);
    }
    return this.close();
  }

  private connect(entrance: Gate<unknown>): Observable<Ticketed<unknown>> | undefined {
    try {
      let flow = entrance.items;
      this.stages.forEach((stage, i) => {
        const reserve = (): number => this.reserves[i + 1] ?? 0;
        flow = stage.connect(entering(flow, stage.name, reserve) as never, reserve);
      });
      return flow;
    } catch (error) {
      this.fail(error);
      return undefined;
    }
  }

  private finish(ended: Ended): void {
    if (this.ended !== undefined) return;
    this.ended = ended;
    this.delivery.close();
    if (ended === 'cancelled') this.controller.abort(this.options.signal?.reason);
    if (ended === 'failed') this.controller.abort(this.failure?.error);
    this.resolveEnd();
  }

  /** What fails because the run was cancelled is no failure; what fails after a stop is one. */
  private fail(error: unknown): void {
    if (this.ended === 'cancelled') return;
    this.failure ??= { error };
    this.finish('failed');
  }

  private async settle(entrance: Gate<unknown> | undefined): Promise<void> {
    const done = Promise.all([this.delivery.idle(), entrance?.closed]);
    const timer = new AbortController();
    const late = delay(this.options.graceMs ?? 5000, undefined, { signal: timer.signal }).catch(
      () => undefined,
    );
    const closed = await Promise.race([done, late]);
    timer.abort();
    const error = closed?.[1];
    if (error !== undefined) this.fail(error);
  }

  private close(): FlowSummary {
    this.ledger.blame.end();
    if (this.ended === 'complete' && this.failure === undefined) {
      try {
        this.ledger.check();
      } catch (error) {
        this.failure = { error };
      }
    }
    this.ledger.abandon();
    const summary = this.summary();
    this.ledger.report({ kind: 'end', summary });
    if (this.failure !== undefined) throw this.failure.error;
    return summary;
  }

  private summary(): FlowSummary {
    return {
      ended: this.failure === undefined ? (this.ended ?? 'complete') : 'failed',
      ledger: this.ledger.counts,
      peakBytes: this.pool.peak,
      peakDeviceBytes: this.devicePool.peak,
      oversize: this.ledger.oversize,
      consumed: this.delivery.numConsumed,
      waitMs: this.ledger.blame.totalMs,
      waits: { ...this.ledger.blame.totals },
      tuned: this.tuner?.state ?? {},
      slowest: [...this.ledger.blame.slowest],
      reproducible: this.stages.every((stage) => stage.reproducible !== false),
    };
  }
}

/** Tells each ticket that it is in this stage now. */
function entering<T>(
  source: Observable<Ticketed<T>>,
  stage: string,
  reserve: () => number,
): Observable<Ticketed<T>> {
  return new Observable((subscriber) =>
    source.subscribe({
      next: (item) => {
        item.ticket.enter(stage, reserve());
        subscriber.next(item);
      },
      error: (error: unknown) => subscriber.error(error),
      complete: () => subscriber.complete(),
    }),
  );
}
