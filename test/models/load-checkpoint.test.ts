// A run's checkpoint around a model: weights, optimizer and state together, and a run that goes on from it.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import {
  latestCheckpoint,
  loadCheckpoint,
  saveCheckpoint,
  SafetensorsFile,
} from '../../src/checkpoint/index.js';
import { fromPretrained, loadWeights, savePretrained, type Gemma3n } from '../../src/models/gemma3n/index.js';
import { adamw, clipGradNorm, type Optimizer } from '../../src/optim/index.js';
import { scope, setNumThreads } from '../../src/tensor/index.js';
import { temporaryFolder } from './load-files.js';
import { referencePath } from './text-reference.js';

beforeAll(() => setNumThreads(1));

const origin = referencePath('text-sharing');

function learner(model: Gemma3n): { model: Gemma3n; optimizer: Optimizer; names: string[] } {
  const parameters = [...model.namedParameters()];
  const optimizer = adamw({ lr: 1e-3 })(parameters.map(([, tensor]) => tensor));
  return { model: model.train(), optimizer, names: parameters.map(([name]) => name) };
}

function step({ model, optimizer }: ReturnType<typeof learner>): number {
  using values = new SafetensorsFile(join(origin, 'values.safetensors'));
  const loss = scope(() => {
    const { loss, numLabels } = model.lossSum({
      inputIds: values.read('right.input_ids'),
      attentionMask: values.read('right.attention_mask'),
      labels: values.read('right.labels'),
    });
    const mean = loss.div(numLabels);
    mean.backward();
    return mean.item();
  });
  clipGradNorm(
    Array.from(model.namedParameters(), ([, tensor]) => tensor),
    1,
  );
  optimizer.step();
  optimizer.zeroGrad();
  return loss;
}

test.each(['float32', 'bfloat16'] as const)(
  'a run of %s goes on from its checkpoint bit by bit',
  async (dtype) => {
    const run = join(temporaryFolder(), 'run');
    const one = learner(await fromPretrained(origin, { dtype }));
    const losses = [step(one), step(one)];
    await saveCheckpoint(run, {
      state: { step: 2, rng: {}, position: { batches: 2 }, ledger: {} },
      writeWeights: (folder) => savePretrained(one.model, folder),
      optimizer: one.optimizer.namedState(one.names),
    });
    losses.push(step(one), step(one));
    expect(losses[3]).toBeLessThan(losses[0]!);

    const { folder } = latestCheckpoint(run)!;
    expect(fs.readdirSync(run)).toEqual(['checkpoint-2']);
    expect(fs.readdirSync(folder).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'optimizer.safetensors',
      'state.json',
    ]);
    const other = learner(await fromPretrained(origin, { dtype }));
    const { state, optimizer } = loadCheckpoint(folder);
    loadWeights(other.model, folder);
    other.optimizer.loadState(optimizer, other.names);
    optimizer.close();
    expect(state.position).toEqual({ batches: 2 });
    expect([step(other), step(other)]).toEqual(losses.slice(2));
    const parameters = new Map(other.model.namedParameters());
    for (const [name, parameter] of one.model.namedParameters()) {
      expect(parameters.get(name)!.toTypedArray(), name).toEqual(parameter.toTypedArray());
    }
  },
);
