// The checkpoint sink: every N steps or minutes, at the best evaluations, at the end, and when a run is stopped.

import { basename } from 'node:path';
import { bestFile, listCheckpoints } from '../checkpoint/index.js';
import { CheckpointError, ConfigError, messageOf } from '../errors.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import { BestOf, type BestOptions } from './best-of.js';
import type { CheckpointEvent, Outcome, RunEvent } from './events.js';
import type { PipelineContext } from './pipeline.js';
import { type CheckContext, type RunContext, type Sink, everyNth } from './sink.js';
import type { WriteOptions } from './snapshot.js';

const OPTIONS = z.strictObject({
  /** Steps between two. */
  every: z.int().positive().optional(),
  /** Minutes from one to the next, whatever it was written for. */
  minutes: z.number().positive().optional(),
  /** Older ones are removed. */
  keep: z.int().positive().default(3),
  /** The checkpoints of the best evaluations stay besides; best.json names them. */
  best: z
    .strictObject({
      /** 'evaluation/score', as in 'eval/exactMatch'. */
      metric: z.string().min(1),
      mode: z.enum(['max', 'min']),
      keep: z.int().positive().default(1),
    })
    .optional(),
  /** Bound on the host's memory that the copy of weights and optimizer takes while it is written. */
  maxBytes: z.int().positive().optional(),
});

/** `checkpoints({ every: 100, minutes: 30, keep: 3, best: { metric: 'eval/exactMatch', mode: 'max' } })`: complete folders
 *  `checkpoint-STEP` in the run's folder; the weights in each are laid out as Hugging Face lays them out. Training waits
 *  while what it changes is copied in memory, and goes on while that is written. A last one is written at the end and when
 *  the run is stopped. One that cannot be written is told, and the next is tried; a last one must succeed. */
export const checkpoints = definePart({
  role: 'sink',
  kind: 'checkpoints',
  schema: OPTIONS,
  create: (options, { pipeline }: PipelineContext): Sink =>
    new Checkpoints(options, pipeline.step !== undefined),
});

class Checkpoints implements Sink {
  readonly name = 'checkpoints';
  readonly afterOthers = true;
  readonly #options: z.output<typeof OPTIONS>;
  readonly #trains: boolean;
  readonly #isNth: (step: number) => boolean;
  readonly #best: BestOf | undefined;
  #context: RunContext | undefined;
  /** The step of the newest that is complete. */
  #last = -1;
  /** When the newest was begun. */
  #begunAt = 0;
  #pending: Promise<void> = Promise.resolve();
  /** What failed in the background and is no fault of the disk. */
  #broken: { readonly error: unknown } | undefined;

  constructor(options: z.output<typeof OPTIONS>, trains: boolean) {
    this.#options = options;
    this.#trains = trains;
    this.#isNth = everyNth(options.every);
    this.#best = trains && options.best ? new BestOf(options.best) : undefined;
  }

  check({ metrics }: CheckContext): void {
    if (this.#best) refuseUnknown(this.#options.best!, metrics);
  }

  // An evaluation may well be of one of them.
  leftovers(outDir: string): string[] {
    return this.#trains ? [...listCheckpoints(outDir).map(({ folder }) => basename(folder)), bestFile] : [];
  }

  async start(context: RunContext): Promise<void> {
    this.#context = context;
    this.#begunAt = performance.now();
    if (!this.#trains) return;
    refuseSmallBound(this.#options.maxBytes, context.device.snapshotBytes);
    const { resumedAt, outDir } = context;
    if (resumedAt === undefined) return;
    this.#last = resumedAt;
    if (!this.#best) return;
    this.#best.restore(outDir, resumedAt);
    // The run may have been killed before best.json was written.
    await this.#settle(resumedAt);
  }

  onEvent(event: RunEvent): void {
    if (event.event === 'checkpoint') this.#tell(event);
    if (event.event === 'eval') this.#best?.take(event);
    if (event.event === 'step') {
      const missed = this.#best?.missedBefore(event.step);
      if (missed !== undefined) {
        this.#context!.warn(
          `checkpoints: the evaluation of step ${missed} was told when step ${event.step} was done: its weights are gone, ` +
            "and it cannot be among the best; a sink that evaluates says so with 'due'",
        );
      }
    }
  }

  due(step: number): boolean {
    return (
      this.#isNth(step) || this.#isTime() || this.#best?.isBest(step) === true || this.#broken !== undefined
    );
  }

  async after({ step }: { readonly step: number }): Promise<void> {
    if (this.#broken) throw this.#broken.error;
    await this.#begin(step);
  }

  async end(lastStep: number, outcome: Outcome): Promise<void> {
    await this.#pending;
    if (this.#broken) throw this.#broken.error;
    if (!this.#trains || outcome === 'failed') return;
    if (lastStep !== this.#last) {
      await this.#context!.device.checkpoint(() => this.#writeOptions(lastStep));
      this.#last = lastStep;
    } else if (this.#best?.isBest(lastStep)) {
      // The last evaluation came after the checkpoint of its step.
      await this.#settle(lastStep);
    }
    if (this.#best && !this.#best.isGiven && outcome === 'complete') {
      this.#context!.warn(
        `checkpoints: no evaluation of this run gave '${this.#options.best!.metric}': none is kept as the best`,
      );
    }
  }

  /** Beside the complete checkpoint of a step. */
  async #settle(step: number): Promise<void> {
    const context = this.#context!;
    try {
      await context.device.settleCheckpoints(step, this.#writeOptions(step));
    } catch (error) {
      context.warn(`checkpoint of step ${step} is complete, but: ${messageOf(error)}`);
    }
  }

  #isTime(): boolean {
    const { minutes } = this.#options;
    return minutes !== undefined && performance.now() - this.#begunAt >= minutes * 60_000;
  }

  async #begin(step: number): Promise<void> {
    const { device } = this.#context!;
    this.#begunAt = performance.now();
    const pending = await device.beginCheckpoint(() => this.#writeOptions(step));
    this.#pending = pending.written.then(
      () => {
        this.#last = step;
      },
      (error: unknown) => this.#failed(step, error),
    );
  }

  #writeOptions(step: number): WriteOptions {
    const best = this.#best?.upTo(step);
    return { keep: this.#options.keep, ...(best && { best }) };
  }

  #failed(step: number, error: unknown): void {
    this.#best?.forget(step);
    if (!(error instanceof CheckpointError)) {
      this.#broken ??= { error };
      return;
    }
    const last =
      this.#last < 0 ? 'none is complete yet' : `the last complete one is that of step ${this.#last}`;
    this.#context!.warn(`checkpoint of step ${step} failed, the run goes on; ${last}: ${messageOf(error)}`);
  }

  #tell({ step, bytes, waitMs, fault }: CheckpointEvent): void {
    const context = this.#context!;
    if (waitMs !== undefined) {
      context.warn(
        `checkpoint of step ${step}: training waited ${(waitMs / 1000).toFixed(1)} s for the one before to be written; ` +
          'write fewer, or to a faster disk',
      );
    }
    if (bytes === 0) {
      context.warn(
        `checkpoint of step ${step}: training waited until it was written, since the host had no ` +
          `${context.device.snapshotBytes} bytes free for a copy`,
      );
    }
    if (fault !== undefined) context.warn(`checkpoint of step ${step} is complete, but: ${fault}`);
  }
}

function refuseUnknown({ metric }: BestOptions, metrics: readonly string[]): void {
  const isGiven = metrics.some((name) =>
    name.endsWith('*')
      ? metric.startsWith(name.slice(0, -1)) && metric.length >= name.length
      : name === metric,
  );
  if (isGiven) return;
  throw new ConfigError({
    where: 'checkpoints.best.metric',
    expected: `a score that an evaluation gives${metrics.length > 0 ? `: ${metrics.join(', ')}` : ''}`,
    received: metrics.length > 0 ? `'${metric}'` : `'${metric}', and no evaluation`,
    remedy:
      metrics.length > 0 ? 'correct the name' : 'add evaluation({ ... }) to the sinks, or leave out best',
  });
}

function refuseSmallBound(maxBytes: number | undefined, needed: number): void {
  if (maxBytes === undefined || needed <= maxBytes) return;
  throw new ConfigError({
    where: 'checkpoints.maxBytes',
    expected: `at least ${needed} bytes for the copy of the weights that learn and the optimizer's state`,
    received: String(maxBytes),
    remedy: 'raise it, or freeze more of the model',
  });
}
