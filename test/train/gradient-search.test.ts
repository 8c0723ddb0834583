// Which module a gradient that is not finite comes from, in every part of a model, with and without checkpointing.

import { beforeAll, describe, expect, it } from 'vitest';
import { fromConfig, lora, applyAdapter } from '../../src/index.js';
import type { Batch } from '../../src/data/types.js';
import { loadConfig } from '../../src/models/gemma3n/index.js';
import type { Module } from '../../src/nn/index.js';
import { type Tensor, liveTensors, setNumThreads } from '../../src/tensor/index.js';
import { findGradientFault } from '../../src/train/gradient-search.js';
import { Learner } from '../../src/train/learner.js';
import { load, wordsOf } from '../models/multimodal-reference.js';
import { modelFolder } from './job.js';
import { learnerSpec } from './learner-spec.js';

beforeAll(() => setNumThreads(1));

/** Lets a module give what it gave, with a gradient of NaN on its way: that of a root at 0, times 0. */
function breakModule(model: Module, path: string): void {
  const [, module] = [...model.namedModules()].find(([name]) => name === path)!;
  const broken = Object.create(Object.getPrototypeOf(module) as object) as object;
  Object.defineProperty(broken, 'forward', {
    value: function (this: Module, x: Tensor, ...rest: unknown[]): Tensor {
      const own = Object.getPrototypeOf(broken) as { forward(x: Tensor, ...rest: unknown[]): Tensor };
      return own.forward.call(this, x, ...rest).add(x.sum().mul(0).sqrt());
    },
  });
  Object.setPrototypeOf(module, broken);
}

const TEXT = 'model.languageModel.layers';

function mixed() {
  const { model, values } = load('mixed');
  const side = 'left';
  const inputs = {
    ...wordsOf(values, side),
    pixelValues: values.read('pixel_values'),
    inputFeatures: values.read('input_features'),
    inputFeaturesMask: values.read('input_features_mask'),
  };
  for (const [, parameter] of model.namedParameters()) parameter.requiresGrad = true;
  return { model, inputs };
}

describe('a gradient that is not finite', () => {
  it.each([
    [`${TEXT}.1.mlp.upProj`, 'model.language_model.layers.1.mlp.up_proj'],
    [`${TEXT}.0.laurel.linearLeft`, 'model.language_model.layers.0.laurel.linear_left'],
    [
      'model.visionTower.timmModel.blocks.1.0.pwProj.conv',
      'model.vision_tower.timm_model.blocks.1.0.pw_proj.conv',
    ],
    [
      'model.audioTower.conformer.0.ffwLayerEnd.ffwLayer_1',
      'model.audio_tower.conformer.0.ffw_layer_end.ffw_layer_1',
    ],
  ])('that begins in %s is told of it, and of no other', (path, name) => {
    const { model, inputs } = mixed();
    const live = liveTensors();
    for (const checkpointing of [false, true])
      expect(findGradientFault(model, inputs, checkpointing)).toBeUndefined();
    breakModule(model, path);
    for (const checkpointing of [false, true])
      expect(findGradientFault(model, inputs, checkpointing)).toMatchObject({ name });
    for (const [, parameter] of model.namedParameters()) parameter.grad = null;
    expect(liveTensors()).toBe(live);
    model.dispose();
  });

  it('is named in the error of a learner, by the one of its batches that makes it', async () => {
    const spec = learnerSpec({ accumulate: 2 });
    const model = fromConfig(await loadConfig(modelFolder()), { seed: 1 });
    applyAdapter(model, lora({ rank: 2 }));
    const learner = new Learner(model, spec);
    const shape = [1, 6];
    const batch = (word: number): Batch => {
      const ids = Int32Array.of(2, word, 41, 42, 43, 44);
      return {
        inputIds: { data: ids, shape },
        attentionMask: { data: new Uint8Array(6).fill(1), shape },
        labels: { data: ids, shape },
        ...{ numTokens: 6, numLabels: 5, numSamples: 1 },
      };
    };
    breakModule(model, `${TEXT}.2.selfAttn.oProj`);
    learner.accumulate(batch(40), ['a']);
    learner.accumulate(batch(50), ['b']);
    expect(() => learner.update(['a', 'b'])).toThrow(
      /^step 1, gradient norm: .*received NaN; .*; the first module of the backward pass that hands on such a gradient is model\.language_model\.layers\.2\.self_attn\.o_proj \(Linear\), of gradients up to [\d.e-]+$/,
    );
    model.dispose();
  });
});
