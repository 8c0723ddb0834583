// A run's checkpoints: folders `checkpoint-STEP`, each one atomic set of files. The weights lie in the folder itself as
// Hugging Face lays them out, so that it loads like any model; beside them optimizer.safetensors and state.json.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { decode, z } from '../schema.js';
import { removeFolder, replaceFolder, withFile, writeAll } from './atomic.js';
import { BEST, type BestCheckpoints } from './best.js';
import { checkpointFault, readFault } from './faults.js';
import { SafetensorsFile } from './safetensors.js';
import { indexFile, isWeightFile, readIndex, singleFile } from './shards.js';
import { writeJson, writeSafetensors, type NamedTensor } from './writer.js';

export const optimizerFile = 'optimizer.safetensors';
/** Of a run that keeps an average of its weights. */
export const averageFile = 'ema.safetensors';
export const stateFile = 'state.json';
/** Of a run that trains an adapter, in place of a model's weights. */
const adapterFilesOfPeft = ['adapter_config.json', 'adapter_model.safetensors'];

const stateSchema = z.looseObject({
  version: z.literal(1),
  step: z.int().min(0),
  rng: z.record(z.string(), z.string()),
  position: z.json(),
  ledger: z.json(),
  origin: z.looseObject({ repository: z.string(), revision: z.string(), commit: z.string() }).optional(),
  best: BEST.optional(),
});

/** What a run needs, beside weights and optimizer, to go on where it stood. */
export interface TrainingState {
  /** Updates made. */
  readonly step: number;
  /** States of random generators by name, in base64. */
  readonly rng: Readonly<Record<string, string>>;
  /** Where the stream of samples stands: JSON that its source understands. */
  readonly position: z.core.util.JSONType;
  /** Samples issued, trained, dropped, quarantined so far: JSON. */
  readonly ledger: z.core.util.JSONType;
  /** Where the model came from that the run began with, when that was no folder. */
  readonly origin?: { readonly repository: string; readonly revision: string; readonly commit: string };
  /** The best by a metric so far, this one included where it is. */
  readonly best?: BestCheckpoints;
}

export interface Checkpoint {
  readonly step: number;
  readonly folder: string;
}

export interface CheckpointParts {
  readonly state: TrainingState;
  /** Writes the weights, and whatever the model needs to be loaded, into the folder that it is given. */
  readonly writeWeights: (folder: string) => Promise<void>;
  /** Its tensors, or the file's bytes. */
  readonly optimizer: Iterable<NamedTensor> | Uint8Array;
  /** Of the weights, where the run keeps one. */
  readonly average?: readonly NamedTensor[];
}

/** Writes `checkpoint-STEP` into the run's folder, whole or not at all, then removes the oldest beyond `keep`.
 *  Model and optimizer must not change until it is done.
 *  @param keep how many checkpoints stay, this one included; all when left out
 *  @throws {CheckpointError} when the disk is full or the folder cannot be written; earlier checkpoints are untouched */
export async function saveCheckpoint(
  runFolder: string,
  { state, writeWeights, optimizer, average }: CheckpointParts,
  { keep = Infinity }: { keep?: number } = {},
): Promise<Checkpoint> {
  refuseKeep(runFolder, keep);
  const folder = checkpointFolder(runFolder, state.step);
  await replaceFolder(
    folder,
    async (beside) => {
      await writeWeights(beside);
      const optimizerPath = join(beside, optimizerFile);
      if (optimizer instanceof Uint8Array)
        await withFile(optimizerPath, (handle) => writeAll(handle, optimizer));
      else await writeSafetensors(optimizerPath, optimizer);
      if (average) await writeSafetensors(join(beside, averageFile), average);
      await withFile(join(beside, stateFile), (handle) => writeJson(handle, { version: 1, ...state }));
    },
    {
      isStale: (name) => isWeightFile(name) || name === averageFile || adapterFilesOfPeft.includes(name),
      last: stateFile,
    },
  );
  await pruneCheckpoints(runFolder, { newest: state.step, keep });
  return { step: state.step, folder };
}

/** Removes the oldest checkpoints beyond `keep`.
 *  @param newest the step of the one that was just written, which stays and counts
 *  @param except steps of others that stay and do not count
 *  @throws {CheckpointError} when one cannot be removed */
export async function pruneCheckpoints(
  runFolder: string,
  { newest, keep, except = [] }: { newest: number; keep: number; except?: readonly number[] },
): Promise<void> {
  refuseKeep(runFolder, keep);
  const others = listCheckpoints(runFolder).filter(({ step }) => step !== newest);
  const old = others.slice(0, Math.max(0, others.length + 1 - keep));
  for (const { step, folder } of old) if (!except.includes(step)) await removeFolder(folder);
}

/** Where a run keeps the checkpoint of a step. */
export function checkpointFolder(runFolder: string, step: number): string {
  return join(runFolder, `checkpoint-${step}`);
}

function refuseKeep(runFolder: string, keep: number): void {
  if (keep >= 1) return;
  throw checkpointFault(runFolder, undefined, {
    expected: 'keep of 1 or more checkpoints',
    received: String(keep),
    remedy: 'leave it out to keep all',
  });
}

/** The complete checkpoints of a run, oldest first. Folders that lack a file, as a removal or a copy that was cut off
 *  leaves them, are not listed. */
export function listCheckpoints(runFolder: string): Checkpoint[] {
  const names = fs.existsSync(runFolder) ? fs.readdirSync(runFolder) : [];
  return names
    .flatMap((name) => {
      const step = /^checkpoint-(\d+)$/.exec(name)?.[1];
      return step === undefined ? [] : [{ step: Number(step), folder: join(runFolder, name) }];
    })
    .filter(({ folder }) => isComplete(folder))
    .sort((a, b) => a.step - b.step);
}

/** The newest complete checkpoint, or undefined when there is none. */
export function latestCheckpoint(runFolder: string): Checkpoint | undefined {
  return listCheckpoints(runFolder).at(-1);
}

/** Reads a checkpoint's state and opens its optimizer's tensors; the caller closes them.
 *  @throws {CheckpointError | ConfigError} when a file is missing or malformed */
export function loadCheckpoint(folder: string): { state: TrainingState; optimizer: SafetensorsFile } {
  return { state: readState(folder), optimizer: new SafetensorsFile(join(folder, optimizerFile)) };
}

/** Opens the tensors of a checkpoint's average of weights; the caller closes them. Undefined where it has none. */
export function openAverage(folder: string): SafetensorsFile | undefined {
  const path = join(folder, averageFile);
  return fs.existsSync(path) ? new SafetensorsFile(path) : undefined;
}

/** Reads a checkpoint's state. @throws {CheckpointError | ConfigError} when the file is missing or malformed */
export function readState(folder: string): TrainingState {
  const path = join(folder, stateFile);
  let json: unknown;
  try {
    json = JSON.parse(fs.readFileSync(path, 'utf8'));
  } catch (cause) {
    throw readFault(path, "a checkpoint's state", cause);
  }
  const { step, rng, position, ledger, origin, best } = decode(stateSchema, json, path);
  return { step, rng, position, ledger, ...(origin && { origin }), ...(best && { best }) };
}

function isComplete(folder: string): boolean {
  const has = (name: string): boolean => fs.existsSync(join(folder, name));
  if (!has(stateFile) || !has(optimizerFile)) return false;
  if (has(singleFile) || adapterFilesOfPeft.every(has)) return true;
  try {
    return has(indexFile) && [...new Set(readIndex(join(folder, indexFile)).values())].every(has);
  } catch {
    return false;
  }
}
