// Models that are not ours, trained in the same flow with the same sinks: what the run needs of one, a `Learner`.

import type { ArrayBatch, PlainArray } from '../data/arrays.js';
import { wholeMedia } from '../data/media-arrays.js';
import type { Processor } from '../data/processor.js';
import { ConfigError } from '../errors.js';
import { scheduleFactor } from '../optim/index.js';
import { type Part, definePart, make } from '../parts.js';
import { z } from '../schema.js';
import type { LearnerFacts, UpdateResult } from './learner.js';
import type { StepOptions } from './options.js';
import type { Pipeline } from './pipeline.js';

/** What a learner gives of an update; the run adds the times, tokens and waits of its `step` event. */
export type LearnerUpdate = Omit<UpdateResult, 'stepMs' | 'waitMs'>;

/** What a learner goes on from, in a checkpoint. */
export interface SavedLearner {
  /** Updates made. */
  readonly step: number;
  /** State of its generator, in words of its own; '' where it draws nothing. */
  readonly random: string;
  /** Written to model.safetensors, as float32, int32 and uint8. */
  readonly weights: ReadonlyMap<string, PlainArray>;
  /** Written to optimizer.safetensors: moments, counts. */
  readonly optimizer: ReadonlyMap<string, PlainArray>;
  /** Further files for whoever loads the model elsewhere, by name. They are written only: `load` does not get them. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}

/** A model being trained: all that a run asks of one, so that flow, checkpoints, evaluations, metrics and report work with
 *  it. Its methods are called one after the other, each when the one before has ended:
 *
 *      open                      once; facts(), and save() for its size
 *      load(saved)               where a run is continued, before the first step
 *      accumulate(batch) ...     `step.accumulate` times
 *      update()                  then; the step is counted
 *      answer(batch)             between two steps, for evaluations
 *      save()                    between two steps, for checkpoints
 *      close()                   once, also when the run fails
 *
 *  Between two calls the flow prepares the next batch, on the same thread: work that takes long is best done in a thread or
 *  a process of its own, behind methods that return promises. After a method that threw, only `close` is called. A learner is
 *  put into a pipeline with `guest(...)`. */
export interface Learner {
  /** Asked once, behind opening. */
  facts(): LearnerFacts;
  /** Forward and backward of one micro-batch: adds the gradient of its summed loss to that of the step's earlier ones.
   *  @param batch what the flow's `arrays({ size })` gathered: by name [samples, ...]. It is the learner's to keep
   *  @param rows names of the rows in the batch, for errors
   *  @throws when the loss is not finite */
  accumulate(batch: ArrayBatch, rows: readonly string[]): void | Promise<void>;
  /** Updates with what was accumulated, the gradient divided by the step's number of labels: so a step does not depend on how
   *  it is split. The run has given it `step`'s options; see `learningRate` for its schedule. `loss` is the step's mean over its
   *  labels, `gradNorm` the global norm before clipping, `step` the number of updates made, this one included.
   *  @param rows names of all rows of the step
   *  @throws when a gradient is not finite; the model stays as it was */
  update(rows: readonly string[]): LearnerUpdate | Promise<LearnerUpdate>;
  /** Its answer to each sample in words, which scores compare with `batch.targets`. It must change nothing that `save` tells. */
  answer(batch: ArrayBatch): string[] | Promise<string[]>;
  /** Copies of all that it goes on from, as it stands behind the last update. Training goes on while they are written. */
  save(): SavedLearner | Promise<SavedLearner>;
  /** Goes on as whoever saved this would have, bit for bit.
   *  @throws when it is another model's */
  load(saved: SavedLearner): void | Promise<void>;
  /** Frees what it holds. */
  close?(): void | Promise<void>;
}

/** What a learner is made for. */
export interface GuestSpec {
  /** The run's; whatever the learner draws should come of it. */
  readonly seed: number;
  /** Optimizer, schedule, clipping and number of steps, as the pipeline declares them. Left out, the model only evaluates. */
  readonly step?: StepOptions;
}

/** What the model part of a guest makes. */
export interface Guest {
  /** Refuses what cannot work, before the run: a `ConfigError` then ends it with code 2. What a learner does not do of `step`
   *  should be refused here, or it is passed over in silence. */
  check?(spec: GuestSpec): void;
  open(spec: GuestSpec): Learner | Promise<Learner>;
}

export type GuestPart = Part<'model', undefined, Guest>;

const guestPart = definePart({
  role: 'model',
  kind: 'guest',
  schema: z.strictObject({
    open: z.custom<Guest['open']>((value) => typeof value === 'function', 'expected a function'),
    check: z
      .custom<NonNullable<Guest['check']>>((value) => typeof value === 'function', 'expected a function')
      .optional(),
  }),
  create: ({ open, check }): Guest => ({ open, ...(check && { check }) }),
});

/** A model of one's own in a pipeline file, in place of `gemma3n`. The flow then ends in `arrays({ size })`.
 *  @example pipeline({ model: guest({ open: (spec) => new MyLearner(spec) }), ... }) */
export function guest(model: Guest): GuestPart {
  return guestPart({
    open: (spec) => model.open(spec),
    ...(model.check && { check: (spec) => model.check?.(spec) }),
  });
}

/** The learning rate of a step's next update, by its optimizer's rate and its schedule.
 *  @param updates made before */
export function learningRate({ optimizer, schedule, maxSteps }: StepOptions, updates: number): number {
  return (optimizer as { readonly lr: number }).lr * scheduleFactor(schedule, updates, maxSteps);
}

/** The guest of a pipeline whose model is one. */
export function guestOf({ model }: Pick<Pipeline, 'model'>): Guest | undefined {
  if (model.kind === 'gemma3n') return undefined;
  const made = make(model as unknown as GuestPart, undefined);
  return typeof made.open === 'function' ? made : undefined;
}

/** What of a pipeline its guest is made for. */
export function guestSpec({ seed, step }: Pipeline): GuestSpec {
  return { seed, ...(step && { step }) };
}

/** @param what cannot take a guest: 'pipe plan' */
export function refuseGuest(pipeline: Pick<Pipeline, 'model'>, what: string): void {
  if (!guestOf(pipeline)) return;
  throw new ConfigError({
    where: what,
    expected: 'a pipeline whose model is gemma3n(...)',
    received: `a ${pipeline.model.kind} model`,
    remedy: 'run it as it is with pipe run',
  });
}

const GUEST = Symbol('guest');

/** Stands in where a Gemma has its processor: media are decoded as they are, and a stage that makes tokens is refused. */
export function guestProcessor(): Processor {
  const known = {
    [GUEST]: true,
    media: {},
    reader: wholeMedia,
    tokenizer: { named: () => undefined },
    eosTokenIds: [],
  };
  return new Proxy(known, {
    get: (target, key) => {
      if (key in target || typeof key === 'symbol' || key === 'then' || key === 'toJSON') {
        return target[key as keyof typeof target];
      }
      throw new ConfigError({
        where: 'flow',
        expected: "stages that need no Gemma's processor, the last one arrays({ size })",
        received: `one that asks for the processor's ${key}, as encode() and batch() do`,
        remedy: 'prepare samples with labelledImages({ ... }) or map(...), then arrays({ size: 32 })',
      });
    },
  }) as unknown as Processor;
}

export function isGuestProcessor(processor: Processor): boolean {
  return GUEST in processor;
}
