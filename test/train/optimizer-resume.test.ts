// Going on from a checkpoint with each optimizer, and what is refused.

import { beforeAll, describe, expect, it } from 'vitest';
import type { OptimizerOptions } from '../../src/optim/index.js';
import { scope, setNumThreads } from '../../src/tensor/index.js';
import { loadTraining, snapshotOf } from '../../src/train/checkpoint.js';
import { Learner } from '../../src/train/learner.js';
import { writeSnapshot } from '../../src/train/snapshot.js';
import { modelFolder, temporaryFolder } from './job.js';
import { train } from './learner-spec.js';

beforeAll(() => setNumThreads(1));

const NO_STREAM = { stream: undefined, plan: undefined };

function open(optimizer: OptimizerOptions): Promise<Learner> {
  return Learner.open({
    model: {
      kind: 'gemma3n',
      path: modelFolder(),
      dtype: 'bfloat16',
      device: 'cpu',
      freeze: ['vision', 'audio'],
      weights: 'random',
      projector: 'pretrained',
    },
    step: { kind: 'sft', optimizer, schedule: { kind: 'constant' }, maxSteps: 10, accumulate: 1 },
    seed: 1,
  });
}

function weights(learner: Learner): unknown[] {
  return learner.trainable.map(([name, tensor]) => [
    name,
    Buffer.from(scope(() => tensor.toBytes())).toString('base64'),
  ]);
}

const ADAMW: OptimizerOptions = { kind: 'adamw', lr: 1e-3 };

describe('a run that goes on', () => {
  it.each<OptimizerOptions>([
    { ...ADAMW, rounding: 'stochastic' },
    { kind: 'lion', lr: 1e-3, rounding: 'stochastic' },
    { kind: 'adamw8bit', lr: 1e-3, rounding: 'stochastic' },
    { kind: 'muon', lr: 1e-3, rounding: 'stochastic' },
    { kind: 'muon', lr: 1e-3 },
  ])('is bit for bit the one without a break: %o', async (optimizer) => {
    const whole = await open(optimizer);
    train(whole, 2);
    const { path } = await writeSnapshot(temporaryFolder(), snapshotOf(whole, NO_STREAM));
    train(whole, 2);
    const other = await open(optimizer);
    loadTraining(other, path);
    train(other, 2);
    expect(weights(other)).toEqual(weights(whole));
  });

  it('with another optimizer or other groups is refused, and with another rate is not', async () => {
    const learner = await open({ ...ADAMW, groups: [{ match: '*norm*', lr: 1e-4 }] });
    train(learner, 1);
    const { path } = await writeSnapshot(temporaryFolder(), snapshotOf(learner, NO_STREAM));
    const load = async (optimizer: OptimizerOptions) => loadTraining(await open(optimizer), path);
    await expect(load({ kind: 'lion', lr: 1e-3 })).rejects.toThrow(
      `step.optimizer: expected that of ${path}: adamw with the groups *norm*, received lion without groups; continue with the same, or begin a new run from the weights of that folder`,
    );
    await expect(load(ADAMW)).rejects.toThrow('received adamw without groups');
    expect(await load({ ...ADAMW, lr: 5, groups: [{ match: '*norm*', lr: 1 }] })).toMatchObject({ step: 1 });
  });
});
