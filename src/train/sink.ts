// A sink consumes a run's events: metrics, checkpoints, evaluation, reports. The loop knows only this interface.

import type { Batch } from '../data/types.js';
import type { Processor } from '../data/processor.js';
import type { RunEvent, StepEvent } from './events.js';

/** What the device can do for a sink between two steps. */
export interface SinkDevice {
  /** Greedy decoding: the new tokens of each row. */
  generate(batch: Batch, options: { maxNewTokens: number }): Promise<number[][]>;
  /** Writes a complete checkpoint into the run's folder and returns its path. */
  checkpoint(step: number, keep: number): Promise<string>;
}

/** What a run offers its sinks. */
export interface RunContext {
  readonly name: string;
  /** Folder of the run, made before any sink starts. */
  readonly outDir: string;
  readonly processor: Processor;
  readonly device: SinkDevice;
  readonly maxSteps: number | undefined;
  readonly signal: AbortSignal;
  /** Tells all sinks, in their order. */
  emit(event: RunEvent): void;
  /** A line for people; nothing under `--json`. */
  log(line: string): void;
}

export interface Sink {
  readonly name: string;
  start?(context: RunContext): void | Promise<void>;
  /** Any event of the run; must not block. */
  onEvent?(event: RunEvent): void;
  /** Whether this sink needs the device right after step `step`; the next step waits until `after` is done. */
  due?(step: number): boolean;
  after?(event: StepEvent): Promise<void>;
  /** The run is over, in good order or stopped (`reason` says how); the device still answers. */
  end?(lastStep: number, reason: 'complete' | 'stopped' | 'failed'): Promise<void>;
  /** Last of all, after every sink's `end`: close files, write reports. */
  close?(): void | Promise<void>;
}

/** True at every `every`-th step. */
export function everyNth(every: number | undefined): (step: number) => boolean {
  return (step) => every !== undefined && step % every === 0;
}
