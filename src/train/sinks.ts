// All sinks of a run as one: what fails in one of them is told with its name, and does not keep an event from the others.
// One that is declared so is left behind when it fails, and that is told; one that is slow is named.

import type { Processor } from '../data/processor.js';
import { SluiceError, TrainError, messageOf } from '../errors.js';
import type { Outcome, RunEvent, StepEvent } from './events.js';
import type { RunContext, Sink, SinkStream } from './sink.js';

/** When a sink is named for the time that it takes, in milliseconds; again each time that this has doubled. */
export interface SlowSinks {
  /** Over one event. 1000 by default. */
  readonly eventMs?: number;
  /** Over its work after a step, while it lasts. 60,000 by default. */
  readonly stepMs?: number;
}

export class Sinks {
  readonly #sinks: readonly Sink[];
  readonly #slow: Required<SlowSinks>;
  /** Those whose `start` was called; only they are ended and closed. */
  readonly #started: Sink[] = [];
  readonly #detached = new Set<Sink>();
  /** The time over one event from which on a sink is named again. */
  readonly #named = new Map<Sink, number>();
  /** What a sink threw that stops the run: another sink that told it the event is not to blame. */
  readonly #fatal = new WeakSet<object>();
  #warn: (line: string) => void = () => {};

  constructor(sinks: readonly Sink[], { eventMs = 1000, stepMs = 60_000 }: SlowSinks = {}) {
    this.#sinks = sinks;
    this.#slow = { eventMs, stepMs };
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
    this.#warn = (line) => context.warn(line);
    for (const sink of this.#sinks) {
      this.#started.push(sink);
      await this.#run(sink, () => sink.start?.(context));
    }
  }

  /** @throws the first failure that stops the run, after all sinks were told */
  emit(event: RunEvent): void {
    let first: { readonly error: unknown } | undefined;
    for (const sink of this.#started) {
      if (this.#detached.has(sink)) continue;
      const begun = performance.now();
      try {
        sink.onEvent?.(event);
      } catch (error) {
        try {
          this.#failed(sink, error);
        } catch (fatal) {
          first ??= { error: fatal };
        }
      }
      const tookMs = performance.now() - begun;
      if (tookMs >= (this.#named.get(sink) ?? this.#slow.eventMs)) {
        this.#named.set(sink, 2 * tookMs);
        this.#warn(
          `sink ${sink.name} took ${seconds(tookMs)} over one event (${event.event}): the run waits for it`,
        );
      }
    }
    if (first) throw first.error;
  }

  /** Whether any needs the device right after this step. */
  due(step: number): boolean {
    return this.#attached().some((sink) => sink.due?.(step));
  }

  async after(event: StepEvent): Promise<void> {
    for (const sink of this.#inTurn()) {
      if (sink.due?.(event.step) !== true) continue;
      await this.#run(sink, () => sink.after?.(event), `step ${event.step}`);
    }
  }

  /** @param onError gets what each sink throws that may stop a run */
  async end(lastStep: number, outcome: Outcome, onError: (error: unknown) => void): Promise<void> {
    for (const sink of this.#inTurn()) {
      await this.#run(sink, () => sink.end?.(lastStep, outcome), 'the end of the run').catch(onError);
    }
  }

  /** The last to start is the first to close. Detached ones are closed too: they may hold files. */
  async close(onError: (error: unknown) => void): Promise<void> {
    for (const sink of this.#started.toReversed()) {
      const wasDetached = this.#detached.has(sink);
      await this.#run(sink, () => sink.close?.()).catch((error: unknown) => {
        if (wasDetached) this.#warn(`sink ${sink.name} could not be closed: ${messageOf(error)}`);
        else onError(error);
      });
    }
  }

  #attached(): Sink[] {
    return this.#started.filter((sink) => !this.#detached.has(sink));
  }

  /** In their order, those that come after the others last. */
  #inTurn(): Sink[] {
    return this.#attached().sort((a, b) => Number(a.afterOthers ?? false) - Number(b.afterOthers ?? false));
  }

  /** @param held what waits for it meanwhile, for who is told */
  async #run(sink: Sink, work: () => unknown, held?: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const watch = (ms: number): void => {
      timer = setTimeout(() => {
        this.#warn(`sink ${sink.name} has held ${held} for ${seconds(ms)}, and is not done`);
        watch(2 * ms);
      }, ms).unref();
    };
    if (held !== undefined) watch(this.#slow.stepMs);
    try {
      await work();
    } catch (error) {
      this.#failed(sink, error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Leaves the sink behind, where it is declared so. @throws its error, with its name, where it is not */
  #failed(sink: Sink, error: unknown): void {
    const isOthers = typeof error === 'object' && error !== null && this.#fatal.has(error);
    if (isOthers || sink.onError !== 'detach' || this.#detached.has(sink)) {
      const fatal = nameIn(error, sink);
      if (typeof fatal === 'object' && fatal !== null) this.#fatal.add(fatal);
      throw fatal;
    }
    this.#detached.add(sink);
    this.emit({ event: 'detach', sink: sink.name, error: messageOf(error) });
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
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
