// The state of a learner as it stood behind an update, set down for another thread to write while training goes on. What
// training changes is copied in memory; frozen weights never change, and are written from where they are.

import { freemem } from 'node:os';
import { join } from 'node:path';
import {
  pruneCheckpoints,
  refuseFullDisk,
  saveCheckpoint,
  stateFile,
  writeBest,
  withFile,
  writeModelFiles,
  writeSafetensors,
  type BestCheckpoints,
  type ModelFiles,
  type TrainingState,
} from '../checkpoint/index.js';
import { messageOf } from '../errors.js';
import { ADAPTER_WEIGHTS, adapterFiles, companionsOf, modelFiles } from '../models/gemma3n/index.js';
import {
  forgetSent,
  receiveTensor,
  sendTensor,
  type DType,
  type SentTensor,
  type Tensor,
} from '../tensor/index.js';
import { SnapshotMemory } from './snapshot-memory.js';

const OPTIMIZER_FILE = 'optimizer.safetensors';

/** A tensor of a snapshot, on its way to the thread that writes. */
export interface SentWeight {
  readonly name: string;
  readonly tensor: SentTensor;
  /** In which it is written. */
  readonly dtype: DType;
}

/** Plain values, and tensors that are to be taken once: by `writeSnapshot` or by `forgetSnapshot`. */
export interface Snapshot {
  readonly state: TrainingState;
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Of an adapter, in PEFT's layout, and not of a whole model. */
  readonly isAdapter: boolean;
  readonly weights: readonly SentWeight[];
  readonly optimizer: readonly SentWeight[];
  /** Of the weights, where the run keeps one. */
  readonly average?: readonly SentWeight[];
  /** Of the copy; 0 where there was no memory for one: then nothing may change until the snapshot is written. */
  readonly bytes: number;
  readonly copyMs: number;
}

/** What a snapshot is taken of. */
export interface SnapshotSource {
  readonly state: TrainingState;
  readonly model: Parameters<typeof modelFiles>[0];
  /** Whether the model's adapter alone is set down. */
  readonly isAdapter?: boolean;
  /** Parameters that may change from now on. */
  readonly changing: ReadonlySet<Tensor>;
  readonly optimizer: Iterable<readonly [name: string, tensor: Tensor]>;
  /** Of the weights, where the run keeps one. */
  readonly average?: Iterable<readonly [name: string, tensor: Tensor]> | undefined;
}

/** What else is written with a snapshot. */
export interface WriteOptions {
  /** Checkpoints that stay, this one included; all when left out. */
  readonly keep?: number;
  /** The best so far, which stay besides. */
  readonly best?: BestCheckpoints;
}

export interface WrittenCheckpoint {
  readonly step: number;
  readonly path: string;
  readonly writeMs: number;
  /** Why an older checkpoint that was to go is still there, or best.json is not as it should be. */
  readonly fault?: string;
}

/** Copies what changes; blocks this thread no longer than that takes. On an accelerator, the copy is in the host's memory.
 *  @param memory which the copy is put into, and stays there until the next; of its own when left out
 *  @param freeBytes of the host's memory, which what is added to `memory` must not exceed */
export function takeSnapshot(
  { state, model, isAdapter = false, changing, optimizer, average }: SnapshotSource,
  memory?: SnapshotMemory,
  freeBytes = freemem(),
): Snapshot {
  const begun = performance.now();
  const { files, weights, made } = isAdapter ? adapterParts(model) : { ...modelFiles(model), made: [] };
  const states = [...optimizer];
  const averages = average && [...average];
  const copied = new Map<string, Tensor>([
    ...weights
      .filter(({ tensor }) => changing.has(tensor))
      .map(({ name, tensor }) => [`weight ${name}`, tensor] as const),
    ...states.map(([name, tensor]) => [`optimizer ${name}`, tensor] as const),
    ...(averages ?? []).map(([name, tensor]) => [`average ${name}`, tensor] as const),
  ]);
  const needed = sumOf([...copied.values()]);
  const places = memory ?? new SnapshotMemory();
  places.keepOnly(copied);
  const isCopied = needed - places.numBytes <= freeBytes;
  if (!isCopied) places.clear();
  const sent: SentTensor[] = [];
  try {
    const copies = isCopied ? places.copy(copied) : new Map<string, Tensor>();
    const send = (key: string, tensor: Tensor): SentTensor => {
      const number = sendTensor(copies.get(key) ?? tensor);
      sent.push(number);
      return number;
    };
    const sendNamed = (kind: string) => {
      return ([name, tensor]: readonly [string, Tensor]): SentWeight => ({
        name,
        tensor: send(`${kind} ${name}`, tensor),
        dtype: tensor.dtype,
      });
    };
    return {
      state,
      files: new Map(Array.from(files, ([name, bytes]) => [name, sharedBytes(bytes)])),
      isAdapter,
      weights: weights.map(({ name, tensor, dtype }) => ({
        name,
        tensor: send(`weight ${name}`, tensor),
        dtype,
      })),
      optimizer: states.map(sendNamed('optimizer')),
      ...(averages && { average: averages.map(sendNamed('average')) }),
      bytes: isCopied ? needed : 0,
      copyMs: performance.now() - begun,
    };
  } catch (error) {
    forgetSent(sent);
    if (!isCopied) throw error;
    places.clear();
    // There was less memory than was said.
    return takeSnapshot(
      { state, model, isAdapter, changing, optimizer: states, average: averages },
      memory,
      -1,
    );
  } finally {
    for (const tensor of made) tensor.dispose();
    if (!memory) places.clear(); // what was sent lives on by itself
  }
}

const shared = new WeakMap<Uint8Array, Uint8Array>();

/** The same bytes where every thread can read them, so that posting them copies nothing; a tokenizer has many megabytes. */
function sharedBytes(bytes: Uint8Array): Uint8Array {
  let found = shared.get(bytes);
  if (!found) {
    found = new Uint8Array(new SharedArrayBuffer(bytes.length));
    found.set(bytes);
    shared.set(bytes, found);
  }
  return found;
}

/** Writes a snapshot as `checkpoint-STEP` into the run's folder, then best.json, then removes what is not to stay. Frees the
 *  snapshot's tensors in any case.
 *  @throws {CheckpointError} when it cannot be written; nothing is removed then, and best.json is as it was */
export async function writeSnapshot(
  runDir: string,
  snapshot: Snapshot,
  options: WriteOptions = {},
): Promise<WrittenCheckpoint> {
  const begun = performance.now();
  const received: Tensor[] = [];
  const receive = ({ name, tensor, dtype }: SentWeight) => {
    const taken = receiveTensor(tensor);
    received.push(taken);
    return { name, tensor: taken, dtype };
  };
  try {
    const { state, files } = snapshot;
    const weights = snapshot.weights.map(receive);
    const optimizer = snapshot.optimizer.map(receive);
    const average = snapshot.average?.map(receive);
    const { folder } = await saveCheckpoint(runDir, {
      state,
      writeWeights: async (beside) => {
        // All at once: what others write to the same disk must not find it full of a checkpoint that is given up.
        await refuseFullDisk(
          join(beside, stateFile),
          sumOf([...weights, ...optimizer, ...(average ?? [])].map(({ tensor }) => tensor)),
        );
        if (snapshot.isAdapter) await writeAdapter(beside, files, weights);
        else await writeModelFiles(beside, { files, weights });
      },
      optimizer: optimizer.map(({ name, tensor }) => [name, tensor] as const),
      ...(average && { average: average.map(({ name, tensor }) => [name, tensor] as const) }),
    });
    const fault = await settleOthers(runDir, state.step, options);
    return {
      step: state.step,
      path: folder,
      writeMs: performance.now() - begun,
      ...(fault !== undefined && { fault }),
    };
  } finally {
    for (const tensor of received) tensor.dispose();
    forgetSnapshot(snapshot);
  }
}

/** Writes a snapshot that holds all as files, the optimizer's among them, in the same way. */
export async function writeFiles(
  runDir: string,
  { state, files }: Snapshot,
  options: WriteOptions = {},
): Promise<WrittenCheckpoint> {
  const begun = performance.now();
  const { [OPTIMIZER_FILE]: optimizer = new Uint8Array(), ...others } = Object.fromEntries(files);
  const sizes = [...files.values()].reduce((sum, { length }) => sum + length, 0);
  const { folder } = await saveCheckpoint(runDir, {
    state,
    writeWeights: async (beside) => {
      await refuseFullDisk(join(beside, stateFile), sizes);
      for (const [name, bytes] of Object.entries(others)) {
        await withFile(join(beside, name), (handle) => handle.writeFile(bytes));
      }
    },
    optimizer,
  });
  const fault = await settleOthers(runDir, state.step, options);
  const writeMs = performance.now() - begun;
  return { step: state.step, path: folder, writeMs, ...(fault !== undefined && { fault }) };
}

/** Frees what of a snapshot nobody has taken. */
export function forgetSnapshot({ weights, optimizer, average = [] }: Snapshot): void {
  forgetSent([...weights, ...optimizer, ...average].map(({ tensor }) => tensor));
}

/** Once the checkpoint of a step is complete: best.json, then what is not to stay goes.
 *  @returns why that could not be done; the checkpoint is there all the same */
export async function settleOthers(
  runDir: string,
  step: number,
  { keep = Infinity, best }: WriteOptions,
): Promise<string | undefined> {
  try {
    if (best) await writeBest(runDir, best);
    const except = best ? best.best.map((entry) => entry.step) : [];
    await pruneCheckpoints(runDir, { newest: step, keep, except });
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** With the processor's files, so that the folder can be used as a model's. */
function adapterParts(model: SnapshotSource['model']): ModelFiles & { readonly made: readonly Tensor[] } {
  const { files, weights, made } = adapterFiles(model);
  const all = new Map([...companionsOf(model.config), ...files]);
  return {
    files: all,
    weights: weights.map(([name, tensor]) => ({ name, tensor, dtype: tensor.dtype })),
    made,
  };
}

async function writeAdapter(
  folder: string,
  files: ModelFiles['files'],
  weights: ModelFiles['weights'],
): Promise<void> {
  for (const [name, bytes] of files) await withFile(join(folder, name), (handle) => handle.writeFile(bytes));
  await writeSafetensors(
    join(folder, ADAPTER_WEIGHTS),
    weights.map(({ name, tensor }) => [name, tensor] as const),
  );
}

function sumOf(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { numBytes }) => sum + numBytes, 0);
}
