// A learner of the small job's model, or of another, and steps of it.

import type { Batch } from '../../src/data/types.js';
import type { Learner, LearnerSpec } from '../../src/train/learner.js';
import type { ModelOptions, StepOptions } from '../../src/train/options.js';
import { modelFolder } from './job.js';

type Overrides = Partial<ModelOptions> & Partial<StepOptions> & { lr?: number; seed?: number };

/** Random float32 weights and plain AdamW, but for what is overridden. */
export function learnerSpec(overrides: Overrides = {}): LearnerSpec {
  const { lr = 1e-2, seed = 1, clipNorm, maxSteps = 10, accumulate = 1, ...model } = overrides;
  return {
    model: {
      kind: 'gemma3n',
      path: modelFolder(),
      dtype: 'float32',
      device: 'cpu',
      freeze: [],
      weights: 'random',
      projector: 'pretrained',
      ...model,
    },
    step: {
      kind: 'sft',
      optimizer: { kind: 'adamw', lr },
      schedule: { kind: 'constant' },
      ...(clipNorm !== undefined && { clipNorm }),
      maxSteps,
      accumulate,
    },
    seed,
  };
}

/** Updates by one row of six words. */
export function train(learner: Learner, steps: number): void {
  const shape = [1, 6];
  const ids = Int32Array.of(2, 40, 41, 42, 43, 44);
  const batch: Batch = {
    inputIds: { data: ids, shape },
    attentionMask: { data: new Uint8Array(6).fill(1), shape },
    labels: { data: ids, shape },
    numTokens: 6,
    numLabels: 5,
    numSamples: 1,
  };
  for (let step = 0; step < steps; step++) {
    learner.accumulate(batch, ['row']);
    learner.update(['row']);
  }
}
