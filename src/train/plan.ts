// The plan of a run: what a pipeline will make of its data, found out without a device and before anything is trained.

import { ConfigError, DataError } from '../errors.js';
import type { DownloadProgress } from '../hub/index.js';
import type { AnyStage } from '../flow/index.js';
import { make } from '../parts.js';
import { checkPipeline } from './check.js';
import { rowName } from './events.js';
import { withModelFolder } from './model-folder.js';
import { refuseGuest } from './guest.js';
import { type Pipeline, type PipelineSpec, decodePipeline } from './pipeline.js';
import { checkpointBytes } from './plan-checkpoint.js';
import { forecastStalls } from './plan-stalls.js';
import { type PlannedStream, type PlanStreamOptions, endless, planStream } from './plan-stream.js';
import type { FlowForecast, StallReport, StreamForecast, TrainingForecast } from './plan-types.js';
import { Sinks } from './sinks.js';
import type { StepOptions } from './options.js';
import { IN_FLIGHT, trainingFlow } from './training.js';

export interface PlanOptions {
  /** `key.path=value` each, as `--set` takes them. */
  readonly set?: readonly string[];
  /** Decode all media: corrupt pixels and sound are then found as the run would find them. */
  readonly thorough?: boolean;
  /** Count the first epoch to its end also where step.maxSteps ends the training before; true by default. */
  readonly wholeEpoch?: boolean;
  /** Time of a step on the device, ms (all its batches). With it the step's waits are foretold. */
  readonly stepMs?: number;
  /** Time of a sample in each stage, by the stage's name, ms; 0 for those left out. */
  readonly stageMs?: Readonly<Record<string, number>>;
  /** Time of a sample in the source, ms. */
  readonly sourceMs?: number;
  /** Use an earlier scan of the same data, and keep this one beside the data; true by default. */
  readonly cache?: boolean;
  /** Where a scan is kept that cannot be written beside its data. */
  readonly cacheFolder?: string;
  /** A digest of the code that the pipeline's functions call. Without it a kept scan is told outdated by the functions' own
   *  text alone. */
  readonly code?: string;
  readonly signal?: AbortSignal;
  readonly log?: (line: string) => void;
  readonly onDownload?: (progress: DownloadProgress) => void;
}

/** Plans a run of a pipeline, as `pipe plan` does.
 *  @param spec what a pipeline file exports; a source that can be iterated only once is used up
 *  @throws {ConfigError} for what is wrong with the pipeline, {DataError} {FlowError} {TextError} for what cannot run
 *  @example const { training } = await planPipeline(pipeline({ ... })); training?.batches */
export async function planPipeline(
  spec: PipelineSpec<never, never, never, never, never, never, never, never, never> | object,
  { set = [], ...options }: PlanOptions = {},
): Promise<StreamForecast> {
  return planDecoded(decodePipeline(spec, set, 'pipeline'), options);
}

/** `planPipeline` of a decoded pipeline. */
export async function planDecoded(
  declared: Pipeline,
  options: Omit<PlanOptions, 'set'> = {},
): Promise<StreamForecast> {
  const { signal = new AbortController().signal, log = () => undefined, onDownload } = options;
  refuseGuest(declared, 'plan');
  const pipeline = await modelOf(declared, { signal, log, onProgress: onDownload });
  const sinks = new Sinks(pipeline.sinks.map((sink) => make(sink, { pipeline })));
  const processor = await checkPipeline(pipeline, sinks);
  const shared = {
    thorough: options.thorough ?? false,
    modelFolder: pipeline.model.path,
    code: options.code ?? '',
    userFolder: options.cacheFolder,
    cache: options.cache ?? true,
    signal,
  };

  const { step } = pipeline;
  const stream = trainingFlow(pipeline, processor);
  const planned =
    step &&
    (await planStream({
      ...shared,
      declared: stream,
      deviceBytes: pipeline.deviceBytes,
      inFlight: IN_FLIGHT,
      maxBatches: step.maxSteps * step.accumulate,
      wholeEpoch: options.wholeEpoch ?? true,
      keepsOrigins: options.stepMs !== undefined,
      madePerBatch: (before) => madePerBatch(before, step.accumulate, options),
    }));
  const copy = planned && (await checkpointBytes(pipeline, planned.forecast));
  const training = planned && step && copy ? trained(planned, step, copy, options) : null;

  const evaluations = [];
  for (const { name, declared: evaluated, limit } of sinks.streams({ processor })) {
    if (limit === undefined && (evaluated.source as { epochs?: unknown }).epochs === Infinity) {
      throw endless(evaluated);
    }
    const { forecast } = await planStream({
      ...shared,
      declared: evaluated,
      inFlight: 1,
      maxSamples: limit,
      wholeEpoch: false,
      keepsOrigins: false,
    } satisfies PlanStreamOptions);
    refuseNothing(name, forecast);
    evaluations.push({ name, ...forecast });
  }
  return { name: pipeline.name, training, evaluations };
}

/** Only configuration and processor are needed: weights stay where they are. */
async function modelOf(
  pipeline: Pipeline,
  options: Parameters<typeof withModelFolder>[1],
): Promise<Pipeline> {
  const { weights } = pipeline.model;
  const resolved = await withModelFolder(
    { ...pipeline, model: { ...pipeline.model, weights: 'random' } },
    options,
  );
  return { ...resolved, model: { ...resolved.model, weights } };
}

function trained(
  planned: PlannedStream,
  step: StepOptions,
  copy: Awaited<ReturnType<typeof checkpointBytes>>,
  options: PlanOptions,
): TrainingForecast {
  const { forecast, epoch, complete } = planned;
  const { maxSteps, accumulate } = step;
  refuseNothing('source', forecast);
  const { notes, ...rest } = forecast;
  const unread =
    epoch === null && options.wholeEpoch !== false
      ? ['one time through the data was not counted: the source does not tell its epochs, or ends later']
      : [];
  return {
    ...rest,
    steps: Math.min(maxSteps, Math.ceil(forecast.batches / accumulate)),
    maxSteps,
    accumulate,
    endsBy: complete && forecast.batches < maxSteps * accumulate ? 'source' : 'maxSteps',
    checkpointBytes: copy.bytes,
    wholePeakBytes: forecast.peakBytes + (copy.bytes ?? 0),
    epoch,
    stalls: options.stepMs === undefined ? null : stallsOf(planned, accumulate, options.stepMs, options),
    notes: [...notes, ...unread, ...(copy.note === undefined ? [] : [copy.note])],
  };
}

/** By the given times, of the slowest that a sample passes. */
function madePerBatch(
  stages: readonly AnyStage[],
  accumulate: number,
  { stepMs, stageMs = {}, sourceMs = 0 }: PlanOptions,
): number | undefined {
  if (stepMs === undefined) return undefined;
  const slowest = Math.max(
    sourceMs,
    ...stages.map(({ name, concurrency = 1 }) => (stageMs[name] ?? 0) / concurrency),
  );
  return slowest > 0 ? stepMs / accumulate / slowest : undefined;
}

/** As the run refuses it, when it is over. @throws {DataError} */
function refuseNothing(
  where: string,
  { samples, items, quarantined, dropped, quarantinedRows }: FlowForecast,
): void {
  if (samples > 0) return;
  const [first] = quarantinedRows;
  const reason = first ? `; the first one is ${first.row}, in ${first.stage}: ${first.error}` : '';
  throw new DataError({
    where,
    expected: 'at least one sample',
    received: items === 0 ? 'none' : `${quarantined} that were quarantined and ${dropped} that were dropped`,
    remedy: `check the files of the source and the filters of the flow${reason}`,
  });
}

function stallsOf(
  { tally, totals, stages, sourceName, forecast }: PlannedStream,
  accumulate: number,
  stepMs: number,
  { stageMs = {}, sourceMs = 0 }: PlanOptions,
): StallReport {
  const names = stages.map(({ name }) => name);
  const unknown = Object.keys(stageMs).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new ConfigError({
      where: 'stageMs',
      expected:
        names.length > 0 ? `stages before the batch: ${names.join(', ')}` : 'no stage before the batch',
      received: unknown,
      remedy: "use a stage's name",
    });
  }
  const { firstBatchMs, first, waitShare, limit } = forecastStalls({
    source: { name: sourceName, ms: sourceMs },
    stages: stages.map(({ name, concurrency = 1 }) => ({ name, concurrency, ms: stageMs[name] ?? 0 })),
    stepMs: stepMs / accumulate,
    samplesPerBatch: tally.batchSizes.slice(0, totals.batches),
    bytesPerSample: totals.meanBytes,
    poolBytes: forecast.poolBytes,
    inFlight: IN_FLIGHT,
    count: totals.batches,
  });
  const origin = first && tally.origins[first.sample];
  return {
    stepMs,
    firstBatchMs,
    first: first
      ? { batch: first.batch + 1, stage: first.stage, row: origin ? rowName(origin) : '', ms: first.ms }
      : null,
    waitShare,
    limit,
  };
}
