// A learner's state to and from a checkpoint folder: weights, optimizer, step and random state in one atomic set.

import {
  loadCheckpoint,
  openAverage,
  type BestCheckpoints,
  type TrainingState,
} from '../checkpoint/index.js';
import { ConfigError, TrainError } from '../errors.js';
import type { FlowPosition } from '../flow/index.js';
import { loadWeights, refillAdapter } from '../models/gemma3n/index.js';
import type { Optimizer } from '../optim/index.js';
import { decode, z } from '../schema.js';
import { dtypeBytes } from '../tensor/index.js';
import { isFrozen } from './freeze.js';
import type { Learner } from './learner.js';
import { takeSnapshot, type Snapshot, type SnapshotSource } from './snapshot.js';
import type { SnapshotMemory } from './snapshot-memory.js';
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
  /** What the optimizer's state is of; checkpoints of before it was noted have none. */
  optimizer: z.strictObject({ kind: z.string(), groups: z.array(z.string()) }).optional(),
  /** How often the average of the weights was updated, where there is one. */
  ema: z.strictObject({ updates: count }).optional(),
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

/** Sets down the learner's state behind its last update, for `writeSnapshot`.
 *  @param stream as it stood behind that update
 *  @param best the best checkpoints by a metric, this one included where it is
 *  @param memory which the copy is put into, kept from one snapshot to the next */
export function snapshotOf(
  learner: Learner,
  { stream, plan }: StreamState,
  best?: BestCheckpoints,
  memory?: SnapshotMemory,
): Snapshot {
  const { random, step, projectorPending } = learner.state;
  const { average } = learner;
  const source: SnapshotSource = {
    state: {
      step,
      rng: { cpu: Buffer.from(random).toString('base64') },
      position: positionOf(
        { stream, plan },
        projectorPending,
        noteOf(optimizerOf(learner)),
        average?.updates,
      ),
      ledger: {},
      ...(learner.origin && { origin: learner.origin }),
      ...(best && { best }),
    },
    model: learner.model,
    isAdapter: learner.hasAdapter,
    changing: learner.changing,
    optimizer: optimizerOf(learner).namedState(namesOf(learner)),
    average: average?.named(),
  };
  return takeSnapshot(source, memory);
}

/** A position as state.json holds it. */
export function positionOf(
  { stream, plan }: StreamState,
  projectorPending = false,
  optimizer?: OptimizerNote,
  averageUpdates?: number,
): z.core.util.JSONType {
  const position: z.input<typeof POSITION> = {
    stream: (stream as z.input<typeof STREAM> | undefined) ?? null,
    ...(plan && { plan }),
    projectorPending,
    ...(optimizer && { optimizer }),
    ...(averageUpdates !== undefined && { ema: { updates: averageUpdates } }),
  };
  return position as z.core.util.JSONType;
}

/** The same, read from a checkpoint's state. @throws {ConfigError} when it is none */
export function savedPosition(
  state: TrainingState,
  folder: string,
): SavedPosition & {
  readonly projectorPending: boolean;
  readonly optimizer: OptimizerNote | undefined;
  readonly ema: { readonly updates: number } | undefined;
} {
  const { stream, ...rest } = decode(POSITION, state.position, `${folder}/state.json: position`);
  const { plan, projectorPending, optimizer, ema } = rest;
  return { step: state.step, stream: stream ?? undefined, plan, projectorPending, optimizer, ema };
}

/** Bytes of the copy that `snapshotOf` makes once every weight has had a gradient.
 *  @param idle parts that get none, in the words of `freeze` */
export function snapshotBytes(learner: Learner, idle: readonly string[] = []): number {
  // Not by numBytes: tensors of shapes alone, which a plan counts, have none.
  const weights = [...learner.changing].reduce((sum, { numel, dtype }) => sum + numel * dtypeBytes(dtype), 0);
  const state = learner.optimizer?.stateBytesOf((name = '') => !isFrozen(name, idle)) ?? 0;
  return weights + state + (learner.average?.numBytes ?? 0);
}

/** Restores what was written of `snapshotOf` into a learner of the same pipeline. */
export function loadTraining(learner: Learner, folder: string): SavedPosition {
  const optimizer = optimizerOf(learner);
  const { state, optimizer: stored } = loadCheckpoint(folder);
  try {
    const { projectorPending, optimizer: saved, ema, ...position } = savedPosition(state, folder);
    if (saved) refuseOther(saved, noteOf(optimizer), folder);
    refuseOtherAverage(ema !== undefined, learner.average !== undefined, folder);
    if (learner.hasAdapter) refillAdapter(learner.model, folder);
    else loadWeights(learner.model, folder);
    optimizer.loadState(stored, namesOf(learner));
    if (ema) loadAverage(learner, folder, ema.updates);
    const random =
      state.rng['cpu'] === undefined ? learner.state.random : Buffer.from(state.rng['cpu'], 'base64');
    learner.restore({ step: state.step, random, projectorPending });
    return position;
  } finally {
    stored.close();
  }
}

/** A state is of one optimizer and of its groups; rates and decays may change. */
function refuseOther(saved: OptimizerNote, { kind, groups }: OptimizerNote, folder: string): void {
  const show = (note: OptimizerNote) =>
    note.groups.length > 0
      ? `${note.kind} with the groups ${note.groups.join(', ')}`
      : `${note.kind} without groups`;
  const [before, now] = [show(saved), show({ kind, groups })];
  if (before === now) return;
  throw new ConfigError({
    where: 'step.optimizer',
    expected: `that of ${folder}: ${before}`,
    received: now,
    remedy: 'continue with the same, or begin a new run from the weights of that folder',
  });
}

/** An average that begins in the middle of a run, or ends there, is another than the declared one. */
function refuseOtherAverage(saved: boolean, declared: boolean, folder: string): void {
  if (saved === declared) return;
  throw new ConfigError({
    where: 'step.ema',
    expected: saved ? `an average, as ${folder} holds one` : `none, as ${folder} holds none`,
    received: declared ? 'one' : 'none',
    remedy: 'continue with the same, or begin a new run from the weights of that folder',
  });
}

function loadAverage({ average }: Learner, folder: string, updates: number): void {
  const stored = openAverage(folder);
  if (!stored) {
    throw new TrainError({
      where: folder,
      expected: 'ema.safetensors, which its state.json tells of',
      received: 'none',
      remedy: 'copy the checkpoint again, whole',
    });
  }
  try {
    average?.load(stored, updates);
  } finally {
    stored.close();
  }
}

interface OptimizerNote {
  readonly kind: string;
  readonly groups: string[];
}

function noteOf({ kind, groups }: Optimizer): OptimizerNote {
  return { kind, groups: [...groups] };
}

function optimizerOf({ optimizer }: Learner): Optimizer {
  if (optimizer) return optimizer;
  throw new TrainError('checkpoint: expected a learner that trains');
}

function namesOf({ trainable }: Learner): string[] {
  return trainable.map(([name]) => name);
}
