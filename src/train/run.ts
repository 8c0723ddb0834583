// A run: opens the device thread and the processor, starts the sinks, streams samples into steps, and ends in order.

import { mkdirSync, accessSync, constants } from 'node:fs';
import { existsSync } from 'node:fs';
import { loadProcessor } from '../data/processor.js';
import { latestCheckpoint } from '../checkpoint/index.js';
import { DeviceThread } from '../device/thread.js';
import { ConfigError, SluiceError, TrainError, messageOf } from '../errors.js';
import type { FlowSummary } from '../flow/index.js';
import { make } from '../parts.js';
import type { EndEvent, RunEvent } from './events.js';
import type { LearnerFacts, LearnerSpec } from './learner.js';
import { TrainLoop } from './loop.js';
import type { Pipeline } from './pipeline.js';
import { sampleFlow } from './sample-flow.js';
import type { RunContext, Sink } from './sink.js';
import type { DeviceApi } from './worker.js';

export interface RunOptions {
  /** Folder for everything that the run writes. */
  readonly outDir: string;
  /** Continue after the newest complete checkpoint in `outDir`. */
  readonly resume?: boolean;
  /** Further sinks, such as a terminal's progress; they come first. */
  readonly sinks?: readonly Sink[];
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

export interface RunResult {
  readonly end: EndEvent;
  readonly facts: LearnerFacts;
}

/** Batches that may be on their way to the device at once: one computing, one waiting. */
const IN_FLIGHT = 2;

/** Runs a decoded pipeline; without a `step`, only the sinks that evaluate have work.
 *  @throws the run's failure, after every sink was ended; on an aborted signal the signal's reason, after a checkpoint */
export async function runPipeline(pipeline: Pipeline, options: RunOptions): Promise<RunResult> {
  const { outDir, signal, log } = options;
  const started = performance.now();
  makeFolder(outDir);
  const resumeFrom = options.resume ? newestCheckpoint(outDir) : undefined;
  const processor = await loadProcessor(pipeline.model.path);
  const sinks = [...(options.sinks ?? []), ...pipeline.sinks.map((sink) => make(sink, { pipeline }))];
  const spec: LearnerSpec = {
    model: plain(pipeline.model),
    ...(pipeline.step && { step: plain(pipeline.step) }),
    seed: pipeline.seed,
    ...(pipeline.threads !== undefined && { threads: pipeline.threads }),
  };
  const device = new DeviceThread<DeviceApi>(workerEntry(), spec);
  let loop: TrainLoop | undefined;
  let failure: unknown;
  const emit = (event: RunEvent) => {
    for (const sink of sinks) sink.onEvent?.(event);
  };
  const result = {} as { end: EndEvent; facts: LearnerFacts };
  try {
    result.facts = await device.call('open', []);
    const firstStep = resumeFrom === undefined ? 0 : await restore(device, resumeFrom, log);
    const context: RunContext = {
      name: pipeline.name,
      outDir,
      processor,
      maxSteps: pipeline.step?.maxSteps,
      signal,
      emit,
      log,
      device: {
        generate: (batch, { maxNewTokens }) =>
          device.call('generate', [batch, { maxNewTokens, eosTokenIds: [...processor.eosTokenIds] }]),
        checkpoint: (step, keep) =>
          device.call('save', [
            outDir,
            { step, position: { batches: step * (pipeline.step?.accumulate ?? 1) } },
            keep,
          ]),
      },
    };
    for (const sink of sinks) await sink.start?.(context);
    let summary: FlowSummary | undefined;
    try {
      if (pipeline.step && pipeline.source !== undefined) {
        loop = new TrainLoop({
          device,
          sinks,
          firstStep,
          maxSteps: pipeline.step.maxSteps,
          accumulate: pipeline.step.accumulate,
          emit,
        });
        summary = await train(pipeline, loop, firstStep, context);
      }
    } catch (error) {
      failure = error;
    }
    const lastStep = loop?.last?.step ?? firstStep;
    const reason = failure ? 'failed' : signal.aborted ? 'stopped' : 'complete';
    for (const sink of sinks)
      await attempt(
        () => sink.end?.(lastStep, reason),
        (error) => (failure ??= error),
      );
    result.end = endEvent(summary, lastStep, (performance.now() - started) / 1000);
    emit(result.end);
  } catch (error) {
    failure ??= error;
  }
  for (const sink of sinks)
    await attempt(
      () => sink.close?.(),
      (error) => (failure ??= error),
    );
  await device.terminate();
  if (failure) throw failure instanceof Error ? failure : new TrainError(messageOf(failure));
  if (signal.aborted) throw signal.reason;
  return result;
}

async function train(
  pipeline: Pipeline,
  loop: TrainLoop,
  firstStep: number,
  context: RunContext,
): Promise<FlowSummary> {
  let toSkip = firstStep * (pipeline.step?.accumulate ?? 1);
  const summary = await sampleFlow({
    source: pipeline.source,
    flow: pipeline.flow,
    purpose: 'train',
    processor: context.processor,
    poolBytes: pipeline.poolBytes,
    signal: context.signal,
    inFlight: IN_FLIGHT,
    emit: context.emit,
    consume: async (batch, consumeContext) => {
      if (toSkip > 0)
        toSkip -= 1; // trained before the checkpoint that this run continues
      else await loop.consume(batch, consumeContext);
    },
  });
  await loop.finish();
  if (summary.ledger.issued === 0 && !context.signal.aborted) {
    throw new ConfigError({
      where: 'source',
      expected: 'at least one sample',
      received: 'none',
      remedy: 'check the files and filters of the source',
    });
  }
  return summary;
}

async function restore(
  device: DeviceThread<DeviceApi>,
  folder: string,
  log: (line: string) => void,
): Promise<number> {
  const { step } = await device.call('load', [folder]);
  log(`Continuing after step ${step} from ${folder}`);
  return step;
}

function newestCheckpoint(outDir: string): string {
  const checkpoint = latestCheckpoint(outDir);
  if (checkpoint) return checkpoint.folder;
  throw new ConfigError({
    where: '--resume',
    expected: `a complete checkpoint in ${outDir}`,
    received: 'none',
    remedy: 'leave out --resume to start anew, or give the --out of the run to continue',
  });
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
    accessSync(path, constants.W_OK);
  } catch (cause) {
    throw new SluiceError(
      {
        where: `--out ${path}`,
        expected: 'a folder that can be written',
        received: messageOf(cause),
        remedy: 'choose another with --out',
      },
      { cause },
    );
  }
}

function endEvent(summary: FlowSummary | undefined, steps: number, seconds: number): EndEvent {
  return {
    event: 'end',
    ledger: summary?.ledger ?? { issued: 0, trained: 0, dropped: 0, quarantined: 0 },
    peakBytes: summary?.peakBytes ?? 0,
    steps,
    waitMs: summary?.waitMs ?? 0,
    seconds,
  };
}

async function attempt(body: () => unknown, onError: (error: unknown) => void): Promise<void> {
  try {
    await body();
  } catch (error) {
    onError(error);
  }
}

/** Without the parts' hidden definitions, which cannot cross to another thread. */
function plain<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** Workers run compiled code: from a checkout's sources too, the entry is the one in dist. */
function workerEntry(): URL {
  const here = new URL('./worker.js', import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return here;
  const built = new URL('../../dist/train/worker.js', import.meta.url);
  if (existsSync(built)) return built;
  throw new SluiceError({
    where: 'device thread',
    expected: 'the compiled worker in dist',
    received: 'none',
    remedy: 'run npm run build',
  });
}
