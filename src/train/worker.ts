// The device thread's entry: serves one Learner to the host.

import { workerData } from 'node:worker_threads';
import type { BestCheckpoints } from '../checkpoint/index.js';
import type { Batch } from '../data/types.js';
import { serve } from '../device/serve.js';
import { TrainError } from '../errors.js';
import {
  type SavedPosition,
  type StreamState,
  loadTraining,
  snapshotBytes,
  snapshotOf,
} from './checkpoint.js';
import type { Warning } from './dynamics-warnings.js';
import { Learner, type LearnerFacts, type LearnerSpec, type UpdateResult } from './learner.js';
import { type Snapshot, forgetSnapshot } from './snapshot.js';
import { SnapshotMemory } from './snapshot-memory.js';

let learner: Learner | undefined;
const memory = new SnapshotMemory();

const api = {
  async open(): Promise<LearnerFacts & { readonly snapshotBytes: number }> {
    learner = await Learner.open(workerData as LearnerSpec);
    return { ...learner.facts(), snapshotBytes: snapshotBytes(learner) };
  },
  accumulate(batch: Batch, rows: readonly string[]): void {
    opened().accumulate(batch, rows);
  },
  update(rows: readonly string[]): UpdateResult {
    return opened().update(rows);
  },
  finish(): Warning[] {
    return opened().finish();
  },
  generate(
    batch: Batch,
    options: { maxNewTokens: number; eosTokenIds: number[] },
    signal?: AbortSignal,
  ): Promise<number[][]> {
    return opened().generate(batch, options, signal);
  },
  /** Its tensors wait for whoever writes them, which must be over before the next is taken. */
  snapshot(stream: StreamState, best: BestCheckpoints | undefined): Snapshot {
    const snapshot = snapshotOf(opened(), stream, best, memory);
    opened().waitFromNow();
    return snapshot;
  },
  /** The device was kept from its work by other than a lack of data. */
  waitFromNow(): void {
    opened().waitFromNow();
  },
  forget(snapshot: Snapshot): void {
    forgetSnapshot(snapshot);
  },
  /** The memory of snapshots goes back to the host. */
  freeSnapshotMemory(): void {
    memory.clear();
  },
  async writeAverage(folder: string): Promise<void> {
    await opened().writeAverage(folder);
  },
  load(checkpointDir: string): SavedPosition {
    const position = loadTraining(opened(), checkpointDir);
    opened().waitFromNow();
    return position;
  },
};

/** What the host may call. */
export type DeviceApi = typeof api;

function opened(): Learner {
  if (!learner) throw new TrainError('device thread: expected open() first');
  return learner;
}

serve(api);
