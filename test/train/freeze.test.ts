import { describe, expect, it } from 'vitest';
import { ones } from '../../src/tensor/index.js';
import { freeze } from '../../src/train/freeze.js';

function parameters() {
  return parametersNamed([
    'model.vision_tower.timm_model.conv_stem.conv.weight',
    'model.language_model.embed_tokens.weight',
    'model.language_model.layers.0.mlp.up_proj.weight',
    'model.language_model.layers.10.mlp.up_proj.weight',
  ]);
}

function parametersNamed(names: readonly string[]) {
  return names.map((name): [string, ReturnType<typeof ones>] => {
    const tensor = ones([1]);
    tensor.requiresGrad = true;
    return [name, tensor];
  });
}

describe('freeze', () => {
  it('stops a part from learning and returns the rest', () => {
    const all = parameters();
    const rest = freeze(all, ['vision', 'embeddings']);
    expect(rest.map(([name]) => name)).toEqual(all.slice(2).map(([name]) => name));
    expect(all.map(([, tensor]) => tensor.requiresGrad)).toEqual([false, false, true, true]);
  });

  it('takes module paths and globs, whole names only', () => {
    expect(freeze(parameters(), ['model.language_model.layers.1'].slice(1))).toHaveLength(4);
    expect(freeze(parameters(), ['model.language_model.layers.10'])).toHaveLength(3);
    expect(freeze(parameters(), ['model.language_model.layers.*.mlp'])).toHaveLength(2);
    expect(freeze(parameters(), ['*embed_tokens*'])).toHaveLength(3);
  });

  it('accepts a part that the model does not have', () => {
    expect(freeze(parameters(), ['audio'])).toHaveLength(4);
  });

  it('takes sound as a tower with its projector, and projectors alone', () => {
    const names = [
      'model.audio_tower.conformer.0.norm.weight',
      'model.embed_audio.embedding_projection.weight',
      'model.embed_vision.embedding_projection.weight',
    ];
    const rest = (pattern: string) => freeze(parametersNamed(names), [pattern]).map(([name]) => name);
    expect(rest('audio')).toEqual(names.slice(2));
    expect(rest('projector')).toEqual(names.slice(0, 1));
    expect(rest('model.audio_tower')).toEqual(names.slice(1));
  });

  it('takes the whole of a model that has only text by its name', () => {
    const names = [
      'model.embed_tokens.weight',
      'model.layers.0.mlp.up_proj.weight',
      'model.norm.weight',
      'model.altup_projections.0.weight',
      'model.per_layer_model_projection.weight',
    ];
    expect(freeze(parametersNamed(names), ['text'])).toEqual([]);
    expect(freeze(parametersNamed(names), ['embeddings'])).toHaveLength(4);
  });

  it('takes no part from what objects inherit', () => {
    expect(() => freeze(parameters(), ['constructor'])).toThrow(
      "model.freeze 'constructor': expected a part",
    );
  });

  it('refuses a pattern that matches nothing', () => {
    expect(() => freeze(parameters(), ['model.language_model.layers.1'])).toThrow(
      "model.freeze 'model.language_model.layers.1': expected a part (vision, audio, projector, text, embeddings) or a " +
        'pattern that matches a parameter, received one that matches nothing; the names begin with model.vision_tower, ' +
        'model.language_model',
    );
  });
});
