// A pipeline's source and flow made real: parts become sources and stages, the stream runs, its events are told.

import { type FlowEvent, type FlowSummary, type Source, runFlow } from '../flow/index.js';
import type { ConsumeContext, FlowEntries } from '../flow/index.js';
import type { Processor } from '../data/processor.js';
import type { StageContext } from '../data/stages.js';
import type { Batch } from '../data/types.js';
import { messageOf } from '../errors.js';
import { isPart, make } from '../parts.js';
import { type RunEvent, rowName } from './events.js';

export interface SampleFlowOptions {
  /** A source or a part that makes one. */
  readonly source: unknown;
  /** Stages, RxJS operators, or parts that make stages; the last gives batches. */
  readonly flow: readonly unknown[];
  readonly limit?: (source: Source<unknown>) => Source<unknown>;
  readonly purpose: StageContext['purpose'];
  readonly processor: Processor;
  readonly poolBytes: number;
  readonly signal: AbortSignal;
  readonly inFlight?: number;
  readonly emit: (event: RunEvent) => void;
  readonly consume: (batch: Batch, context: ConsumeContext) => Promise<void>;
}

/** Runs samples from the source through the flow to `consume`, within the pool's bound. */
export async function sampleFlow(options: SampleFlowOptions): Promise<FlowSummary> {
  const { processor, purpose, limit, poolBytes, signal, consume, inFlight = 1, emit } = options;
  const source = isPart(options.source)
    ? (make(options.source, undefined) as Source<unknown>)
    : (options.source as Source<unknown>);
  const stages = options.flow.map((entry) =>
    isPart(entry) ? make(entry, { processor, purpose } satisfies StageContext) : entry,
  );
  return runFlow({
    source: limit ? limit(source) : source,
    stages: stages as unknown as FlowEntries<unknown, Batch>,
    poolBytes,
    inFlight,
    signal,
    consume: (batch, context) => consume(batch as Batch, context),
    onEvent: (event) => tell(event, emit),
  });
}

function tell(event: FlowEvent, emit: (event: RunEvent) => void): void {
  if (event.kind === 'quarantine') {
    const { origin, stage, error } = event;
    emit({ event: 'quarantine', row: rowName(origin), stage, error: messageOf(error) });
  }
}
