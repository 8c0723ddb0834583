// A pipeline's source and flow made real: parts become sources and stages, the stream runs, its events are told.

import { ConfigError, messageOf } from '../errors.js';
import {
  type FlowEvent,
  type FlowSummary,
  type Source,
  checkBounds,
  runFlow,
  stagesOf,
  timeoutSource,
} from '../flow/index.js';
import type { ConsumeContext, FlowEntries, FlowPosition } from '../flow/index.js';
import { auditMedia } from '../data/media-audit.js';
import { itemAt } from '../data/row-again.js';
import type { StageContext } from '../data/stages.js';
import type { ArrayBatch } from '../data/arrays.js';
import type { Processor } from '../data/processor.js';
import type { Batch } from '../data/types.js';
import { type Part, isPart, make } from '../parts.js';
import type { Declared } from './declared.js';
import { type QuarantineEvent, type RunEvent, rowName, rowWait } from './events.js';
import { isGuestProcessor } from './guest.js';
import { Notices } from './notices.js';
import { type QuarantineBook, TRAIN_STREAM } from './quarantine-book.js';

/** A source that takes longer for an item is taken for one that will not answer. */
const SOURCE_TIMEOUT_MS = 600_000;

export type { Declared };

export interface SampleFlowOptions extends Declared {
  readonly signal: AbortSignal;
  readonly inFlight?: number;
  /** Bound on the bytes of the batches that are with `consume` at once. */
  readonly deviceBytes?: number | undefined;
  /** Goes on behind this position of an earlier run. */
  readonly from?: FlowPosition | undefined;
  readonly emit: (event: RunEvent) => void;
  /** Names the stream in its quarantine events; 'train' by default. */
  readonly stream?: string;
  /** The step that an evaluation follows. */
  readonly step?: number;
  /** Takes down rows that are quarantined, and stops a run that loses too many. */
  readonly quarantine?: QuarantineBook;
  /** Keeps what was told, for a stream that is run again. */
  readonly notices?: Notices;
  readonly log: (line: string) => void;
  readonly consume: (batch: Batch, context: ConsumeContext) => Promise<void>;
  /** Gets the account also of a run that fails. */
  readonly onEnd?: (summary: FlowSummary) => void;
}

/** Refuses what cannot run, before anything runs: a pool smaller than what the stages hold, files that are missing or
 *  lack a column.
 *  @throws {ConfigError} with the numbers, or what the source's check throws */
export async function checkFlow(declared: Declared): Promise<void> {
  const source = sourceOf(declared);
  try {
    checkBounds(source, stagesOf(stagesFrom(declared)), declared.maxPoolBytes ?? declared.poolBytes);
  } catch (cause) {
    throw new ConfigError(`${declared.where}${messageOf(cause)}`, { cause });
  }
  const { plan } = source as { plan?: unknown };
  if (typeof plan === 'function') await plan.call(source);
}

/** Runs samples from the source through the flow to `consume`, within the pool's bound. */
export async function sampleFlow(options: SampleFlowOptions): Promise<FlowSummary> {
  const {
    where,
    poolBytes,
    maxPoolBytes,
    deviceBytes,
    signal,
    inFlight = 1,
    from,
    notices = new Notices(),
    emit,
    consume,
  } = options;
  const source = sourceOf(options);
  const stages = stagesOf(stagesFrom(options, (notice) => notices.take(notice, emit)));
  return runFlow({
    source: timeoutSource(source, options.sourceTimeoutMs ?? SOURCE_TIMEOUT_MS),
    stages: auditMedia(stages, options) as unknown as FlowEntries<unknown, unknown>,
    poolBytes,
    maxPoolBytes,
    inFlight,
    ...(deviceBytes !== undefined && { deviceBytes }),
    signal,
    ...(from && { from }),
    consume: (value, context) => consume(asBatch(value, where, options.processor), context),
    onEvent: (event) => {
      if (event.kind === 'end') {
        notices.end(emit);
        logSummary(source, options);
      }
      tell(event, source, options);
    },
  });
}

/** What the source has to tell about what it gave, such as the shares of a mix. */
function logSummary(source: Source<unknown>, { where, log }: SampleFlowOptions): void {
  const { summary } = source as { summary?: unknown };
  if (typeof summary === 'function') log(`${where}${String(summary.call(source))}`);
}

/** The source of a declaration, made. */
export function sourceOf({ source }: Pick<Declared, 'source'>): Source<unknown> {
  return (
    isPart(source) ? make(source as Part<'source', undefined, Source<unknown>>, undefined) : source
  ) as Source<unknown>;
}

/** The entries of a declaration, parts made. */
export function stagesFrom(
  { flow, processor, purpose }: Pick<Declared, 'flow' | 'processor' | 'purpose'>,
  onNotice?: StageContext['onNotice'],
): never[] {
  const context: StageContext = { processor, purpose, ...(onNotice && { onNotice }) };
  return flow.map((entry) =>
    isPart(entry) ? make(entry as Part<'stage', StageContext>, context) : entry,
  ) as never[];
}

/** @throws {ConfigError} when the flow gives something else */
export function asBatch(value: unknown, where: string, processor?: Processor): Batch {
  const isGuests = processor !== undefined && isGuestProcessor(processor);
  if (isGuests && isArrayBatch(value)) return { numTokens: 0, ...value } as unknown as Batch;
  const { inputIds, attentionMask } = (value ?? {}) as Partial<Batch>;
  if (inputIds?.shape && attentionMask?.shape) return value as Batch;
  throw new ConfigError({
    where: `${where}flow`,
    expected: 'its last entry to give batches',
    received: value === null ? 'null' : typeof value,
    remedy: isGuests ? 'end it with arrays({ size: 16 })' : 'end it with encode() and batch({ size: 16 })',
  });
}

/** One that the run hands on, as it would a batch of tokens: its learner alone looks into it. */
function isArrayBatch(value: unknown): value is ArrayBatch {
  const { arrays, numSamples } = (value ?? {}) as Partial<ArrayBatch>;
  return typeof arrays === 'object' && typeof numSamples === 'number';
}

/** Quarantined rows are events; what else people should know is a line. */
function tell(event: FlowEvent, source: Source<unknown>, options: SampleFlowOptions): void {
  const { where, emit, log, onEnd } = options;
  switch (event.kind) {
    case 'quarantine':
      return tellQuarantined(event, source, options);
    case 'oversize':
      return log(
        event.pool === 'host'
          ? `${where}${rowName(event.origin)} weighs ${event.bytes} bytes, more than ${event.limit}: it was let through alone`
          : `${where}the batch that begins with ${rowName(event.origin)} weighs ${event.bytes} bytes, more than ${event.limit}: it went to the device alone`,
      );
    case 'detach':
      return emit({
        event: 'detach',
        sink: `${where}${event.stage}`,
        error: messageOf(event.error),
        row: rowName(event.origin),
      });
    case 'stall': {
      const wait = rowWait(event);
      return emit({ event: 'stall', ...wait, stage: `${where}${wait.stage}` });
    }
    case 'unordered':
      return log(`${where}${event.stage} lets samples overtake each other: this run is not reproducible`);
    case 'end':
      return onEnd?.(event.summary);
    default:
      event satisfies never;
  }
}

/** Written down, told, and then counted against the limit: what stops a run is among what it told. */
function tellQuarantined(
  { origin, item, part, cursor, stage, error }: Extract<FlowEvent, { kind: 'quarantine' }>,
  source: Source<unknown>,
  { emit, stream = TRAIN_STREAM, step, quarantine }: SampleFlowOptions,
): void {
  const event: QuarantineEvent = {
    event: 'quarantine',
    row: rowName(origin),
    stage,
    error: messageOf(error),
    stream,
    item,
    part,
    ...(step !== undefined && { step }),
  };
  quarantine?.take(event, origin, cursor === undefined ? undefined : () => itemAt(source, cursor, origin));
  emit(event);
  if (stream === TRAIN_STREAM) quarantine?.judge(event);
}
