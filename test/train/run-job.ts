// Runs the small job in this process, and keeps what it tells.

import { join } from 'node:path';
import {
  type Sink,
  adamw,
  assistant,
  batch,
  chat,
  constant,
  decodeMedia,
  encode,
  gemma3n,
  image,
  map,
  parquet,
  pipeline,
  sft,
  text,
  user,
} from '../../src/index.js';
import type { RunEvent } from '../../src/train/events.js';
import { type SinkPart, decodePipeline } from '../../src/train/pipeline.js';
import { type RunResult, runPipeline } from '../../src/train/run.js';
import { type ColourRow, colourRows, modelFolder, temporaryFolder, writeRows } from './job.js';

export interface JobOptions {
  readonly rows?: readonly ColourRow[];
  readonly epochs?: number;
  readonly batchSize?: number;
  readonly maxSteps?: number;
  readonly accumulate?: number;
  readonly sinks?: readonly SinkPart[];
  /** Changes the file's value before it is decoded. */
  readonly change?: (spec: Record<string, unknown>) => Record<string, unknown>;
  readonly set?: readonly string[];
  readonly outDir?: string;
  readonly resume?: boolean;
  readonly resumeAnyway?: boolean;
  readonly signal?: AbortSignal;
  /** Told every event, as a sink is. */
  readonly onEvent?: (event: RunEvent) => void;
}

export interface Ran {
  readonly outDir: string;
  readonly events: RunEvent[];
  readonly lines: string[];
  readonly result: RunResult | undefined;
  /** What the run threw. */
  readonly error: Error | undefined;
}

export const conversation = (row: ColourRow) =>
  chat(user(image(row.image), text(row.question)), assistant(text(row.answer)));

/** The job as a pipeline file would declare it. */
export async function jobSpec(options: JobOptions = {}) {
  const { epochs = 1, batchSize = 4, maxSteps = 100, accumulate = 1, sinks = [] } = options;
  const file = writeRows(join(temporaryFolder(), 'rows.parquet'), options.rows ?? (await colourRows(12)));
  return pipeline({
    name: 'job',
    seed: 1,
    threads: 1,
    model: gemma3n(modelFolder(), { weights: 'random', projector: 'whitened' }),
    source: parquet<ColourRow>(file, { shuffle: { seed: 3 }, epochs }),
    flow: [map(conversation), decodeMedia(), encode({ maxTokens: 64 }), batch({ size: batchSize })],
    step: sft({ optimizer: adamw({ lr: 1e-3 }), schedule: constant(), clipNorm: 1, maxSteps, accumulate }),
    sinks,
  });
}

/** Never throws: see `error`. */
export async function runJob(options: JobOptions = {}): Promise<Ran> {
  const { set = [] } = options;
  const outDir = options.outDir ?? temporaryFolder();
  const declared = await jobSpec(options);
  const events: RunEvent[] = [];
  const lines: string[] = [];
  const recorder: Sink = {
    name: 'recorder',
    onEvent: (event) => {
      events.push(event);
      options.onEvent?.(event);
    },
  };
  const settled = await (async () => {
    const spec = options.change?.(declared as unknown as Record<string, unknown>) ?? declared;
    return runPipeline(decodePipeline(spec, set, 'job.ts'), {
      outDir,
      resume: options.resume ?? false,
      resumeAnyway: options.resumeAnyway ?? false,
      sinks: [recorder],
      signal: options.signal ?? new AbortController().signal,
      log: (line) => lines.push(line),
    });
  })().then(
    (result) => ({ result, error: undefined }),
    (error: unknown) => ({ result: undefined, error: error as Error }),
  );
  return { outDir, events, lines, ...settled };
}

/** The events of one kind. */
export function only<K extends RunEvent['event']>(
  events: readonly RunEvent[],
  kind: K,
): Extract<RunEvent, { event: K }>[] {
  return events.filter((event): event is Extract<RunEvent, { event: K }> => event.event === kind);
}
