// A learner's state to and from a checkpoint folder: weights, optimizer, step and random state in one atomic set.

import { loadCheckpoint, saveCheckpoint } from '../checkpoint/index.js';
import { TrainError } from '../errors.js';
import { loadWeights, savePretrained } from '../models/gemma3n/index.js';
import { randomState, setRandomState } from '../tensor/index.js';
import type { Learner } from './learner.js';

/** Where the stream stood at a checkpoint. */
export interface SavedPosition {
  readonly step: number;
  readonly position: { readonly batches: number };
}

/** Writes `checkpoint-STEP` into the run's folder and prunes to `keep`; returns its path. */
export async function saveTraining(
  learner: Learner,
  runDir: string,
  state: SavedPosition,
  keep: number,
): Promise<string> {
  const { optimizer } = learner;
  if (!optimizer) throw new TrainError('checkpoint: expected a learner that trains');
  const { folder } = await saveCheckpoint(
    runDir,
    {
      state: {
        step: state.step,
        rng: { cpu: Buffer.from(randomState()).toString('base64') },
        position: state.position,
        ledger: {},
      },
      writeWeights: (beside) => savePretrained(learner.model, beside),
      optimizer: optimizer.namedState(learner.trainable.map(([name]) => name)),
    },
    { keep },
  );
  return folder;
}

/** Restores what `saveTraining` wrote into a learner of the same pipeline.
 *  @returns the step to continue after */
export function loadTraining(learner: Learner, folder: string): { step: number } {
  const { optimizer } = learner;
  if (!optimizer) throw new TrainError('checkpoint: expected a learner that trains');
  const { state, optimizer: stored } = loadCheckpoint(folder);
  try {
    loadWeights(learner.model, folder);
    optimizer.loadState(
      stored,
      learner.trainable.map(([name]) => name),
    );
  } finally {
    stored.close();
  }
  const rng = state.rng['cpu'];
  if (rng !== undefined) setRandomState(Buffer.from(rng, 'base64'));
  learner.resumeAt(state.step);
  return { step: state.step };
}
