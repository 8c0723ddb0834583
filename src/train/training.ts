// The training part of a run: the stream of batches, those that a continued run has behind it left out, into steps.

import { ConfigError, DataError } from '../errors.js';
import type { FlowSummary } from '../flow/index.js';
import type { SavedPosition } from './checkpoint.js';
import type { EndEvent, QuarantineEvent, RunEvent } from './events.js';
import { type LoopOptions, TrainLoop } from './loop.js';
import type { Pipeline } from './pipeline.js';
import { type Declared, sampleFlow } from './sample-flow.js';
import type { RunContext } from './sink.js';

/** Batches that may be on their way to the device at once: one computing, one waiting. */
const IN_FLIGHT = 2;

/** The stream that a pipeline trains on. */
export function trainingFlow(pipeline: Pipeline, processor: Declared['processor']): Declared {
  const { source, flow, poolBytes } = pipeline;
  return { where: '', source, flow, poolBytes, processor, purpose: 'train' };
}

export class Training {
  readonly #pipeline: Pipeline;
  readonly #context: RunContext;
  readonly #resumed: SavedPosition | undefined;
  readonly #loop: TrainLoop;
  #summary: FlowSummary | undefined;
  #firstQuarantined: QuarantineEvent | undefined;
  /** Samples of batches that were trained before the checkpoint. */
  #numSkipped = 0;

  constructor(
    pipeline: Pipeline,
    context: RunContext,
    options: Pick<LoopOptions, 'device' | 'sinks'>,
    resumed?: SavedPosition,
  ) {
    this.#pipeline = pipeline;
    this.#context = context;
    this.#resumed = resumed;
    this.#loop = new TrainLoop({
      ...options,
      maxSteps: pipeline.step?.maxSteps ?? 0,
      accumulate: pipeline.step?.accumulate ?? 1,
      firstStep: resumed?.step ?? 0,
    });
  }

  /** The last step whose update is done. */
  get lastStep(): number {
    return this.#loop.lastStep;
  }

  /** Trains to the end of the stream, to `maxSteps`, or until the signal is aborted.
   *  @throws {DataError} when the stream gave nothing to train on */
  async run(): Promise<void> {
    const { signal, processor } = this.#context;
    const log = (line: string) => this.#context.log(line);
    if (this.lastStep >= (this.#pipeline.step?.maxSteps ?? 0)) {
      log(`step ${this.lastStep} was the last one: nothing is left to train`);
      return;
    }
    let toSkip = this.#resumed?.batches ?? 0;
    await sampleFlow({
      ...trainingFlow(this.#pipeline, processor),
      signal,
      inFlight: IN_FLIGHT,
      emit: (event) => this.#emit(event),
      log,
      onEnd: (summary) => (this.#summary = summary),
      consume: async (batch, context) => {
        if (toSkip === 0) return this.#loop.consume(batch, context);
        toSkip -= 1;
        this.#numSkipped += context.origins.length;
      },
    });
    await this.#loop.finish(signal.aborted ? 'give up' : 'update');
    if (signal.aborted) return;
    if (toSkip >= (this.#pipeline.step?.accumulate ?? 1)) throw this.#shorter(toSkip);
    if (this.#numSkipped + this.#loop.numTrained === 0) throw this.#nothing();
  }

  /** Every sample accounted for. What was on its way when the run ended is dropped, and so is a step that was given up. */
  account(): Pick<EndEvent, 'ledger' | 'peakBytes' | 'waitMs'> {
    const { peakBytes = 0, waitMs = 0, ledger } = this.#summary ?? {};
    const { issued = 0, quarantined = 0 } = ledger ?? {};
    const trained = this.#numSkipped + this.#loop.numTrained;
    return {
      ledger: { issued, trained, dropped: issued - quarantined - trained, quarantined },
      peakBytes,
      waitMs,
    };
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

  #shorter(missing: number): ConfigError {
    const { step = 0, batches = 0 } = this.#resumed ?? {};
    return new ConfigError({
      where: '--resume',
      expected: `a stream of more than the ${batches} batches that were trained before step ${step}`,
      received: `${batches - missing}`,
      remedy: 'continue with the same source and flow',
    });
  }
}
