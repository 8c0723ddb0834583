// What `pipe run` and `pipe eval` share: load the file, set up the engine, run, and say what came of it.

import { join, resolve } from 'node:path';
import { ConfigError, SluiceError } from '../errors.js';
import { ensureAddon } from '../native/setup.js';
import { streamLog } from '../native/progress.js';
import { jsonLines } from '../report/json-lines.js';
import { progress } from '../report/progress.js';
import { runPipeline } from '../train/run.js';
import { loadPipeline } from './pipeline-file.js';
import { stopOnSignals } from './stop.js';

export interface RunArguments {
  readonly file: string;
  readonly set?: readonly string[];
  readonly out?: string;
  readonly resume?: boolean;
  readonly json?: boolean;
}

/** Runs a pipeline file. @param mode 'eval' ignores `step`, so that only evaluations run */
export async function runFile(args: RunArguments, mode: 'run' | 'eval'): Promise<void> {
  const declared = await loadPipeline(args.file, args.set ?? []);
  const { step: _step, ...evaluating } = declared;
  const pipeline = mode === 'eval' ? evaluating : declared;
  if (mode === 'run' && declared.step && declared.source === undefined) {
    throw new ConfigError({
      where: `${args.file}: source`,
      expected: 'a source to train from',
      received: 'nothing',
      remedy: 'add source: parquet(...), or remove step to evaluate only',
    });
  }
  const outDir = resolve(args.out ?? join('runs', pipeline.name));
  using stop = stopOnSignals();
  try {
    await ensureAddon({ log: streamLog(), signal: stop.signal });
    await runPipeline(pipeline, {
      outDir,
      resume: args.resume ?? false,
      signal: stop.signal,
      sinks: [args.json ? jsonLines() : progress()],
      log: (line) => (args.json ? process.stderr : process.stdout).write(`${line}\n`),
    });
  } catch (error) {
    if (stop.signal.aborted && error !== stop.signal.reason && !(error instanceof SluiceError)) {
      throw stop.signal.reason;
    }
    throw error;
  }
}
