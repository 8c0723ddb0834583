// What `pipe plan` does: loads the file, plans its streams without a device, and prints what it found.

import { join } from 'node:path';
import {
  AudioError,
  ConfigError,
  DataError,
  FlowError,
  ImageError,
  SluiceError,
  TextError,
  messageOf,
} from '../errors.js';
import { cacheFolder } from '../native/cache.js';
import { downloadProgress } from '../report/download.js';
import { planText } from '../report/plan-text.js';
import { planDecoded } from '../train/plan.js';
import { takeOutput } from './output.js';
import { pipelineCode } from './pipeline-code.js';
import { loadPipeline } from './pipeline-file.js';
import { stopOnSignals } from './stop.js';

export interface PlanArguments {
  readonly file: string;
  readonly set?: readonly string[];
  readonly json?: boolean;
  readonly thorough?: boolean;
  readonly epoch?: boolean;
  readonly cache?: boolean;
  readonly stepMs?: number;
  readonly stageMs?: readonly string[];
  readonly sourceMs?: number;
}

/** Prints the plan of a pipeline file. @throws {ConfigError} for whatever cannot run */
export async function planFile(args: PlanArguments): Promise<void> {
  const { file, set = [], json = false, stepMs, sourceMs } = args;
  using stop = stopOnSignals();
  using output = takeOutput({ alone: json, remedy: 'run pipe plan again' });
  const signal = AbortSignal.any([stop.signal, output.signal]);
  const times = {
    ...(stepMs !== undefined && { stepMs: milliseconds('--step-ms', stepMs) }),
    ...(sourceMs !== undefined && { sourceMs: milliseconds('--source-ms', sourceMs) }),
    ...(args.stageMs !== undefined && { stageMs: stageTimes(args.stageMs) }),
  };
  if (stepMs === undefined && Object.keys(times).length > 0) {
    throw new ConfigError({
      where: '--step-ms',
      expected: "a step's time on the device beside --stage-ms and --source-ms",
      received: 'none',
      remedy: 'give for example --step-ms 180',
    });
  }
  const pipeline = await loadPipeline(file, set);
  try {
    const plan = await planDecoded(pipeline, {
      ...times,
      thorough: args.thorough ?? false,
      wholeEpoch: args.epoch ?? true,
      cache: args.cache ?? true,
      cacheFolder: join(cacheFolder(), 'scans'),
      code: pipelineCode(file),
      signal,
      log: (line) => process.stderr.write(`${line}\n`),
      onDownload: downloadProgress(),
    });
    output.write(json ? `${JSON.stringify(plan)}\n` : `${planText(plan)}\n`);
  } catch (error) {
    if (signal.aborted && !(error instanceof SluiceError)) throw signal.reason;
    if (REFUSALS.some((kind) => error instanceof kind)) {
      throw new ConfigError(messageOf(error), { cause: error });
    }
    throw error;
  }
}

/** Errors that say that the pipeline cannot run with these data. */
const REFUSALS = [DataError, FlowError, TextError, ImageError, AudioError];

/** ['decodeMedia=4,encode=1'] -> { decodeMedia: 4, encode: 1 } */
function stageTimes(texts: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    texts
      .join(',')
      .split(',')
      .map((entry) => {
        const equals = entry.lastIndexOf('=');
        const name = entry.slice(0, Math.max(0, equals)).trim();
        if (name === '') throw unreadable('--stage-ms', entry);
        return [name, milliseconds('--stage-ms', Number(entry.slice(equals + 1).trim() || NaN))];
      }),
  );
}

function milliseconds(where: string, value: number): number {
  if (Number.isFinite(value) && value >= 0) return value;
  throw unreadable(where, String(value));
}

function unreadable(where: string, received: string): ConfigError {
  return new ConfigError({
    where,
    expected: where === '--stage-ms' ? 'times such as decodeMedia=4,encode=1' : 'milliseconds, 0 or more',
    received,
    remedy: 'write milliseconds of one sample in one stage',
  });
}
