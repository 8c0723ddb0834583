// Models that are not ours, trained in the same flow with the same sinks: what the run needs of one, a `Learner`.

import type { ArrayBatch, PlainArray } from '../data/arrays.js';
import { wholeMedia } from '../data/media-arrays.js';
import type { Processor } from '../data/processor.js';
import { ConfigError } from '../errors.js';
import { make, type Part } from '../parts.js';
import type { LearnerFacts, UpdateResult } from './learner.js';
import type { StepOptions } from './options.js';
import type { Pipeline } from './pipeline.js';

/** What a learner gives of an update; the run adds the times. */
export type LearnerUpdate = Omit<UpdateResult, 'stepMs' | 'waitMs'>;

/** What a learner goes on from, in a checkpoint. */
export interface SavedLearner {
  /** Updates made. */
  readonly step: number;
  /** Of its generator. */
  readonly random: string;
  readonly weights: ReadonlyMap<string, PlainArray>;
  readonly optimizer: ReadonlyMap<string, PlainArray>;
  /** Further files for whoever loads the model elsewhere, by name. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}

/** A model being trained. Its methods are called one after the other, a step as `accumulate` once or more, then `update`. */
export interface Learner {
  facts(): LearnerFacts;
  /** Forward and backward of one micro-batch: adds the gradient of its summed loss.
   *  @param rows names of the rows in the batch, for errors
   *  @throws when the loss is not finite; nothing more is asked of the learner then */
  accumulate(batch: ArrayBatch, rows: readonly string[]): void | Promise<void>;
  /** Updates with what was accumulated, the gradient divided by the number of labels.
   *  @throws when a gradient is not finite; the model stays as it was */
  update(rows: readonly string[]): LearnerUpdate | Promise<LearnerUpdate>;
  /** Its answer to each sample, for evaluations. */
  answer(batch: ArrayBatch): string[] | Promise<string[]>;
  /** Copies of all that it goes on from, as it stands behind the last update. */
  save(): Promise<SavedLearner>;
  /** Goes on as whoever saved this would have. */
  load(saved: SavedLearner): void | Promise<void>;
  /** Frees what it holds. */
  close?(): void;
}

/** What a learner is made for. */
export interface GuestSpec {
  readonly seed: number;
  /** Left out, the model only evaluates. */
  readonly step?: StepOptions;
}

/** What the model part of a guest makes. */
export interface Guest {
  /** Refuses what cannot work, before the run. */
  check?(spec: GuestSpec): void;
  open(spec: GuestSpec): Promise<Learner>;
}

export type GuestPart = Part<'model', undefined, Guest>;

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
