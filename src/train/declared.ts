// A stream of samples as a pipeline, or one of its sinks, declares it.

import type { Processor } from '../data/processor.js';
import type { StageContext } from '../data/stages.js';

/** A stream as a pipeline declares it. */
export interface Declared {
  /** The path of the declaration, for messages: '' for the pipeline itself, 'evaluation: ' for a sink's. */
  readonly where: string;
  /** A source or a part that makes one. */
  readonly source: unknown;
  /** Stages, RxJS operators, or parts that make stages; the last gives batches. */
  readonly flow: readonly unknown[];
  readonly purpose: StageContext['purpose'];
  readonly processor: Processor;
  readonly poolBytes: number;
  /** How long the source may take for an item, ms; ten minutes by default. */
  readonly sourceTimeoutMs?: number | undefined;
  /** What the pool may grow to; left out, it is fixed. */
  readonly maxPoolBytes?: number | undefined;
}
