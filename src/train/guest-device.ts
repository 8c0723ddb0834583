// The device of a guest: its learner on the host's own thread, since a model that a pipeline file builds is a function of that
// file and cannot be sent to another. Pictures are decoded in sharp's threads meanwhile; between two calls the flow goes on.

import { join } from 'node:path';
import { type BestCheckpoints, readState, readArrays, encodeArrays } from '../checkpoint/index.js';
import type { ArrayBatch } from '../data/arrays.js';
import type { DeviceThread } from '../device/thread.js';
import { TrainError } from '../errors.js';
import type { CheckpointWriterApi } from './checkpoint-worker.js';
import { type SavedPosition, type StreamState, positionOf, savedPosition } from './checkpoint.js';
import type { Guest, GuestSpec, Learner } from './guest.js';
import type { LearnerFacts, UpdateResult } from './learner.js';
import { type Snapshot, settleOthers, writeFiles } from './snapshot.js';
import type { DeviceApi } from './worker.js';

const OPTIMIZER = 'optimizer.safetensors';
const WEIGHTS = 'model.safetensors';

type Api = Record<string, (...args: never[]) => unknown>;

/** Calls done in order, as a device thread does them. */
function inOrder<A>(api: { readonly [K in keyof A]: unknown }, close?: () => void | Promise<void>) {
  let last: Promise<unknown> = Promise.resolve();
  const call = (method: string, args: readonly unknown[], options?: { signal?: AbortSignal }) => {
    const called = (api as unknown as Api)[method];
    const answer = last.then(() => {
      if (!called) throw new TrainError(`guest: no method '${method}'`);
      return called(...([...args, options?.signal] as never[]));
    });
    last = answer.catch(() => undefined);
    return answer;
  };
  const terminate = async (): Promise<void> => {
    await last;
    await close?.();
  };
  return { call, terminate } as unknown as Pick<DeviceThread<A>, 'call' | 'terminate'>;
}

/** What a guest answers beside what a device thread does. */
export type GuestDeviceApi = Omit<DeviceApi, 'generate' | 'writeAverage'> & {
  answer(batch: ArrayBatch): Promise<string[]>;
};

/** The learner, called as a device thread is. */
export function guestThread(guest: Guest, spec: GuestSpec) {
  let opened: Learner | undefined;
  let [stepMs, waitMs] = [0, 0];
  let idleSince = performance.now();
  /** The first failure: calls that were queued behind it must change nothing. */
  let broken: { readonly error: unknown } | undefined;
  const learner = (): Learner => {
    if (!opened) throw new TrainError('guest: expected open() first');
    return opened;
  };
  const waitFromNow = (): void => {
    idleSince = performance.now();
  };
  const work = async <T>(part: () => T | Promise<T>): Promise<T> => {
    if (broken) throw broken.error;
    const begun = performance.now();
    waitMs += begun - idleSince;
    try {
      return await part();
    } catch (error) {
      broken = { error };
      throw error;
    } finally {
      waitFromNow();
      stepMs += idleSince - begun;
    }
  };
  return inOrder<GuestDeviceApi>(
    {
      open: async (): Promise<LearnerFacts & { readonly snapshotBytes: number }> => {
        opened = await guest.open(spec);
        const facts = opened.facts();
        waitFromNow();
        return { ...facts, snapshotBytes: sizeOf((await opened.save()).weights) };
      },
      accumulate: (batch: ArrayBatch, rows: readonly string[]) =>
        work(() => learner().accumulate(batch, rows)),
      update: async (rows: readonly string[]): Promise<UpdateResult> => {
        const update = await work(() => learner().update(rows));
        const result = { ...update, stepMs, waitMs };
        [stepMs, waitMs] = [0, 0];
        return result;
      },
      /** Its gradients are its own: there is nothing to warn of. */
      finish: () => [],
      answer: async (batch: ArrayBatch, signal?: AbortSignal) => {
        signal?.throwIfAborted();
        const answers = await learner().answer(batch);
        waitFromNow();
        return answers;
      },
      snapshot: async (stream: StreamState, best: BestCheckpoints | undefined) => {
        const snapshot = await snapshotOf(learner(), stream, best);
        waitFromNow();
        return snapshot;
      },
      load: async (folder: string): Promise<SavedPosition> => {
        const position = await load(learner(), folder);
        waitFromNow();
        return position;
      },
      waitFromNow,
      forget: () => undefined,
      freeSnapshotMemory: () => undefined,
    },
    () => opened?.close?.(),
  );
}

/** Writes snapshots of a guest, on this thread: a guest's are small, and files are written beside it all. */
export function guestWriter(): Pick<DeviceThread<CheckpointWriterApi>, 'call' | 'terminate'> {
  return inOrder<CheckpointWriterApi>({ write: writeFiles, settle: settleOthers });
}

async function snapshotOf(
  learner: Learner,
  stream: StreamState,
  best: BestCheckpoints | undefined,
): Promise<Snapshot> {
  const begun = performance.now();
  const { step, random, weights, optimizer, files = [] } = await learner.save();
  return {
    state: {
      step,
      rng: { guest: Buffer.from(random).toString('base64') },
      position: positionOf(stream),
      ledger: {},
      ...(best && { best }),
    },
    files: new Map([...files, [WEIGHTS, encodeArrays(weights)], [OPTIMIZER, encodeArrays(optimizer)]]),
    isAdapter: false,
    weights: [],
    optimizer: [],
    bytes: Math.max(1, sizeOf(weights) + sizeOf(optimizer)),
    copyMs: performance.now() - begun,
  };
}

async function load(learner: Learner, folder: string): Promise<SavedPosition> {
  const state = readState(folder);
  await learner.load({
    step: state.step,
    random: Buffer.from(state.rng['guest'] ?? '', 'base64').toString(),
    weights: readArrays(join(folder, WEIGHTS)),
    optimizer: readArrays(join(folder, OPTIMIZER)),
  });
  return savedPosition(state, folder);
}

function sizeOf(arrays: Awaited<ReturnType<Learner['save']>>['weights']): number {
  return [...arrays.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
}
