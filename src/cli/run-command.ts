// What `pipe run` and `pipe eval` share: load the file, set up the engine, run, and say what came of it.

import { join, resolve } from 'node:path';
import { ConfigError, SluiceError } from '../errors.js';
import { cacheFolder } from '../native/cache.js';
import { ensureAddon } from '../native/setup.js';
import { streamLog } from '../native/progress.js';
import { downloadProgress } from '../report/download.js';
import { jsonLines } from '../report/json-lines.js';
import { progress } from '../report/progress.js';
import type { Ceiling } from '../train/ceiling-file.js';
import { measureCeiling } from '../train/ceiling.js';
import { guestOf } from '../train/guest.js';
import type { Pipeline } from '../train/pipeline.js';
import { runPipeline } from '../train/run.js';
import { takeOutput } from './output.js';
import { loadPipeline } from './pipeline-file.js';
import { stopOnSignals } from './stop.js';

export interface RunArguments {
  readonly file: string;
  readonly set?: readonly string[];
  readonly out?: string;
  readonly resume?: boolean;
  readonly resumeAnyway?: boolean;
  readonly json?: boolean;
  readonly ceiling?: boolean;
}

/** Runs a pipeline file. @param mode 'eval' leaves out what trains, so that only evaluations run */
export async function runFile(args: RunArguments, mode: 'run' | 'eval'): Promise<void> {
  const { file, set = [], json = false } = args;
  using stop = stopOnSignals();
  using output = takeOutput({ alone: json });
  const signal = AbortSignal.any([stop.signal, output.signal]);
  const declared = await loadPipeline(file, set);
  const pipeline = mode === 'eval' ? evaluationOf(declared, file) : declared;
  const outDir = resolve(args.out ?? join('runs', pipeline.name));
  const log = (line: string) => (json ? process.stderr : process.stdout).write(`${line}\n`);
  try {
    if (!guestOf(pipeline)) await ensureAddon({ log: streamLog(), signal });
    if (args.ceiling) {
      const ceiling = await measureCeiling(training(pipeline, file), {
        outDir,
        signal,
        log,
        onProgress: downloadProgress(),
      });
      output.write(json ? `${JSON.stringify({ event: 'ceiling', ...ceiling })}\n` : ceilingLine(ceiling));
      return;
    }
    await runPipeline(pipeline, {
      outDir,
      resume: (args.resume ?? false) || (args.resumeAnyway ?? false),
      resumeAnyway: args.resumeAnyway ?? false,
      signal,
      sinks: [json ? jsonLines((line) => output.write(line)) : progress()],
      onDownload: downloadProgress(),
      cacheFolder: cacheFolder(),
      log,
      warn: (line) => process.stderr.write(`${line}\n`),
    });
  } catch (error) {
    if (signal.aborted && !(error instanceof SluiceError)) throw signal.reason;
    throw error;
  }
}

/** @throws {ConfigError} where there is nothing to time */
function training(pipeline: Pipeline, file: string): Pipeline {
  if (pipeline.step) return pipeline;
  throw new ConfigError({
    where: `${file}: step`,
    expected: 'a step, whose pace --ceiling measures',
    received: 'none',
    remedy: 'add step: sft({ ... }), or leave out --ceiling',
  });
}

function ceilingLine({ steps, samples, tokens, stepMs, tokensPerSecond }: Ceiling): string {
  const step = `${samples} samples, ${tokens} tokens`;
  return (
    `an infinitely fast feed would give ${Math.round(tokensPerSecond)} tokens/s: ${stepMs.toFixed(1)} ms a step ` +
    `(median of ${steps}) over one cached step of ${step}\n`
  );
}

/** Sinks that have nothing to do where nothing is trained or evaluated. */
const ONLOOKERS = ['metrics', 'checkpoints', 'report'];

/** The pipeline without what trains. Of a pipeline that trains, the results go to another folder than the training's. */
function evaluationOf({ step, source: _source, ...evaluating }: Pipeline, file: string): Pipeline {
  if (evaluating.sinks.every(({ kind }) => ONLOOKERS.includes(kind))) {
    throw new ConfigError({
      where: `${file}: sinks`,
      expected: 'an evaluation',
      received: evaluating.sinks.map(({ kind }) => kind).join(', ') || 'none',
      remedy: 'add evaluation({ source: parquet(...), scores: [exactMatch()] })',
    });
  }
  return step ? { ...evaluating, name: `${evaluating.name}-eval` } : evaluating;
}
