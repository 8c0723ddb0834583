// The loop: batches from the flow become steps on the device; events go to the sinks. It names no sink.

import type { Batch } from '../data/types.js';
import { transferables } from '../data/collate.js';
import type { DeviceThread } from '../device/thread.js';
import type { ConsumeContext, FlowPosition } from '../flow/index.js';
import { type RowWait, type StepEvent, rowName, rowWait } from './events.js';
import type { Sinks } from './sinks.js';
import type { DeviceApi } from './worker.js';

export interface LoopOptions {
  readonly device: Pick<DeviceThread<DeviceApi>, 'call'>;
  readonly sinks: Pick<Sinks, 'due' | 'after' | 'emit'>;
  readonly maxSteps: number;
  /** Micro-batches a step. */
  readonly accumulate: number;
  /** Steps done before (a resumed run). */
  readonly firstStep?: number;
  /** Where the stream stood behind them. */
  readonly from?: FlowPosition | undefined;
}

type BatchContext = Pick<ConsumeContext, 'origins' | 'position' | 'waits' | 'signal' | 'stop'>;

/** Tallies of the micro-batches of one step. */
interface Pending {
  batches: number;
  tokens: number;
  images: number;
  clips: number;
  rows: string[];
  waits: Record<string, number>;
  slowest: RowWait | undefined;
  /** Where the stream stands behind them. */
  position: FlowPosition | undefined;
}

const NOTHING: Pending = {
  batches: 0,
  tokens: 0,
  images: 0,
  clips: 0,
  rows: [],
  waits: {},
  slowest: undefined,
  position: undefined,
};

/** Turns batches into steps. `consume` may be called again before it resolves, so that the next batch is on the device
 *  thread before the step ends; a sink that is due after a step holds the next one back until it is done. */
export class TrainLoop {
  readonly #options: LoopOptions;
  #post: Promise<unknown> = Promise.resolve();
  /** The newest batch's work, and with it all work before it. */
  #newest: Promise<unknown> = Promise.resolve();
  #received: number;
  #pending = structuredClone(NOTHING);
  #lastStep: number;
  #position: FlowPosition | undefined;
  #numTrained = 0;
  #computeMs = 0;
  #sinksMs = 0;
  #numTokens = 0;
  /** Time of the steps with their waiting, and the same times their `mfu`. */
  #stepsMs = 0;
  #usedMs = 0;

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#lastStep = options.firstStep ?? 0;
    this.#position = options.from;
    this.#received = this.#lastStep * options.accumulate;
  }

  /** The last step whose update is done. */
  get lastStep(): number {
    return this.#lastStep;
  }

  /** Where the stream stands behind that step. */
  get position(): FlowPosition | undefined {
    return this.#position;
  }

  /** Samples of those steps, without what was done before this run. */
  get numTrained(): number {
    return this.#numTrained;
  }

  /** Milliseconds of the device's steps and of the sinks that held steps back, the tokens of those steps, and the share
   *  of the machine's peak that they reached. */
  get pace(): {
    readonly compute: number;
    readonly sinks: number;
    readonly tokens: number;
    readonly mfu?: number;
  } {
    return {
      compute: this.#computeMs,
      sinks: this.#sinksMs,
      tokens: this.#numTokens,
      ...(this.#usedMs > 0 && { mfu: this.#usedMs / this.#stepsMs }),
    };
  }

  /** Takes one batch; resolves when its gradient is accumulated and, with the last one of a step, the update done. One
   *  that is still held back when the run is cancelled is left out. */
  async consume(batch: Batch, context: BatchContext): Promise<void> {
    const { accumulate, maxSteps } = this.#options;
    const received = ++this.#received;
    const step = Math.ceil(received / accumulate);
    const completes = received % accumulate === 0;
    if (completes && step >= maxSteps) context.stop();
    // Posting is serial; what a batch's own promise waits for is not.
    const posted = this.#post.then(() =>
      context.signal.aborted ? undefined : this.#train(batch, context, step, completes),
    );
    this.#post = posted.then((work) => work?.released);
    this.#post.catch(() => undefined); // the batch's own promise rejects with it
    await (this.#newest = posted.then((work) => work?.done));
  }

  /** Waits for all work that is still open. Micro-batches of an unfinished step then make a smaller one, or are given up:
   *  a run that is continued must find the step whole. */
  async finish(unfinished: 'update' | 'give up'): Promise<void> {
    await this.#post;
    await this.#newest;
    if (this.#pending.batches === 0 || unfinished === 'give up') return;
    const event = await this.#update();
    await this.#after(event);
  }

  /** @returns when the batch is done, and what the next one must wait for before it is posted */
  #train(
    batch: Batch,
    context: BatchContext,
    step: number,
    completes: boolean,
  ): { done: Promise<unknown>; released?: Promise<unknown> } {
    const { device, sinks } = this.#options;
    const rows = context.origins.map(rowName);
    const { targets: _targets, ...sent } = batch;
    this.#count(batch, rows, context);
    const accumulated = device.call('accumulate', [sent, rows], { transfer: transferables(sent) });
    if (!completes) return { done: accumulated };
    accumulated.catch(() => undefined); // `update` is queued behind it; the first error is the one reported
    const done = Promise.all([accumulated, this.#update()]).then(([, event]) => event);
    if (!sinks.due(step)) return { done };
    const released = done.then((event) => this.#after(event));
    return { done: released, released };
  }

  #count(batch: Batch, rows: readonly string[], context: Pick<ConsumeContext, 'position' | 'waits'>): void {
    const pending = this.#pending;
    pending.batches += 1;
    pending.tokens += batch.numTokens;
    pending.images += batch.pixelValues?.shape[0] ?? 0;
    pending.clips += batch.inputFeatures?.shape[0] ?? 0;
    pending.rows.push(...rows);
    pending.position = context.position;
    for (const wait of context.waits) {
      pending.waits[wait.stage] = (pending.waits[wait.stage] ?? 0) + wait.ms;
      if (wait.ms > (pending.slowest?.ms ?? 0)) pending.slowest = rowWait(wait);
    }
  }

  async #after(event: StepEvent): Promise<void> {
    const begun = performance.now();
    await this.#options.sinks.after(event);
    this.#sinksMs += performance.now() - begun;
  }

  async #update(): Promise<StepEvent> {
    const { tokens, images, clips, rows, waits, slowest, position } = this.#pending;
    this.#pending = structuredClone(NOTHING);
    const { warnings = [], ...result } = await this.#options.device.call('update', [rows]);
    const tokensPerSecond = (1000 * tokens) / Math.max(1e-3, result.stepMs + result.waitMs);
    const counts = { tokens, samples: rows.length, images, clips, tokensPerSecond };
    const event: StepEvent = { event: 'step', ...result, ...counts, waits, ...(slowest && { slowest }) };
    this.#computeMs += event.stepMs;
    this.#stepsMs += event.stepMs + event.waitMs;
    this.#usedMs += (event.mfu ?? 0) * (event.stepMs + event.waitMs);
    this.#numTokens += tokens;
    this.#lastStep = event.step;
    this.#position = position;
    this.#numTrained += rows.length;
    this.#options.sinks.emit(event);
    const { step } = event;
    for (const warning of warnings) this.#options.sinks.emit({ event: 'warning', step, ...warning });
    return event;
  }
}
