// Slices against plain torch slicing into transformers models (test/reference/matformer.py).

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, test } from 'vitest';
import { SafetensorsFile, openWeights } from '../../src/checkpoint/index.js';
import { fromConfig, fromPretrained } from '../../src/models/gemma3n/index.js';
import { sliceMatFormer } from '../../src/models/gemma3n/matformer.js';
import { randn, scope, setNumThreads, tensorMemory } from '../../src/tensor/index.js';
import { changedCopy, temporaryFolder } from './load-files.js';
import { readJson, referencePath, relativeMax } from './text-reference.js';
import { settledTensors } from '../live.js';

interface Recorded {
  readonly source: string;
  readonly layers: number[];
  readonly intermediateSizes: number[];
  readonly config: Record<string, unknown>;
  readonly weights: Record<string, [shape: number[], sha256: string]>;
}

beforeAll(() => setNumThreads(1));

const cases = ['sharing', 'narrow', 'unshared', 'plain', 'multimodal'] as const;
const recorded = (name: string): Recorded =>
  readJson(referencePath(`matformer/${name}.json`)) as unknown as Recorded;
const textConfigOf = (folder: string): Record<string, unknown> => {
  const config = readJson(join(folder, 'config.json'));
  return (config['text_config'] as Record<string, unknown> | undefined) ?? config;
};

/** Shape and SHA-256 of every tensor's bytes. */
function weightsOf(folder: string): Recorded['weights'] {
  const source = openWeights(folder);
  const found = source.names.map((name): [string, Recorded['weights'][string]] => {
    using weight = source.read(name);
    return [name, [[...weight.shape], createHash('sha256').update(weight.toBytes()).digest('hex')]];
  });
  source.close();
  return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}

describe.each(cases)('the slice %s', (name) => {
  const { source, layers, intermediateSizes, config, weights } = recorded(name);

  it('of a folder has the weights that torch cuts, bit by bit, and their configuration', async () => {
    const out = join(temporaryFolder(), 'slice');
    const result = await sliceMatFormer(referencePath(source), { layers, intermediateSizes }, out);
    expect(weightsOf(out)).toEqual(weights);
    expect(textConfigOf(out)).toMatchObject(config);
    expect(result).toMatchObject({
      layers,
      intermediateSizes,
      numKvSharedLayers: config['num_kv_shared_layers'],
    });
  });

  it('computes the logits of the cut model in transformers', async () => {
    const out = join(temporaryFolder(), 'slice');
    await sliceMatFormer(referencePath(source), { layers, intermediateSizes }, out);
    const model = await fromPretrained(out, { dtype: 'float32' });
    using values = new SafetensorsFile(referencePath(`matformer/${name}.safetensors`));
    scope(() => {
      const { logits } = model.forward({
        inputIds: values.read('input_ids'),
        attentionMask: values.read('attention_mask'),
        ...(values.names.includes('pixel_values') && { pixelValues: values.read('pixel_values') }),
      });
      expect(relativeMax(logits, values.read('logits'))).toBeLessThan(1e-4);
    });
  });

  it('of a model in memory is the same', async () => {
    const [ofModel, ofFolder] = [temporaryFolder(), temporaryFolder()];
    const model = await fromPretrained(referencePath(source));
    await sliceMatFormer(model, { layers, intermediateSizes }, ofModel);
    await sliceMatFormer(referencePath(source), { layers, intermediateSizes }, ofFolder);
    expect(textConfigOf(ofModel)).toMatchObject(config);
    const expected = new Map((await fromPretrained(ofFolder)).namedParameters());
    const found = new Map((await fromPretrained(ofModel)).namedParameters());
    expect([...found.keys()]).toEqual([...expected.keys()]);
    for (const [key, weight] of found)
      expect(weight.toTypedArray(), key).toEqual(expected.get(key)?.toTypedArray());
  });
});

test('dead keys and values of the layers that stay are carried over, and a tied head', async () => {
  const dead = 'model.layers.5.self_attn.k_proj.weight';
  const folder = await changedCopy('text-sharing', (tensors) => {
    tensors.set(dead, randn([16, 32]));
    tensors.set('model.layers.4.self_attn.k_proj.weight', randn([16, 32]));
    tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight')!.clone());
  });
  const out = join(temporaryFolder(), 'slice');
  await sliceMatFormer(folder, { layers: [1, 2, 5] }, out);
  const [before, after] = [weightsOf(folder), weightsOf(out)];
  expect(after['model.layers.2.self_attn.k_proj.weight']).toEqual(before[dead]);
  expect(after['lm_head.weight']).toEqual(before['lm_head.weight']);
  expect(Object.keys(after).filter((key) => key.includes('layers.2.self_attn'))).toHaveLength(4);
  await fromPretrained(out);
});

test('checkpoints of older layouts are read, shards are written, and processor files come along', async () => {
  const folder = await changedCopy(
    'multimodal-plain',
    (tensors) => new Map([...tensors].map(([key, value]) => [key.replace(/^model\./, ''), value])),
  );
  fs.writeFileSync(join(folder, 'tokenizer.json'), '{}');
  fs.writeFileSync(join(folder, 'generation_config.json'), '{"eos_token_id": 106}');
  const { layers, intermediateSizes, weights } = recorded('multimodal');
  const out = join(temporaryFolder(), 'slice');
  await sliceMatFormer(folder, { layers, intermediateSizes }, out, { maxShardBytes: 50_000 });
  expect(weightsOf(out)).toEqual(weights);
  expect(fs.readdirSync(out).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(2);
  expect(fs.readFileSync(join(out, 'tokenizer.json'), 'utf8')).toBe('{}');
  expect(fs.readFileSync(join(out, 'generation_config.json'), 'utf8')).toBe('{"eos_token_id": 106}');
});

test('a folder passes through in small pieces', async () => {
  const folder = await changedCopy(
    'text-sharing',
    () => {
      const model = fromConfig(configOf(60_000, 96), { seed: 1 });
      return model.namedParameters();
    },
    (config) => Object.assign(config, configOf(60_000, 96)),
  );
  const fileBytes = fs.statSync(join(folder, 'model.safetensors')).size;
  expect(fileBytes).toBeGreaterThan(130e6);
  await settledTensors();
  const { used } = tensorMemory({ restart: true });
  await sliceMatFormer(folder, { layers: [1, 2, 5] }, join(temporaryFolder(), 'slice'));
  expect(tensorMemory().most - used).toBeLessThan(60e6);
});

/** The configuration of text-sharing with larger tables. */
function configOf(vocabulary: number, perLayer: number): Record<string, unknown> {
  return {
    ...readJson(join(referencePath('text-sharing'), 'config.json')),
    vocab_size: 96,
    vocab_size_per_layer_input: vocabulary,
    hidden_size_per_layer_input: perLayer,
  };
}

describe('what may not be cut', () => {
  const out = (): string => join(temporaryFolder(), 'slice');
  const cut = (slice: Parameters<typeof sliceMatFormer>[1]) =>
    sliceMatFormer(referencePath('text-sharing'), slice, out());

  it.each([
    [
      { layers: [0, 2, 3, 5] },
      'layer 1, whose keys and values layer 3 share, received layers without it; keep 1, the last unshared sliding attention layer',
    ],
    [{ layers: [0, 1, 5] }, 'layer 2, whose keys and values layer 5 share'],
    [{ layers: [1, 2, 6] }, 'layers below 6, received 6; count them from 0'],
    [{ layers: [2, 1] }, 'each layer once, in order, received 2 before 1'],
    [{ layers: [1, 1, 2] }, 'each layer once, in order, received 1 before 1'],
    [{ layers: [1, 2], intermediateSizes: [25, 32] }, 'at most 24 for layer 1, received 25'],
    [{ layers: [1, 2], intermediateSizes: [8] }, '2 widths, one for each layer that stays, received 1'],
    [{ intermediateSizes: 0 }, 'intermediateSizes'],
    [{}, 'expected something to cut'],
    [{ preset: 'e2b' as const, layers: [1] }, 'expected a preset, or layers and intermediateSizes'],
    [{ preset: 'e2b' as const }, 'preset e2b: expected a model of 35 layers'],
    [{ preset: 'e9b' as never }, 'preset'],
  ])('%o is refused by name', async (slice, message) => {
    await expect(cut(slice)).rejects.toThrow(message);
  });

  it('a layer that nobody else needs may go, and sharing layers without their sharers', async () => {
    const { numKvSharedLayers } = await cut({ layers: [0, 2, 5] });
    expect(numKvSharedLayers).toBe(1);
    expect((await cut({ layers: [0] })).numKvSharedLayers).toBe(0);
  });

  it('a slice does not replace what it is cut from', async () => {
    const folder = await changedCopy('text-sharing', () => {});
    await expect(sliceMatFormer(folder, { layers: [0] }, `${folder}/.`)).rejects.toThrow('another folder');
  });

  it('weights of another configuration are refused before anything is written', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => void tensors.delete('model.norm.weight'));
    const place = out();
    await expect(sliceMatFormer(folder, { layers: [0] }, place)).rejects.toThrow(
      'weights that lack 1 tensor',
    );
    expect(fs.existsSync(place)).toBe(false);
  });
});
