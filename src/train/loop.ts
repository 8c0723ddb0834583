// The loop: batches from the flow become steps on the device; events go to the sinks. It names no sink.

import type { Batch } from '../data/types.js';
import { transferables } from '../data/collate.js';
import type { DeviceThread } from '../device/thread.js';
import type { ConsumeContext } from '../flow/index.js';
import { type StepEvent, rowName } from './events.js';
import type { Sink } from './sink.js';
import type { DeviceApi } from './worker.js';

export interface LoopOptions {
  readonly device: DeviceThread<DeviceApi>;
  readonly sinks: readonly Sink[];
  readonly maxSteps: number;
  /** Micro-batches a step. */
  readonly accumulate: number;
  /** Steps done before (a resumed run). */
  readonly firstStep?: number;
  readonly emit: (event: StepEvent) => void;
}

/** Tallies of the micro-batches of one step. */
interface Pending {
  batches: number;
  tokens: number;
  samples: number;
  images: number;
  rows: string[];
  waits: Record<string, number>;
}

const NOTHING: Pending = { batches: 0, tokens: 0, samples: 0, images: 0, rows: [], waits: {} };

/** Turns batches into steps. `consume` may be called again before it resolves, so that the next batch is on the device
 *  thread before the step ends; a sink that is due after a step holds the next one back until it is done. */
export class TrainLoop {
  readonly #options: LoopOptions;
  #post: Promise<unknown> = Promise.resolve();
  #received: number;
  #pending = structuredClone(NOTHING);
  #last: StepEvent | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#received = (options.firstStep ?? 0) * options.accumulate;
  }

  /** The last step's event. */
  get last(): StepEvent | undefined {
    return this.#last;
  }

  /** Takes one batch; resolves when its gradient is accumulated and, with the last one of a step, the update done. */
  async consume(batch: Batch, context: Pick<ConsumeContext, 'origins' | 'waits' | 'stop'>): Promise<void> {
    const { accumulate, maxSteps } = this.#options;
    const received = ++this.#received;
    const step = Math.ceil(received / accumulate);
    const completes = received % accumulate === 0;
    if (completes && step >= maxSteps) context.stop();
    // Posting is serial; what a batch's own promise waits for is not.
    const posted = this.#post.then(() => this.#train(batch, context, step, completes));
    this.#post = posted.then(({ released }) => released);
    this.#post.catch(() => undefined); // the batch's own promise rejects with it
    await (
      await posted
    ).done;
  }

  /** Updates with the micro-batches of a last, unfinished step, and waits for all work that is still open. */
  async finish(): Promise<void> {
    await this.#post;
    if (this.#pending.batches > 0) await this.#update();
  }

  #train(batch: Batch, context: Pick<ConsumeContext, 'origins' | 'waits'>, step: number, completes: boolean) {
    const { device, sinks } = this.#options;
    const rows = context.origins.map(rowName);
    this.#count(batch, rows, context);
    const accumulated = device.call('accumulate', [batch, rows], transferables(batch));
    if (!completes) return { done: accumulated, released: undefined };
    accumulated.catch(() => undefined); // `update` is queued behind it; the first error is the one reported
    const updated = this.#update();
    const done = Promise.all([accumulated, updated]).then(([, event]) => event);
    const due = sinks.filter((sink) => sink.due?.(step));
    const released =
      due.length === 0
        ? undefined
        : done.then(async (event) => {
            for (const sink of due) await sink.after?.(event);
          });
    return { done: released ?? done, released };
  }

  #count(batch: Batch, rows: readonly string[], context: Pick<ConsumeContext, 'waits'>): void {
    const pending = this.#pending;
    pending.batches += 1;
    pending.tokens += batch.numTokens;
    pending.samples += batch.numSamples;
    pending.images += batch.pixelValues?.shape[0] ?? 0;
    pending.rows.push(...rows);
    for (const { stage, ms } of context.waits) pending.waits[stage] = (pending.waits[stage] ?? 0) + ms;
  }

  async #update(): Promise<StepEvent> {
    const { tokens, samples, images, rows, waits } = this.#pending;
    this.#pending = structuredClone(NOTHING);
    const result = await this.#options.device.call('update', [rows]);
    const event: StepEvent = { event: 'step', ...result, tokens, samples, images, waits };
    this.#last = event;
    this.#options.emit(event);
    return event;
  }
}
