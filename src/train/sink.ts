// A sink consumes a run's events: metrics, checkpoints, evaluation, reports. The loop knows only this interface.

import type { Batch } from '../data/types.js';
import type { Processor } from '../data/processor.js';
import type { Outcome, RunEvent, StepEvent } from './events.js';

/** What the device can do for a sink between two steps. */
export interface SinkDevice {
  /** Greedy decoding: the new tokens of each row. The batch's arrays move to the device; they are empty here afterwards.
   *  @throws the signal's reason when it is aborted */
  generate(batch: Batch, options: { maxNewTokens: number; signal?: AbortSignal }): Promise<number[][]>;
  /** Writes a complete checkpoint of the last update into the run's folder, and removes the oldest beyond `keep`. */
  checkpoint(options?: { keep?: number }): Promise<{ step: number; path: string }>;
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
  readonly signal: AbortSignal;
  /** Tells all sinks, in their order. */
  emit(event: RunEvent): void;
  /** A line for people; on stderr under `--json`. */
  log(line: string): void;
}

export interface Sink {
  readonly name: string;
  /** Before the run, and before anything costly: refuses what cannot work, such as a source that is not there. */
  check?(context: { readonly processor: Processor }): void | Promise<void>;
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
