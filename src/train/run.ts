// A run: checks what can be checked, opens the device thread, starts the sinks, trains, and ends in order.

import { join } from 'node:path';
import { QuarantineError, TrainError, messageOf } from '../errors.js';
import { make } from '../parts.js';
import { describeRetry, onRetry } from '../retry.js';
import { checkPipeline } from './check.js';
import type { SavedPosition } from './checkpoint.js';
import type { DownloadProgress } from '../hub/index.js';
import type { Warning } from './dynamics-warnings.js';
import type { EndEvent, Outcome } from './events.js';
import type { LearnerFacts } from './learner.js';
import { withModelFolder } from './model-folder.js';
import { checkpointToResume, makeOutFolder, putAside } from './out-folder.js';
import type { Pipeline } from './pipeline.js';
import { Quarantine } from './quarantine.js';
import { RunDevice } from './run-device.js';
import type { RunContext, Sink } from './sink.js';
import { Sinks } from './sinks.js';
import { type StreamPlan, differences, refuseOtherPlan, streamPlan } from './stream-plan.js';
import { Training } from './training.js';

/** In the run's folder: the model that a step's `ema: { final: true }` asks for. */
const FINAL = 'final';

export interface RunOptions {
  /** Folder for everything that the run writes. */
  readonly outDir: string;
  /** Continue after the newest complete checkpoint in `outDir`. */
  readonly resume?: boolean;
  /** Continue also where data, seed or flow have changed: at the same number of items into the stream as it is now. */
  readonly resumeAnyway?: boolean;
  /** Further sinks, such as a terminal's progress. They come last: what they tell is in the others' files by then. */
  readonly sinks?: readonly Sink[];
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
  /** What went wrong though the run goes on; `log` where it is left out. */
  readonly warn?: (line: string) => void;
  /** Told how far the download of a model is. */
  readonly onDownload?: (progress: DownloadProgress) => void;
  /** Folder that keeps what this machine reaches, for later runs. */
  readonly cacheFolder?: string;
}

export interface RunResult {
  readonly end: EndEvent;
  readonly facts: LearnerFacts;
}

/** Runs a decoded pipeline; without a `step`, only the sinks that evaluate have work.
 *  @throws {ConfigError} for what is wrong with the pipeline and known before the run
 *  @throws the run's failure, after every sink was ended; on an aborted signal the signal's reason, after a checkpoint */
export async function runPipeline(declared: Pipeline, options: RunOptions): Promise<RunResult> {
  const { outDir, signal, onDownload } = options;
  const startedAt = performance.now();
  const pipeline = await withModelFolder(declared, {
    resumeFrom: options.resume ? outDir : undefined,
    signal,
    log: options.log,
    onProgress: onDownload,
  });
  const quarantine = new Quarantine(pipeline.quarantine);
  const sinks = new Sinks([
    quarantine,
    ...pipeline.sinks.map((sink) => make(sink, { pipeline })),
    ...(options.sinks ?? []),
  ]);
  const processor = await checkPipeline(pipeline, sinks);
  makeOutFolder(outDir);
  const resumeFrom = options.resume ? checkpointToResume(outDir) : undefined;
  const device = new RunDevice(pipeline, {
    outDir,
    processor,
    cacheFolder: options.cacheFolder,
    onCheckpoint: (event) => sinks.emit(event),
  });

  const endRetries = onRetry((retried) =>
    sinks.emit({ event: 'notice', row: retried.where, stage: 'read', message: describeRetry(retried) }),
  );
  const failures: unknown[] = [];
  const failed = (error: unknown) => void failures.push(error);
  const outcome = (): Outcome => (failures.length > 0 ? 'failed' : signal.aborted ? 'stopped' : 'complete');
  let facts: LearnerFacts | undefined;
  let end: EndEvent | undefined;
  try {
    facts = await device.open(signal);
    const plan = pipeline.step && (await streamPlan(pipeline));
    const resumed = await resume(device, resumeFrom, plan, options);
    const context: RunContext = {
      name: pipeline.name,
      outDir,
      processor,
      device,
      maxSteps: pipeline.step?.maxSteps,
      resumedAt: resumed?.step,
      resumedFrom: resumed?.stream,
      quarantine,
      signal,
      emit: (event) => sinks.emit(event),
      log: options.log,
      warn: options.warn ?? options.log,
    };
    if (resumed) context.log(`continuing after step ${resumed.step} from ${resumeFrom}`);
    else tidy(context, [...sinks.leftovers(outDir), ...(pipeline.step ? [FINAL] : [])]);
    await sinks.start(context);
    const { warnings = [], ...model } = facts;
    const warn = (step: number, told: readonly Warning[]) => {
      for (const warning of told) sinks.emit({ event: 'warning', step, ...warning });
    };
    const training = new Training(pipeline, context, { device: device.thread, sinks, startedAt }, resumed);
    device.follow(() => ({ stream: training.position, plan }));
    const begin = async (): Promise<void> => {
      sinks.emit({ event: 'model', ...model });
      warn(resumed?.step ?? 0, warnings);
      if (pipeline.step) await training.run();
    };
    await begin().catch(failed);
    if (pipeline.step && outcome() === 'complete') warn(training.lastStep, await device.finish());
    const trainedAt = performance.now();
    await sinks.end(training.lastStep, outcome(), failed);
    // Where the rows are at fault and not the model, the run can go on once they are mended.
    const isWell = outcome() === 'stopped' || failures[0] instanceof QuarantineError;
    if (pipeline.step && isWell && device.savedStep !== training.lastStep) {
      await device.checkpoint().catch(failed);
    }
    await device.idle();
    if (pipeline.step?.ema?.final && outcome() === 'complete') {
      await device.writeAverage(join(outDir, FINAL)).catch(failed);
    }
    end = {
      event: 'end',
      outcome: outcome(),
      ...(failures.length > 0 && { error: messageOf(failures[0]) }),
      ...training.account(),
      peakCheckpointBytes: device.peakCheckpointBytes,
      steps: training.lastStep,
      ...training.time(performance.now() - trainedAt),
    };
    sinks.emit(end);
  } catch (error) {
    failed(error);
  }
  endRetries();
  await sinks.close(failed);
  await device.close();

  const [first] = failures;
  if (failures.length > 0) throw first instanceof Error ? first : new TrainError(messageOf(first));
  signal.throwIfAborted();
  if (!facts || !end) throw new TrainError('run: ended without a failure before it began');
  return { facts, end };
}

/** Loads the checkpoint that is to be continued, and holds it against the pipeline as it is now. */
async function resume(
  device: RunDevice,
  folder: string | undefined,
  plan: StreamPlan | undefined,
  { resumeAnyway = false, log }: RunOptions,
): Promise<SavedPosition | undefined> {
  if (folder === undefined) return undefined;
  const saved = await device.resume(folder);
  const changed = plan && saved.plan ? differences(saved.plan, plan) : [];
  if (!resumeAnyway) refuseOtherPlan(changed, folder);
  if (changed.length === 0 || !saved.stream) return saved;
  log(`continuing in spite of changes of ${changed.join(', ')}: not as a run without a break would`);
  const { origin: _origin, cursor: _cursor, ...counted } = saved.stream;
  return { ...saved, stream: counted };
}

/** A new run does not mix its files with an earlier one's. */
function tidy(context: RunContext, leftovers: readonly string[]): void {
  const folder = putAside(context.outDir, leftovers);
  if (folder) context.log(`what an earlier run left was moved to ${folder}`);
}
