// The pipeline file's value: what a job is made of, decoded with every fault at once, each with its path.

import { freemem } from 'node:os';
import type { AnyEntry, FlowEntry, Source, Stage } from '../flow/index.js';
import type { Row } from '../data/types.js';
import type { ArrayBatch } from '../data/arrays.js';
import type { Batch } from '../data/types.js';
import type { StageContext } from '../data/stages.js';
import { type Part, isPart, part, withLeaf } from '../parts.js';
import { decode, z } from '../schema.js';
import { ConfigError } from '../errors.js';
import type { ModelOptions, StepOptions } from './options.js';
import { QUARANTINE, type QuarantineOptions } from './quarantine-limit.js';
import type { Sink } from './sink.js';

/** A stage that is made when the run starts, since it needs the model's processor. A and B are its value types. */
export type StagePart<A, B> = Part<'stage', StageContext, Stage<A, B>>;
export type SourcePart<T> = Part<'source', undefined, Source<T>>;
export type SinkPart = Part<'sink', PipelineContext, Sink>;

/** An entry of `flow`: a stage, an RxJS operator, or a part that becomes a stage. */
export type PipelineEntry<A, B> = FlowEntry<A, B> | StagePart<A, B>;

/** Up to eight entries, typed end to end; see `FlowEntries`. */
export type PipelineFlow<T, A, B = A, C = B, D = C, E = D, F = E, G = F, H = G> = readonly [
  PipelineEntry<T, A>,
  PipelineEntry<A, B>?,
  PipelineEntry<B, C>?,
  PipelineEntry<C, D>?,
  PipelineEntry<D, E>?,
  PipelineEntry<E, F>?,
  PipelineEntry<F, G>?,
  PipelineEntry<G, H>?,
];

/** What sinks are made from: the decoded job. */
export interface PipelineContext {
  readonly pipeline: Pipeline;
}

/** A decoded pipeline. */
export interface Pipeline {
  readonly name: string;
  /** Seeds the engine, and whatever is random and has no seed of its own. */
  readonly seed: number;
  readonly model: ModelOptions;
  readonly source?: Source<unknown> | Part<'source'>;
  readonly flow: readonly unknown[];
  readonly step?: StepOptions;
  readonly sinks: readonly SinkPart[];
  /** Bound on the bytes of all samples between the source and the device; where it is not given, what that begins with. */
  readonly poolBytes: number;
  /** What it may grow to while the step waits. Undefined where `poolBytes` is fixed. */
  readonly maxPoolBytes?: number | undefined;
  /** Bound on the bytes of the batches that are with the device at once, within `poolBytes`; none by default but their
   *  number. A bigger batch goes alone. */
  readonly deviceBytes?: number;
  /** Threads of the engine; the machine's cores by default. */
  readonly threads?: number;
  /** How many rows a run may lose. */
  readonly quarantine?: QuarantineOptions;
  /** How long a source may take for an item before the run fails with its name, ms; ten minutes by default. */
  readonly sourceTimeoutMs?: number;
}

const POOL_START_BYTES = 64 * 2 ** 20;
const MAX_POOL_BYTES = 2 ** 30;

const flowEntry = z.custom<unknown>(
  (value) =>
    typeof value === 'function' ||
    isPart(value, 'stage') ||
    (value !== null &&
      typeof value === 'object' &&
      typeof (value as { connect?: unknown }).connect === 'function'),
  'expected a stage or an RxJS operator',
);
const source = z.custom<unknown>(
  (value) =>
    isPart(value, 'source') ||
    (value !== null && typeof value === 'object' && typeof (value as { open?: unknown }).open === 'function'),
  'expected a source, such as parquet(...)',
);

/** Slots that take a part or a ready-made object: parts are checked by their own schema. */
function partOr(role: 'source' | 'stage', other: z.ZodType): z.ZodType {
  const checked = part(role);
  return z.unknown().transform((value, context) => {
    const result = (isPart(value, role) ? checked : other).safeParse(value, { reportInput: true });
    if (result.success) return result.data;
    for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
    return z.NEVER;
  });
}

export const sourceSlot = partOr('source', source) as z.ZodType<unknown, Source<unknown> | Part<'source'>>;
const entrySlot = partOr('stage', flowEntry) as z.ZodType<unknown, AnyEntry | Part<'stage'>>;
export const flowSlot = z.array(entrySlot).min(1).max(8);

const PIPELINE = z
  .strictObject({
    name: z.string().regex(/^[\w.-]+$/, 'expected letters, digits, "_", "-" and "."'),
    seed: z.int().min(0).default(0),
    model: part('model'),
    source: sourceSlot.optional(),
    flow: flowSlot,
    step: part('step').optional(),
    sinks: z.array(part('sink')).default([]),
    poolBytes: z.int().positive().optional(),
    maxPoolBytes: z.int().positive().optional(),
    deviceBytes: z.int().positive().optional(),
    threads: z.int().positive().optional(),
    quarantine: QUARANTINE,
    sourceTimeoutMs: z.number().positive().optional(),
  })
  .transform(({ poolBytes, maxPoolBytes, ...rest }) => {
    if (poolBytes !== undefined && maxPoolBytes === undefined) return { ...rest, poolBytes };
    const most = maxPoolBytes ?? Math.min(MAX_POOL_BYTES, Math.floor(freemem() / 2));
    return { ...rest, poolBytes: Math.min(poolBytes ?? POOL_START_BYTES, most), maxPoolBytes: most };
  });

/** What a pipeline file exports as its default: checked when it is run. */
export interface PipelineSpec<T, A, B = A, C = B, D = C, E = D, F = E, G = F, H = G> {
  readonly name: string;
  readonly seed?: number;
  readonly model: Part<'model'>;
  readonly source?: Source<T> | SourcePart<T>;
  readonly flow: PipelineFlow<T, A, B, C, D, E, F, G, H>;
  readonly step?: Part<'step'>;
  readonly sinks?: readonly SinkPart[];
  /** Fixes the pool. By default it begins with 64 MiB, or twice what the stages hold, and grows while the step waits for
   *  it, up to `maxPoolBytes`. */
  readonly poolBytes?: number;
  /** 1 GiB, at most a half of the memory that is free when the job is read. */
  readonly maxPoolBytes?: number;
  readonly deviceBytes?: number;
  readonly threads?: number;
  readonly quarantine?: QuarantineOptions;
  readonly sourceTimeoutMs?: number;
}

/** A fault in words, where a flow does not end in batches. */
type EndsInBatches<H> = [H] extends [Batch | ArrayBatch]
  ? unknown
  : { readonly flow: 'end the flow with batch({ size })' };

/** Declares a job. The value stays plain, so that another file can spread it: `pipeline({ ...sft, name: 'longer' })`. */
export function pipeline<T = Row, A = unknown, B = A, C = B, D = C, E = D, F = E, G = F, H = G>(
  spec: PipelineSpec<T, A, B, C, D, E, F, G, H> & EndsInBatches<NoInfer<H>>,
): PipelineSpec<T, A, B, C, D, E, F, G, H> {
  return spec;
}

/** Applies `--set` overrides and decodes.
 *  @param overrides 'key.path=value' each; a value is JSON where it parses as JSON, text otherwise. 'model=folder' is short for
 *    'model.path=folder'
 *  @throws {ConfigError} with every fault, of the overrides and of the file, a line each */
export function decodePipeline(spec: unknown, overrides: readonly string[], where: string): Pipeline {
  const faults: ConfigError[] = [];
  const collect = <T>(work: () => T, otherwise: T): T => {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      faults.push(error);
      return otherwise;
    }
  };
  const value = overrides.reduce((before, text) => collect(() => override(before, text), before), spec);
  const decoded = collect(() => decode(PIPELINE, value, where) as unknown as Pipeline, undefined);
  if (decoded && faults.length === 0) return decoded;
  throw new ConfigError(faults.map(({ message }) => message).join('\n'), { cause: faults[0] });
}

function override(spec: unknown, text: string): unknown {
  const equals = text.indexOf('=');
  if (equals > 0) {
    const [key, value] = [text.slice(0, equals), literal(text.slice(equals + 1))];
    return withLeaf(spec, key === 'model' && isPlace(spec, value) ? 'model.path' : key, value);
  }
  throw new ConfigError({
    where: `--set ${text}`,
    expected: 'key.path=value',
    received: equals < 0 ? 'no "="' : 'no key before "="',
    remedy: 'write for example --set step.maxSteps=100',
  });
}

/** Whether a model is given by its folder or repository, the rest of its options as they are. */
function isPlace(spec: unknown, value: unknown): boolean {
  const { model } = (spec ?? {}) as { readonly model?: unknown };
  return typeof value === 'string' && isPart(model, 'model') && 'path' in model;
}

function literal(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
