// What makes a learner of the small job's model, or of another.

import type { LearnerSpec } from '../../src/train/learner.js';
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
