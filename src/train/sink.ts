// A sink consumes a run's events: metrics, checkpoints, evaluation, reports. The loop knows only this interface.

import type { Batch } from '../data/types.js';
import type { Processor } from '../data/processor.js';
import { z } from '../schema.js';
import type { FlowPosition } from '../flow/index.js';
import type { Declared } from './declared.js';
import type { PendingCheckpoint } from './checkpoint-writing.js';
import type { Outcome, RunEvent, StepEvent } from './events.js';
import type { QuarantineBook } from './quarantine-book.js';
import type { WriteOptions } from './snapshot.js';

/** What the device can do for a sink between two steps. */
export interface SinkDevice {
  /** Greedy decoding: the new tokens of each row. The batch's arrays move to the device; they are empty here afterwards.
   *  @throws the signal's reason when it is aborted */
  generate(batch: Batch, options: { maxNewTokens: number; signal?: AbortSignal }): Promise<number[][]>;
  /** The model's answer to each sample in words: greedy decoding, or what a guest predicts.
   *  @throws the signal's reason when it is aborted */
  answer(batch: Batch, options: { maxNewTokens: number; signal?: AbortSignal }): Promise<string[]>;
  /** Writes a complete checkpoint of the last update into the run's folder, and removes the oldest beyond `keep`.
   *  @param options asked for, where they are a function, once no other checkpoint is being written
   *  @throws {CheckpointError} when it cannot be written; those of before are intact */
  checkpoint(options?: WriteOptions | (() => WriteOptions)): Promise<{ step: number; path: string }>;
  /** The same in the background: resolves when what changes is copied in memory, and training may go on. */
  beginCheckpoint(options?: WriteOptions | (() => WriteOptions)): Promise<PendingCheckpoint>;
  /** Writes best.json, and removes what is not to stay beside the complete checkpoint of a step.
   *  @throws {CheckpointError} when that cannot be done */
  settleCheckpoints(step: number, options: WriteOptions): Promise<void>;
  /** The most bytes of the host's memory that a checkpoint's copy takes. */
  readonly snapshotBytes: number;
}

/** What a run offers its sinks. */
export interface RunContext {
  readonly name: string;
  /** Folder of the run, made before any sink starts. */
  readonly outDir: string;
  readonly processor: Processor;
  readonly device: SinkDevice;
  readonly maxSteps: number | undefined;
  /** The step of the checkpoint that this run continues; undefined in a new run. */
  readonly resumedAt: number | undefined;
  /** Where the training's stream stood behind that step; undefined at its beginning. */
  readonly resumedFrom: FlowPosition | undefined;
  /** For streams of a sink's own: takes down rows that they lose. */
  readonly quarantine: QuarantineBook;
  readonly signal: AbortSignal;
  /** Tells all sinks, in their order. */
  emit(event: RunEvent): void;
  /** A line for people; on stderr under `--json`. */
  log(line: string): void;
  /** A line for people about what went wrong though the run goes on; on stderr. */
  warn(line: string): void;
}

/** A stream that a sink runs. */
export interface SinkStream {
  readonly name: string;
  readonly declared: Declared;
  /** Samples after which it is stopped. */
  readonly limit: number | undefined;
}

/** What is known before a run. */
export interface CheckContext {
  readonly processor: Processor;
  /** All scores that sinks name; see `Sink.metrics`. */
  readonly metrics: readonly string[];
}

/** What becomes of a run whose sink fails: it stops ('stop'), or goes on without the sink and tells so by an event
 *  ('detach'). */
export type SinkOnError = 'stop' | 'detach';

/** The option of sinks that says so. */
export const ON_ERROR = z.enum(['stop', 'detach']).default('stop');

export interface Sink {
  readonly name: string;
  /** 'stop' by default. A detached sink is told nothing more; what it has written stays. */
  readonly onError?: SinkOnError;
  /** Before the run, and before anything costly: refuses what cannot work, such as a source that is not there. */
  check?(context: CheckContext): void | Promise<void>;
  /** Names of the scores that its `eval` events hold, 'evaluation/score'; one that ends in '*' stands for all
   *  that begin so. */
  readonly metrics?: readonly string[];
  /** Its `after` and `end` come behind those of all others, whose events of the same step it has then. */
  readonly afterOthers?: boolean;
  /** The streams of samples that it runs beside the training, for a plan of the run. */
  streams?(context: { readonly processor: Processor }): readonly SinkStream[];
  /** Names of files and folders in the run's folder that an earlier run left and this sink's must not mix with. A new run
   *  puts them aside before it starts its sinks. */
  leftovers?(outDir: string): readonly string[];
  start?(context: RunContext): void | Promise<void>;
  /** Any event of the run; must not block. */
  onEvent?(event: RunEvent): void;
  /** Whether this sink needs the device right after step `step`; the next step waits until `after` is done. */
  due?(step: number): boolean;
  after?(event: StepEvent): Promise<void>;
  /** The run is over, in good order or not; the device still answers, unless it is what failed. */
  end?(lastStep: number, outcome: Outcome): Promise<void>;
  /** Last of all, after every sink's `end`: close files, write reports. */
  close?(): void | Promise<void>;
}

/** True at every `every`-th step. */
export function everyNth(every: number | undefined): (step: number) => boolean {
  return (step) => every !== undefined && step % every === 0;
}
