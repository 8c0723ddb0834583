// What `pipe init` does: asks for what no flag says, finds what fits, and writes a pipeline file.

import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { basename, dirname } from 'node:path';
import { ConfigError } from '../errors.js';
import type { Method } from '../models/gemma3n/index.js';
import { bytesOf, fit, named, type Fit } from './init/fit.js';
import {
  LAYOUTS,
  assumedLayout,
  columnsOf,
  layoutOf,
  sourceOf,
  type Medium,
  type Task,
} from './init/layout.js';
import { askOnTerminal, type Ask } from './init/questions.js';
import { recipeText, type DataPart } from './init/recipe.js';
import { packageVersion } from './main.js';
import { loadPipeline } from './pipeline-file.js';
import { stopOnSignals } from './stop.js';

export interface InitArguments {
  readonly file?: string | undefined;
  readonly task?: string | undefined;
  readonly method?: string | undefined;
  readonly model?: string | undefined;
  readonly data?: readonly string[] | undefined;
  readonly memory?: string | undefined;
  readonly rank?: number | undefined;
  /** Take what is suggested for what no flag says. */
  readonly yes?: boolean | undefined;
}

const TASKS = ['image', 'audio', 'mixed', 'text'] as const;
const METHODS = ['full', 'lora', 'dora', 'qlora'] as const;
const MODEL = 'google/gemma-3n-E2B-it';

export interface Written {
  readonly file: string;
  readonly fit: Fit;
  readonly data: readonly DataPart[];
}

/** Writes a pipeline file, on a terminal by asking.
 *  @param ask for what no flag says; undefined where there is nobody to ask
 *  @throws {ConfigError} naming what is missing, what does not fit, or a file that is there already */
export async function init(given: InitArguments, ask?: Ask, signal?: AbortSignal): Promise<Written> {
  const missing = ask ? [] : (['task', 'data'] as const).filter((key) => given[key] === undefined);
  if (missing.length > 0) {
    throw new ConfigError({
      where: missing.map((key) => `--${key}`).join(', '),
      expected: 'a value for each, since there is no terminal to ask on',
      received: 'none',
      remedy: 'write for example pipe init --task image --data train.parquet --memory 24GiB',
    });
  }
  // What is wrong with a flag is told before anything is asked.
  if (given.file !== undefined) refuseExisting(given.file);
  if (given.memory !== undefined) bytesOf(given.memory);
  const checked = <T>(value: string | undefined, check: (text: string) => T): T | undefined =>
    value === undefined ? undefined : check(value);
  const [flagTask, flagMethod] = [checked(given.task, taskOf), checked(given.method, methodOf)];
  if (given.rank !== undefined) refuseRank(given.rank, flagMethod);
  const suggest = async <T>(question: string, check: (text: string) => T, suggestion: string): Promise<T> =>
    ask && !given.yes ? ask(question, check, suggestion) : check(suggestion);

  const task = flagTask ?? (await ask!(`Task (${TASKS.join(', ')})`, taskOf));
  const files =
    given.data ?? (await ask!('Data (files of .parquet, .jsonl or .arrow, separated by spaces)', filesOf));
  const data = await dataOf(files, task);
  const model = given.model ?? (await suggest('Model', (text) => text, MODEL));
  const memory =
    given.memory ?? (await suggest("The device's memory", (text) => (bytesOf(text), text), machine()));
  const method =
    given.method === undefined
      ? await suggest(`Method (auto, ${METHODS.join(', ')})`, methodOf, 'auto')
      : flagMethod;

  const found = await fit({
    ...{ model, task, method, rank: given.rank, memoryBytes: bytesOf(memory) },
    ...(signal && { signal }),
  });
  const suggested = `${task}-${found.method}.pipeline.ts`;
  const file = given.file ?? (await suggest('File', (text) => (refuseExisting(text), text), suggested));
  const name =
    basename(file)
      .replace(/(\.pipeline)?\.[cm]?[jt]s$/, '')
      .replace(/[^\w.-]/g, '-') || 'job';
  await write(file, recipeText({ name, task, model, data, fit: found, version: packageVersion() }));
  return { file, fit: found, data };
}

/** `init` for a command line: says what was written and why. */
export async function initFile(args: InitArguments): Promise<void> {
  using stop = stopOnSignals();
  const isTerminal = process.stdin.isTTY && process.stderr.isTTY;
  using ask = isTerminal ? askOnTerminal(stop.signal) : undefined;
  const written = await init(args, ask, stop.signal);
  const { file, fit: found, data } = written;
  const lines = [
    `${file}: ${named(found.method)}${found.method === 'full' ? '' : `, rank ${found.rank}`}, learning rate ${found.lr}`,
    ...found.reasons.map((reason) => `  ${reason}`),
    ...data.map(({ files, layout, unchecked }) =>
      unchecked === undefined
        ? `  ${files.join(', ')}: ${layout.name}`
        : `  ${files.join(', ')}: taken for ${layout.name}, since it could not be looked at: ${unchecked}`,
    ),
    `next: pipe plan ${file}; pipe run ${file}`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Files by layout, in the order in which they are named. */
async function dataOf(files: readonly string[], task: Task): Promise<DataPart[]> {
  const media: readonly Medium[] = task === 'mixed' ? ['image', 'audio', 'text'] : [task];
  const parts: DataPart[] = [];
  for (const file of files) {
    sourceOf(file);
    const columns = await columnsOf([file]);
    const unknown = typeof columns['unknown'] === 'string' && Object.keys(columns).length === 1;
    // Of several that cannot be looked at, a mix takes the first for pictures and the next for sound.
    const assumed = media[Math.min(parts.length, media.length - 1)]!;
    const layout = unknown ? assumedLayout(assumed) : layoutOf(columns, media);
    if (!layout) {
      throw new ConfigError({
        where: `--data ${file}`,
        expected: `columns of a usual layout for ${task}: ${LAYOUTS}`,
        received: Object.entries(columns)
          .map(([name, type]) => `${name}: ${type}`)
          .join(', '),
        remedy: 'name other data, or another task, or write the pipeline by hand with map(...)',
      });
    }
    const same = parts.findIndex(
      (part) => part.layout.samples === layout.samples && sourceOf(part.files[0]!) === sourceOf(file),
    );
    if (same >= 0) parts[same] = { ...parts[same]!, files: [...parts[same]!.files, file] };
    else parts.push({ files: [file], layout, ...(unknown && { unchecked: columns['unknown'] }) });
  }
  const found = new Set(parts.map(({ layout }) => layout.medium));
  if (task !== 'mixed' || (found.has('image') && found.has('audio'))) return parts;
  throw new ConfigError({
    where: '--data',
    expected: 'pictures and sound for a mix, in files of their own',
    received: [...found].join(', '),
    remedy: 'give --data once for each, or another --task',
  });
}

async function write(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  try {
    await writeFile(file, text, { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') refuseExisting(file);
    throw error;
  }
  try {
    await loadPipeline(file, []);
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  }
}

function refuseExisting(file: string): void {
  if (!/\.[cm]?ts$/.test(file)) {
    throw new ConfigError({
      where: 'pipe init',
      expected: "a file's name that ends in .ts",
      received: file === '' ? 'none' : file,
      remedy: 'write for example sft.pipeline.ts',
    });
  }
  if (!existsSync(file)) return;
  throw new ConfigError({
    where: `pipe init ${file}`,
    expected: 'a file that is not there yet',
    received: 'one that is',
    remedy: 'give another name, or remove it first',
  });
}

function refuseRank(rank: number, method: Method | undefined): void {
  if (Number.isInteger(rank) && rank > 0 && method !== 'full') return;
  throw new ConfigError({
    where: '--rank',
    expected: method === 'full' ? 'none, since full fine-tuning has no adapter' : 'a whole number above 0',
    received: Number.isNaN(rank) ? 'no number' : String(rank),
    remedy: method === 'full' ? 'leave it out, or choose lora, dora or qlora' : 'write for example --rank 16',
  });
}

function taskOf(text: string): Task {
  return oneOf('--task', TASKS, text);
}

function methodOf(text: string): Method | undefined {
  return text === 'auto' ? undefined : oneOf('--method', METHODS, text);
}

function oneOf<T extends string>(where: string, known: readonly T[], text: string): T {
  const found = known.find((one) => one === text);
  if (found !== undefined) return found;
  throw new ConfigError({
    where,
    expected: known.join(', '),
    received: text || 'nothing',
    remedy: 'choose one of them',
  });
}

function filesOf(text: string): string[] {
  const files = text.split(/\s+/).filter((file) => file !== '');
  if (files.length === 0) {
    throw new ConfigError({
      where: '--data',
      expected: 'one file or more',
      received: 'none',
      remedy: 'name them',
    });
  }
  for (const file of files) sourceOf(file);
  return files;
}

/** What this machine has: a job without a GPU runs there. */
function machine(): string {
  return `${Math.floor(totalmem() / 2 ** 30)}GiB`;
}
