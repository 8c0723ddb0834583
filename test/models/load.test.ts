// Loading recorded checkpoints of transformers (test/reference/text.py, multimodal.py): logits as recorded, the layouts
// that transformers accepts, dead weights, and every way in which a folder can be wrong.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { SafetensorsFile, writeSafetensors, writeShards } from '../../src/checkpoint/index.js';
import { CheckpointError, ConfigError, HubError } from '../../src/errors.js';
import {
  fromPretrained,
  loadWeights,
  namedWeights,
  savePretrained,
  type Gemma3n,
  type LoadOptions,
} from '../../src/models/gemma3n/index.js';
import {
  full,
  liveTensors,
  noGrad,
  scope,
  setNumThreads,
  tensor,
  zeros,
  type Tensor,
} from '../../src/tensor/index.js';
import { changedCopy, temporaryFolder, tensorsOf } from './load-files.js';
import { scaledDifference } from './reference.js';
import { referencePath } from './text-reference.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const deadName = 'model.layers.4.self_attn.k_proj.weight';

/** Largest difference of the model's logits from the recorded ones, scaled. */
function difference(model: Gemma3n, name: string): number {
  using values = new SafetensorsFile(join(referencePath(name), 'values.safetensors'));
  return scope(() =>
    noGrad(() => {
      const attentionMask = values.read('left.attention_mask');
      const { logits } = model.forward({
        inputIds: values.read('left.input_ids'),
        attentionMask,
        ...(name.startsWith('multimodal') && { pixelValues: values.read('pixel_values') }),
      });
      const mask = attentionMask.to('float32').unsqueeze(-1);
      return scaledDifference(logits.mul(mask), values.read('left.logits').mul(mask));
    }),
  );
}

async function rejection(folder: string, options?: LoadOptions): Promise<Error> {
  return fromPretrained(folder, options).then(
    () => {
      throw new Error('expected an error, received a model');
    },
    (error: Error) => error,
  );
}

/** The message, with the folder's name replaced. */
async function message(folder: string): Promise<string> {
  const error = await rejection(folder);
  expect(error).toBeInstanceOf(CheckpointError);
  return error.message.replaceAll(folder, 'FOLDER');
}

describe('fromPretrained', () => {
  test.each(['text-sharing', 'text-plain', 'text-clipped', 'multimodal-plain', 'multimodal-wide'])(
    'gives the recorded logits of %s',
    async (name) => {
      const model = await fromPretrained(referencePath(name), { dtype: 'float32' });
      expect(difference(model, name)).toBeLessThan(1e-4);
      expect(model.training).toBe(false);
      model.dispose();
    },
  );

  test('reads shards through their index', async () => {
    const folder = await changedCopy('text-sharing', () => []);
    fs.rmSync(join(folder, 'model.safetensors'));
    await writeShards(folder, tensorsOf(referencePath('text-sharing')), { maxShardBytes: 40_000 });
    expect(fs.readdirSync(folder).length).toBeGreaterThan(5);
    expect(difference(await fromPretrained(folder), 'text-sharing')).toBeLessThan(1e-4);
  });

  test('takes the dtype asked for, else that of config.json, else that of the weights', async () => {
    const dtypeOf = async (folder: string, options?: LoadOptions): Promise<string> => {
      const model = await fromPretrained(folder, options);
      const dtypes = new Set(Array.from(model.namedParameters(), ([, { dtype }]) => dtype));
      expect(dtypes.size).toBe(1);
      model.dispose();
      return [...dtypes][0]!;
    };
    const narrow = (tensors: Map<string, Tensor>): Map<string, Tensor> =>
      new Map(Array.from(tensors, ([name, t]) => [name, t.to('bfloat16')]));
    const folder = await changedCopy('text-plain', narrow, (config) => delete config['dtype']);
    expect(await dtypeOf(folder)).toBe('bfloat16');
    expect(await dtypeOf(folder, { dtype: 'float32' })).toBe('float32');
    const older = (config: Record<string, unknown>): void => {
      delete config['dtype'];
      config['torch_dtype'] = 'float16';
    };
    expect(await dtypeOf(await changedCopy('text-plain', narrow, older))).toBe('float16');
  });

  test('leaves no tensors behind but its parameters, and none when it fails', async () => {
    const before = await settledTensors();
    const model = await fromPretrained(referencePath('multimodal-plain'));
    const count = [...model.namedParameters()].length;
    expect(liveTensors() - before).toBe(count);
    model.dispose();
    expect(liveTensors()).toBe(before);
    const folder = await changedCopy('text-plain', (tensors) => void tensors.delete('model.norm.weight'));
    const after = await settledTensors();
    await rejection(folder);
    expect(liveTensors()).toBe(after);
  });

  test('asks the Hub for a repository, and names a missing folder and a file', async () => {
    const offline = await fromPretrained('google/no-such-model', { offline: true }).catch(
      (error: unknown) => error,
    );
    expect(offline).toBeInstanceOf(HubError);
    expect((offline as Error).message).toMatch(/^google\/no-such-model: expected to find it in the cache/);
    const folder = temporaryFolder();
    expect(await message(join(folder, 'none'))).toContain('received no such folder; check the path');
    fs.writeFileSync(join(folder, 'file'), '');
    expect(await message(join(folder, 'file'))).toContain('received a file; check the path');
    expect(await message(folder)).toBe(
      "FOLDER/config.json: expected a model's configuration in JSON, received no such file; check the path, or download or save it again",
    );
  });

  test('refuses weights that another tool has quantised, by its name', async () => {
    const folder = await changedCopy(
      'text-plain',
      () => undefined,
      (config) => {
        config['quantization_config'] = { quant_method: 'bitsandbytes', load_in_4bit: true };
      },
    );
    const error = await rejection(folder);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toContain(
      "config.json: quantization_config: expected weights as they were trained, received quantised ones (bitsandbytes); load the checkpoint that they were made from, with quantise: 'nf4'",
    );
  });

  test('refuses options that it does not know', async () => {
    const error = await rejection(referencePath('text-plain'), { dtype: 'int8', speed: 'x' } as never);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toMatch(/fromPretrained: dtype: .*"int8".*\n.*speed.*unknown/);
  });
});

describe('layouts that transformers accepts', () => {
  const rename = (change: (name: string) => string) => (tensors: Map<string, Tensor>) =>
    Array.from(tensors, ([name, t]) => [change(name), t] as const);

  test.each([
    ['text-sharing', 'of the inner model', (name: string) => name.replace('model.', '')],
    [
      'text-sharing',
      'of a multimodal model',
      (name: string) => name.replace('model.', 'model.language_model.'),
    ],
    ['multimodal-plain', 'of the inner model', (name: string) => name.replace('model.', '')],
    [
      'text-sharing',
      'with the output head in place of the embeddings',
      (name: string) => (name === 'model.embed_tokens.weight' ? 'lm_head.weight' : name),
    ],
  ])('load: %s %s', async (name, _, change) => {
    expect(
      difference(await fromPretrained(await changedCopy(name, rename(change)), { dtype: 'float32' }), name),
    ).toBeLessThan(1e-4);
  });

  test('may hold a copy of tied embeddings as output head, but no other head', async () => {
    const copy = await changedCopy(
      'text-sharing',
      (tensors) => void tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight')!),
    );
    expect(difference(await fromPretrained(copy), 'text-sharing')).toBeLessThan(1e-4);
    const other = await changedCopy(
      'text-sharing',
      (tensors) => void tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight')!.add(1)),
    );
    expect(await message(other)).toBe(
      'FOLDER/model.safetensors: tensor "lm_head.weight": expected the values of the token embeddings, which config.json ties it to, received others; set tie_word_embeddings to false in config.json to keep both',
    );
  });

  test('of both kinds at once are refused', async () => {
    const folder = await changedCopy(
      'text-sharing',
      (tensors) => void tensors.set('norm.weight', tensors.get('model.norm.weight')!),
    );
    expect(await message(folder)).toMatch(
      /FOLDER\/model\.safetensors: tensor ".*norm\.weight": expected one tensor for model\.norm\.weight, received two: .* and .*; remove one of them/,
    );
  });
});

describe('dead weights of sharing layers', () => {
  const withDead = (tensors: Map<string, Tensor>): void => {
    const [kProj, kNorm] = ['k_proj', 'k_norm'].map((name) =>
      tensors.get(`model.layers.0.self_attn.${name}.weight`)!,
    );
    for (const layer of [3, 4, 5]) {
      tensors.set(
        `model.layers.${layer}.self_attn.k_proj.weight`,
        full(kProj!.shape, layer, { dtype: 'bfloat16' }),
      );
      tensors.set(`model.layers.${layer}.self_attn.v_proj.weight`, zeros(kProj!.shape));
      tensors.set(`model.layers.${layer}.self_attn.k_norm.weight`, zeros(kNorm!.shape));
    }
  };

  test('are kept and written back as they were, and are no parameters', async () => {
    const folder = await changedCopy('text-sharing', withDead);
    const model = await fromPretrained(folder);
    expect(difference(model, 'text-sharing')).toBeLessThan(1e-4);
    expect([...model.namedParameters()].map(([name]) => name)).not.toContain(deadName);
    expect(new Map(namedWeights(model)).get(deadName)!.requiresGrad).toBe(false);

    const saved = join(temporaryFolder(), 'saved');
    await savePretrained(model, saved);
    const [before, after] = [folder, saved].map((path) => fs.readFileSync(join(path, 'model.safetensors')));
    expect(after!.equals(before!)).toBe(true);
  });

  test('may be absent, wholly or in part, and then stay so', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      withDead(tensors);
      tensors.delete(deadName);
    });
    const model = await fromPretrained(folder);
    const names = Array.from(namedWeights(model), ([name]) => name);
    expect(names).not.toContain(deadName);
    expect(names).toContain(deadName.replace('4', '5'));
    const plain = await fromPretrained(referencePath('text-sharing'));
    expect([...namedWeights(plain)].length).toBe([...plain.namedParameters()].length);
  });

  test('of another shape are refused', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => void tensors.set(deadName, zeros([2, 2])));
    expect(await message(folder)).toMatch(
      /tensor "model\.layers\.4\.self_attn\.k_proj\.weight": expected shape \[16, 32\], as config\.json has it, received \[2, 2\]/,
    );
  });

  test('do not exist in a layer of its own keys', async () => {
    const folder = await changedCopy(
      'text-plain',
      (tensors) => void tensors.set('model.layers.0.self_attn.v_norm.weight', zeros([8])),
    );
    expect(await message(folder)).toContain('unknown 1 tensor: model.layers.0.self_attn.v_norm.weight');
  });
});

describe('weights that do not fit their config.json', () => {
  test('are listed: the missing and the unknown', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      tensors.delete('model.norm.weight');
      tensors.delete('model.layers.2.mlp.up_proj.weight');
      tensors.set('model.layers.9.surprise', zeros([1]));
    });
    expect(await message(folder)).toBe(
      'FOLDER: expected the weights of the model in its config.json, each once, received weights that lack 2 tensors: model.layers.2.mlp.up_proj.weight, model.norm.weight, and weights with unknown 1 tensor: model.layers.9.surprise; use the config.json that belongs to these weights, or download or save the checkpoint again',
    );
  });

  test('are listed up to twenty, with their number', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      for (const name of [...tensors.keys()].filter((name) => name.includes('layers.1.')))
        tensors.delete(name);
    });
    expect(await message(folder)).toMatch(/lack 24 tensors: model\.layers\.1\.[^;]* and 4 more; use/);
  });

  test('of another shape are named with both shapes', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      tensors.set('model.norm.weight', zeros([33]));
      tensors.set('model.layers.0.altup.router_norm.weight', zeros([1, 32]));
    });
    expect(await message(folder)).toBe(
      'FOLDER/model.safetensors: tensor "model.layers.0.altup.router_norm.weight": expected shape [32], as config.json has it, received [1, 32] (and other shapes for 1 more tensor: model.norm.weight); use the config.json that belongs to these weights, in FOLDER',
    );
  });

  test('of whole numbers are refused', async () => {
    const folder = await changedCopy(
      'text-sharing',
      (tensors) => void tensors.set('model.norm.weight', zeros([32], { dtype: 'int32' })),
    );
    expect(await message(folder)).toContain(
      'tensor "model.norm.weight": expected floating-point weights: F32, BF16, F16 or F64, received I32; use weights that are not quantised',
    );
  });

  test('in a file that is cut off are refused', async () => {
    const folder = await changedCopy('text-sharing', () => {});
    const path = join(folder, 'model.safetensors');
    fs.truncateSync(path, fs.statSync(path).size - 10);
    expect(await message(folder)).toMatch(
      /expected data_offsets inside the file's \d+ bytes of data, received/,
    );
  });

  test('leave a model that is loaded again as it was', async () => {
    const model = await fromPretrained(referencePath('text-sharing'));
    const folder = await changedCopy('text-sharing', (tensors) => {
      for (const [name, t] of tensors) tensors.set(name, t.mul(0));
      tensors.delete('model.norm.weight');
    });
    expect(() => loadWeights(model, folder)).toThrow('lack 1 tensor: model.norm.weight');
    expect(difference(model, 'text-sharing')).toBeLessThan(1e-4);
  });
});

test('the audio tower is checked and kept', async () => {
  const name = 'model.audio_tower.conformer.0.attention.attn.per_dim_scale';
  const folder = await changedCopy('multimodal-plain', (tensors) => {
    const { shape, numel } = tensors.get(name)!;
    tensors.set(
      name,
      tensor(
        Array.from({ length: numel }, (_, i) => i / 7),
        shape,
        'bfloat16',
      ),
    );
  });
  const model = await fromPretrained(folder);
  const saved = join(temporaryFolder(), 'saved');
  await savePretrained(model, saved);
  const [before, after] = [folder, saved].map((path) => fs.readFileSync(join(path, 'model.safetensors')));
  expect(after!.equals(before!)).toBe(true);

  const tensors = tensorsOf(folder);
  tensors.delete(name);
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
  expect(await message(folder)).toContain(`lack 1 tensor: ${name}`);
  tensors.set(name, zeros([3]));
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
  expect(await message(folder)).toMatch(
    /per_dim_scale": expected shape \[\d+\], as config\.json has it, received \[3\]/,
  );
});
