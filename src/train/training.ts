// The training part of a run: the stream of batches, from where a continued run stood, into steps.

import { DataError } from '../errors.js';
import type { FlowPosition, FlowSummary } from '../flow/index.js';
import type { SavedPosition } from './checkpoint.js';
import { readCeiling } from './ceiling-file.js';
import { type EndEvent, type QuarantineEvent, type RunEvent, rowWait } from './events.js';
import { type LoopOptions, TrainLoop } from './loop.js';
import type { Pipeline } from './pipeline.js';
import { type Declared, sampleFlow } from './sample-flow.js';
import type { RunContext } from './sink.js';

/** Batches that may be on their way to the device at once: one computing, one waiting. */
export const IN_FLIGHT = 2;

/** The stream that a pipeline trains on. */
export function trainingFlow(pipeline: Pipeline, processor: Declared['processor']): Declared {
  const { source, flow, poolBytes, maxPoolBytes, sourceTimeoutMs } = pipeline;
  return { where: '', source, flow, poolBytes, maxPoolBytes, sourceTimeoutMs, processor, purpose: 'train' };
}

export class Training {
  readonly #pipeline: Pipeline;
  readonly #context: RunContext;
  readonly #resumed: SavedPosition | undefined;
  readonly #loop: TrainLoop;
  readonly #startedAt: number;
  #summary: FlowSummary | undefined;
  #setupMs = 0;
  #firstQuarantined: QuarantineEvent | undefined;

  constructor(
    pipeline: Pipeline,
    context: RunContext,
    options: Pick<LoopOptions, 'device' | 'sinks'> & {
      /** When the run began, by `performance.now`. */
      readonly startedAt: number;
    },
    resumed?: SavedPosition,
  ) {
    this.#pipeline = pipeline;
    this.#context = context;
    this.#resumed = resumed;
    this.#startedAt = options.startedAt;
    this.#loop = new TrainLoop({
      ...options,
      maxSteps: pipeline.step?.maxSteps ?? 0,
      accumulate: pipeline.step?.accumulate ?? 1,
      firstStep: resumed?.step ?? 0,
      from: resumed?.stream,
    });
  }

  /** The last step whose update is done. */
  get lastStep(): number {
    return this.#loop.lastStep;
  }

  /** Where the stream stands behind that update. */
  get position(): FlowPosition | undefined {
    return this.#loop.position;
  }

  /** Trains to the end of the stream, to `maxSteps`, or until the signal is aborted.
   *  @throws {DataError} when the stream gave nothing to train on */
  async run(): Promise<void> {
    this.#setupMs = performance.now() - this.#startedAt;
    const { signal, processor } = this.#context;
    const log = (line: string) => this.#context.log(line);
    if (this.lastStep >= (this.#pipeline.step?.maxSteps ?? 0)) {
      log(`step ${this.lastStep} was the last one: nothing is left to train`);
      return;
    }
    await sampleFlow({
      ...trainingFlow(this.#pipeline, processor),
      signal,
      inFlight: IN_FLIGHT,
      deviceBytes: this.#pipeline.deviceBytes,
      from: this.#resumed?.stream,
      emit: (event) => this.#emit(event),
      quarantine: this.#context.quarantine,
      log,
      onEnd: (summary) => (this.#summary = summary),
      consume: (batch, context) => this.#loop.consume(batch, context),
    });
    await this.#loop.finish(signal.aborted ? 'give up' : 'update');
    if (!signal.aborted && !this.#resumed && this.#loop.numTrained === 0) throw this.#nothing();
  }

  /** Every sample accounted for, those before a run that is continued too. What was on its way when the run ended is
   *  dropped, and so is a step that was given up. */
  account(): Pick<EndEvent, 'ledger' | 'peakBytes' | 'waitMs' | 'waits' | 'slowest' | 'tuned'> {
    const { peakBytes = 0, waitMs = 0, waits = {}, slowest = [], tuned = {}, ledger } = this.#summary ?? {};
    const before = this.#resumed?.stream?.done ?? { issued: 0, dropped: 0, quarantined: 0 };
    const issued = before.issued + (ledger?.issued ?? 0);
    const quarantined = before.quarantined + (ledger?.quarantined ?? 0);
    const trained = before.issued - before.dropped - before.quarantined + this.#loop.numTrained;
    return {
      ledger: { issued, trained, dropped: issued - quarantined - trained, quarantined },
      peakBytes,
      waitMs,
      waits,
      slowest: slowest.map(rowWait),
      tuned,
    };
  }

  /** Where the time until now went.
   *  @param sinksAtEndMs of it, what the sinks took after the last step */
  time(sinksAtEndMs: number): Pick<EndEvent, 'seconds' | 'time' | 'feed' | 'mfu'> {
    const all = performance.now() - this.#startedAt;
    const { compute, sinks: between, tokens, mfu } = this.#loop.pace;
    const { waitMs: wait = 0 } = this.#summary ?? {};
    const [setup, sinks] = [this.#setupMs || all - sinksAtEndMs, between + sinksAtEndMs];
    const other = all - setup - compute - wait - sinks;
    const time = { setup, compute, wait, sinks, other };
    if (compute === 0) return { seconds: all / 1000, time };
    const perSecond = (ms: number): number => (1000 * tokens) / ms;
    const ceiling = readCeiling(this.#context.outDir)?.tokensPerSecond;
    const feed = {
      tokensPerSecond: perSecond(compute + wait + other),
      withoutWaits: perSecond(compute),
      ...(ceiling !== undefined && { ceiling }),
    };
    return { seconds: all / 1000, time, feed, ...(mfu !== undefined && { mfu }) };
  }

  #emit(event: RunEvent): void {
    if (event.event === 'quarantine') this.#firstQuarantined ??= event;
    this.#context.emit(event);
  }

  #nothing(): DataError {
    const { issued = 0, dropped = 0, quarantined = 0 } = this.#summary?.ledger ?? {};
    const first = this.#firstQuarantined;
    const reason = first && `; the first one is ${first.row}, in ${first.stage}: ${first.error}`;
    return new DataError({
      where: 'source',
      expected: 'at least one sample to train on',
      received:
        issued === 0 ? 'none' : `${issued}, of which ${quarantined} were quarantined and ${dropped} dropped`,
      remedy: `check the files of the source and the filters of the flow${reason ?? ''}`,
    });
  }
}
