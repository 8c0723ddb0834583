// `pipe` as its users start it, on the small job.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { colourRows, modelFolder, temporaryFolder, writeRows } from '../train/job.js';

const bin = fileURLToPath(new URL('../../dist/cli/pipe.js', import.meta.url));

export interface Started {
  readonly child: ChildProcess;
  /** What it has written so far. */
  readonly output: { stdout: string; stderr: string };
  /** Resolves when stdout or stderr holds the text. */
  readonly saw: (text: string) => Promise<void>;
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** Starts `pipe ARGS...`; it is killed when the test ends. @param stdin 'pipe' to write to `child.stdin` */
export function start(
  args: readonly string[],
  cwd = temporaryFolder(),
  stdin: 'ignore' | 'pipe' = 'ignore',
): Started {
  const child = spawn(process.execPath, [bin, ...args], { cwd, stdio: [stdin, 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const output = { stdout: '', stderr: '' };
  const watchers = new Set<() => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
      for (const watcher of watchers) watcher();
    });
  }
  const saw = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (output.stdout.includes(text) || output.stderr.includes(text)) resolve();
      };
      watchers.add(look);
      child.once('close', () =>
        reject(new Error(`ended without "${text}": ${output.stdout}${output.stderr}`)),
      );
      look();
    });
  const ended = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
  }));
  return { child, output, saw, ended };
}

/** Runs `pipe ARGS...` to its end. */
export async function pipe(...args: string[]) {
  const { output, ended } = start(args);
  return { ...(await ended), ...output };
}

export interface FileOptions {
  readonly rows?: number;
  readonly epochs?: number;
  /** Before the default export. */
  readonly preamble?: string;
  readonly sinks?: string;
  /** The entry of `step`, with its comma; '' leaves it out. */
  readonly step?: string;
  readonly source?: string;
}

/** Writes a pipeline file for the small job. @returns its path */
export async function pipelineFile(options: FileOptions = {}): Promise<string> {
  const { rows = 16, epochs = 1, preamble = '', sinks = 'metrics()' } = options;
  const folder = temporaryFolder();
  const file = writeRows(join(folder, 'rows.parquet'), await colourRows(rows));
  const step =
    options.step ??
    'step: sft({ optimizer: adamw({ lr: 1e-3 }), schedule: constant(), clipNorm: 1, maxSteps: 1000 }),';
  const source = options.source ?? `source: parquet(ROWS, { shuffle: { seed: 1 }, epochs: ${epochs} }),`;
  const path = join(folder, 'job.pipeline.ts');
  writeFileSync(
    path,
    `
import { adamw, assistant, batch, chat, checkpoints, constant, decodeMedia, encode, evaluation, exactMatch, gemma3n,
  image, map, metrics, parquet, pipeline, promptAlone, report, sft, text, user, type Row } from 'sluice';

const ROWS: string = ${JSON.stringify(file)};
${preamble}
export default pipeline({
  name: 'job',
  threads: 1,
  model: gemma3n(${JSON.stringify(modelFolder())}, { weights: 'random' }),
  ${source}
  flow: [
    map((row: Row) => chat(user(image(row.image), text(row.question)), assistant(text(row.answer)))),
    decodeMedia(),
    encode({ maxTokens: 64 }),
    batch({ size: 4 }),
  ],
  ${step}
  sinks: [${sinks}],
});
`,
  );
  return path;
}
