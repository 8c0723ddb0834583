// All sinks of a run as one: what fails in one of them is told with its name, and does not keep an event from the others.

import type { Processor } from '../data/processor.js';
import { SluiceError, TrainError, messageOf } from '../errors.js';
import type { Outcome, RunEvent, StepEvent } from './events.js';
import type { RunContext, Sink, SinkStream } from './sink.js';

export class Sinks {
  readonly #sinks: readonly Sink[];
  /** Those whose `start` was called; only they are ended and closed. */
  readonly #started: Sink[] = [];

  constructor(sinks: readonly Sink[]) {
    this.#sinks = sinks;
  }

  async check({ processor }: { readonly processor: Processor }): Promise<void> {
    const metrics = this.#sinks.flatMap((sink) => sink.metrics ?? []);
    for (const sink of this.#sinks) await named(sink, () => sink.check?.({ processor, metrics }));
  }

  streams(context: { readonly processor: Processor }): SinkStream[] {
    return this.#sinks.flatMap((sink) => sink.streams?.(context) ?? []);
  }

  leftovers(outDir: string): string[] {
    return [...new Set(this.#sinks.flatMap((sink) => sink.leftovers?.(outDir) ?? []))];
  }

  async start(context: RunContext): Promise<void> {
    for (const sink of this.#sinks) {
      this.#started.push(sink);
      await named(sink, () => sink.start?.(context));
    }
  }

  /** @throws the first failure, after all sinks were told */
  emit(event: RunEvent): void {
    let first: { readonly error: unknown } | undefined;
    for (const sink of this.#started) {
      try {
        sink.onEvent?.(event);
      } catch (error) {
        first ??= { error: nameIn(error, sink) };
      }
    }
    if (first) throw first.error;
  }

  /** Whether any needs the device right after this step. */
  due(step: number): boolean {
    return this.#started.some((sink) => sink.due?.(step));
  }

  async after(event: StepEvent): Promise<void> {
    for (const sink of this.#inTurn()) {
      if (sink.due?.(event.step)) await named(sink, () => sink.after?.(event));
    }
  }

  /** @param onError gets what each sink throws */
  async end(lastStep: number, outcome: Outcome, onError: (error: unknown) => void): Promise<void> {
    for (const sink of this.#inTurn()) {
      await named(sink, () => sink.end?.(lastStep, outcome)).catch(onError);
    }
  }

  /** In their order, those that come after the others last. */
  #inTurn(): Sink[] {
    return this.#started.toSorted((a, b) => Number(a.afterOthers ?? false) - Number(b.afterOthers ?? false));
  }

  /** The last to start is the first to close. */
  async close(onError: (error: unknown) => void): Promise<void> {
    for (const sink of this.#started.toReversed()) await named(sink, () => sink.close?.()).catch(onError);
  }
}

async function named(sink: Sink, work: () => unknown): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw nameIn(error, sink);
  }
}

/** Our errors say where they come from; others get the sink's name. */
function nameIn(error: unknown, { name }: Sink): unknown {
  if (error instanceof SluiceError) return error;
  return new TrainError(
    {
      where: `sink ${name}`,
      expected: 'it to take what it is given',
      received: messageOf(error),
      remedy: 'see the cause, or leave the sink out',
    },
    { cause: error },
  );
}
