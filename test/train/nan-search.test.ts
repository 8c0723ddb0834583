// The module where a forward pass first gives what is not finite, inside the towers of a model.

import { beforeAll, expect, it } from 'vitest';
import { noGrad, scope, setNumThreads } from '../../src/tensor/index.js';
import { findNotFinite } from '../../src/train/nan-search.js';
import { load, wordsOf } from '../models/multimodal-reference.js';

beforeAll(() => setNumThreads(1));

it.each([
  ['model.vision_tower.timm_model.blocks.1.0.pw_proj.conv', 'Conv2d'],
  ['model.audio_tower.conformer.0.attention.attn.k_proj', 'Linear'],
  ['model.audio_tower.subsample_conv_projection.input_proj_linear', 'Linear'],
  ['model.embed_audio.embedding_projection', 'Linear'],
])('a weight of %s that is no number names it', (name, type) => {
  const { model, values } = load('mixed');
  const inputs = {
    ...wordsOf(values, 'left'),
    pixelValues: values.read('pixel_values'),
    inputFeatures: values.read('input_features'),
    inputFeaturesMask: values.read('input_features_mask'),
  };
  expect(findNotFinite(model, inputs)).toEqual({ kind: 'nothing' });
  const weight = new Map(model.namedParameters()).get(`${name}.weight`)!;
  noGrad(() => scope(() => void weight.fill_(NaN)));
  const found = findNotFinite(model, inputs);
  expect(found).toMatchObject({ kind: 'module', name, weights: [`${name}.weight`] });
  expect((found as { type: string }).type).toContain(type);
  model.dispose();
  values.close();
});
