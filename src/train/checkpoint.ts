// A learner's state to and from a checkpoint folder: weights, optimizer, step and random state in one atomic set.

import { loadCheckpoint, saveCheckpoint } from '../checkpoint/index.js';
import { TrainError } from '../errors.js';
import type { FlowPosition } from '../flow/index.js';
import { loadWeights, savePretrained } from '../models/gemma3n/index.js';
import type { AdamW } from '../optim/index.js';
import { decode, z } from '../schema.js';
import type { Learner } from './learner.js';
import { STREAM_PLAN, type StreamPlan } from './stream-plan.js';

const count = z.int().min(0);

const STREAM = z.strictObject({
  item: count,
  origin: z.strictObject({ file: z.string(), rowGroup: count, row: count }).optional(),
  cursor: z.json().optional(),
  parts: count,
  done: z.strictObject({ issued: count, dropped: count, quarantined: count }),
});

const POSITION = z.looseObject({
  /** null: at its beginning. */
  stream: STREAM.nullable(),
  plan: STREAM_PLAN.optional(),
  projectorPending: z.boolean().default(false),
});

/** Where a run stood at a checkpoint. */
export interface SavedPosition {
  /** Updates made. */
  readonly step: number;
  /** Where the stream goes on; undefined at its beginning. */
  readonly stream: FlowPosition | undefined;
  /** What the stream was made by. */
  readonly plan: StreamPlan | undefined;
}

/** Where the stream stands, and what it is made by. */
export type StreamState = Omit<SavedPosition, 'step'>;

/** Writes `checkpoint-STEP` of the last update into the run's folder and prunes to `keep`, or not when left out.
 *  @param stream as it stood behind that update */
export async function saveTraining(
  learner: Learner,
  runDir: string,
  { stream, plan }: StreamState,
  keep?: number,
): Promise<{ step: number; path: string }> {
  const { random, step, projectorPending } = learner.state;
  const position: z.input<typeof POSITION> = {
    stream: (stream as z.input<typeof STREAM> | undefined) ?? null,
    ...(plan && { plan }),
    projectorPending,
  };
  const { folder } = await saveCheckpoint(
    runDir,
    {
      state: {
        step,
        rng: { cpu: Buffer.from(random).toString('base64') },
        position: position as z.core.util.JSONType,
        ledger: {},
        ...(learner.origin && { origin: learner.origin }),
      },
      writeWeights: (beside) => savePretrained(learner.model, beside),
      optimizer: optimizerOf(learner).namedState(namesOf(learner)),
    },
    keep === undefined ? {} : { keep },
  );
  return { step, path: folder };
}

/** Restores what `saveTraining` wrote into a learner of the same pipeline. */
export function loadTraining(learner: Learner, folder: string): SavedPosition {
  const optimizer = optimizerOf(learner);
  const { state, optimizer: stored } = loadCheckpoint(folder);
  const { stream, plan, projectorPending } = decode(
    POSITION,
    state.position,
    `${folder}/state.json: position`,
  );
  try {
    loadWeights(learner.model, folder);
    optimizer.loadState(stored, namesOf(learner));
  } finally {
    stored.close();
  }
  const random =
    state.rng['cpu'] === undefined ? learner.state.random : Buffer.from(state.rng['cpu'], 'base64');
  learner.restore({ step: state.step, random, projectorPending });
  return { step: state.step, stream: stream ?? undefined, plan };
}

function optimizerOf({ optimizer }: Learner): AdamW {
  if (optimizer) return optimizer;
  throw new TrainError('checkpoint: expected a learner that trains');
}

function namesOf({ trainable }: Learner): string[] {
  return trainable.map(([name]) => name);
}
