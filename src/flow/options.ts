// Options that the operators share, and their checks.

import { FlowError } from '../errors.js';
import { Concurrency } from './concurrency.js';
import type { Origin, Stage, StageOf, Ticket } from './types.js';

/** What a user's function is told beside the value. */
export interface MapContext {
  /** Aborted when nobody waits for the result any more: the run was cancelled, or the time is up. */
  readonly signal: AbortSignal;
  /** The sample (of a batch: its first). */
  readonly origin: Origin;
  /** All samples in the value. */
  readonly origins: readonly Origin[];
}

export interface MapOptions<B> {
  /** Names the stage in quarantine events, waits and errors; the operator's name by default. */
  readonly name?: string;
  /** The most bytes that an output weighs for each sample in it, where that is more than the source's item weighed:
   *  reserved from admission on, so that the pool's bound holds. */
  readonly itemBytes?: number;
  /** What an output really weighs, in bytes (of a batch: all of it): frees what is not needed. */
  readonly weigh?: (value: B) => number;
}

export interface ParallelOptions<B> extends MapOptions<B> {
  /** How many samples at once; 4 by default. With `upTo` it begins there (or lower) and tunes itself while the consumer
   *  waits for this stage. */
  readonly concurrency?: number | { readonly upTo: number };
  /** A sample that takes longer is quarantined, and its signal aborted. No limit by default. */
  readonly timeoutMs?: number;
}

export const DEFAULT_CONCURRENCY = 4;

/** A stage's concurrency, checked: a number, or what tunes itself. */
export function concurrencyOf(
  name: string,
  given: ParallelOptions<unknown>['concurrency'] = DEFAULT_CONCURRENCY,
): number | Concurrency {
  if (typeof given === 'number') return checkCount(`${name}: concurrency`, given);
  return new Concurrency(name, DEFAULT_CONCURRENCY, checkCount(`${name}: concurrency.upTo`, given.upTo));
}

/** What a stage tells of its concurrency. */
export function concurrencyTraits(
  concurrency: number | Concurrency,
): Pick<Stage<never, unknown>, 'concurrency' | 'tunes'> {
  if (typeof concurrency === 'number') return { concurrency };
  return { concurrency: concurrency.value, tunes: concurrency };
}

/** A stage as its builder returns it. */
export function stageOf<A, B>(stage: Stage<A, B>): StageOf<A, B> {
  return stage as StageOf<A, B>;
}

/** @throws {FlowError} when a count is no positive whole number */
export function checkCount(where: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw wrongNumber(where, 'a positive whole number', value);
}

/** @throws {FlowError} when a number is not positive and finite */
export function checkPositive(where: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw wrongNumber(where, 'a positive number', value);
}

function wrongNumber(where: string, expected: string, value: number): FlowError {
  return new FlowError({ where, expected, received: String(value), remedy: 'correct this option' });
}

/** A context whose signal is made only when it is asked for. */
export class Call implements MapContext {
  private controller: AbortController | undefined;

  constructor(private readonly ticket: Ticket) {}

  get origin(): Origin {
    return this.ticket.origin;
  }

  get origins(): readonly Origin[] {
    return this.ticket.origins;
  }

  get signal(): AbortSignal {
    this.controller ??= new AbortController();
    return this.controller.signal;
  }

  abort(reason?: unknown): void {
    this.controller ??= new AbortController();
    this.controller.abort(reason);
  }
}
