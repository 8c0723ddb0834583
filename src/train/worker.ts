// The device thread's entry: serves one Learner to the host.

import { workerData } from 'node:worker_threads';
import type { Batch } from '../data/types.js';
import { serve } from '../device/serve.js';
import { TrainError } from '../errors.js';
import { type SavedPosition, type StreamState, loadTraining, saveTraining } from './checkpoint.js';
import { Learner, type LearnerFacts, type LearnerSpec, type UpdateResult } from './learner.js';

let learner: Learner | undefined;

const api = {
  async open(): Promise<LearnerFacts> {
    learner = await Learner.open(workerData as LearnerSpec);
    return learner.facts();
  },
  accumulate(batch: Batch, rows: readonly string[]): void {
    opened().accumulate(batch, rows);
  },
  update(rows: readonly string[]): UpdateResult {
    return opened().update(rows);
  },
  generate(
    batch: Batch,
    options: { maxNewTokens: number; eosTokenIds: number[] },
    signal?: AbortSignal,
  ): Promise<number[][]> {
    return opened().generate(batch, options, signal);
  },
  async save(
    runDir: string,
    stream: StreamState,
    keep: number | undefined,
  ): Promise<{ step: number; path: string }> {
    const saved = await saveTraining(opened(), runDir, stream, keep);
    opened().waitFromNow();
    return saved;
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
