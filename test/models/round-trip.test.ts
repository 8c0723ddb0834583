// transformers -> Sluice -> transformers: every tensor of a checkpoint comes out with the bytes that it went in with, in one
// file or shards, whatever the names' layout; with towers in another dtype than the text, in the wider one. Recorded
// checkpoints are those of test/reference/text.py and multimodal.py; test/reference/round_trip.py, run by hand, adds
// transformers' own loading and saving at both ends.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { openWeights, writeShards } from '../../src/checkpoint/index.js';
import { ConfigError } from '../../src/errors.js';
import { fromPretrained, savePretrained } from '../../src/models/gemma3n/index.js';
import { full, scope, setNumThreads, type Tensor, zeros } from '../../src/tensor/index.js';
import { changedCopy, temporaryFolder, tensorsOf } from './load-files.js';
import { readJson, referencePath } from './text-reference.js';

beforeAll(() => setNumThreads(1));

const texts = ['text-plain', 'text-sharing', 'text-clipped'];
const multimodals = ['multimodal-plain', 'multimodal-wide', 'multimodal-audio', 'multimodal-mixed'];

/** Dtype, shape and digest of every stored tensor. */
function contents(folder: string): Record<string, string> {
  const source = openWeights(folder);
  try {
    const lines = source.names.map((name): [string, string] => {
      const { dtype, shape } = source.entry(name);
      const bytes = scope(() => source.read(name).toBytes());
      return [name, `${dtype} [${shape.join()}] ${createHash('sha256').update(bytes).digest('hex')}`];
    });
    return Object.fromEntries(lines.sort(([a], [b]) => (a < b ? -1 : 1)));
  } finally {
    source.close();
  }
}

async function saved(folder: string, maxShardBytes?: number): Promise<string> {
  const out = join(temporaryFolder(), 'saved');
  const model = await fromPretrained(folder);
  await savePretrained(model, out, maxShardBytes === undefined ? {} : { maxShardBytes });
  model.dispose();
  return out;
}

/** A copy in shards. */
async function sharded(name: string): Promise<string> {
  const folder = temporaryFolder();
  fs.copyFileSync(join(referencePath(name), 'config.json'), join(folder, 'config.json'));
  await writeShards(folder, tensorsOf(referencePath(name)), { maxShardBytes: 50_000 });
  return folder;
}

describe('a checkpoint', () => {
  test.each([...texts, ...multimodals])('%s is written with the bytes that were read', async (name) => {
    const before = contents(referencePath(name));
    expect(contents(await saved(referencePath(name)))).toEqual(before);
    expect(contents(await saved(referencePath(name), 40_000))).toEqual(before);
    expect(contents(await saved(await sharded(name)))).toEqual(before);
  });

  test.each([
    ['float16', ['text-sharing', 'multimodal-audio']],
    ['bfloat16', ['text-sharing', 'multimodal-mixed']],
    ['float32', ['text-plain']],
  ] as const)('of %s stays what it is', async (dtype, names) => {
    for (const name of names) {
      const folder = await changedCopy(
        name,
        (tensors) => Array.from(tensors, ([key, value]) => [key, value.to(dtype)] as const),
        (config) => (config['dtype'] = dtype),
      );
      expect(contents(await saved(folder))).toEqual(contents(folder));
    }
  });

  test('keeps dead keys and values: some, all zero, of another dtype', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      const { shape } = tensors.get('model.layers.0.self_attn.k_proj.weight')!;
      tensors.set('model.layers.3.self_attn.k_proj.weight', full(shape, 0.5, { dtype: 'bfloat16' }));
      tensors.set('model.layers.4.self_attn.v_proj.weight', zeros(shape));
      tensors.set('model.layers.5.self_attn.k_norm.weight', zeros([8], { dtype: 'float16' }));
    });
    expect(contents(await saved(folder))).toEqual(contents(folder));
    expect(contents(await saved(folder, 40_000))).toEqual(contents(folder));
  });
});

describe('names of older layouts', () => {
  const layouts: [string, (name: string) => string][] = [
    [
      'of a text model below language_model',
      (name) => name.replace(/^model\.language_model\./, 'language_model.model.'),
    ],
    ['without the outer model', (name) => name.replace(/^model\./, '')],
    [
      'of a text model called text_model',
      (name) => name.replace(/^model\.language_model\./, 'model.text_model.'),
    ],
  ];

  test.each(layouts)('%s: a multimodal checkpoint comes out in the layout of today', async (_, rename) => {
    const folder = await changedCopy('multimodal-audio', (tensors) =>
      Array.from(tensors, ([name, value]) => [rename(name), value] as const),
    );
    const renamed = Object.keys(contents(folder));
    expect(renamed).not.toContain('model.language_model.norm.weight');
    expect(contents(await saved(folder))).toEqual(contents(referencePath('multimodal-audio')));
  });

  test.each([
    ['language_model.model.', 'language_model.lm_head.weight'],
    ['model.language_model.', 'lm_head.weight'],
    ['text_model.model.', 'text_model.lm_head.weight'],
    ['', 'lm_head.weight'],
  ])(
    '"%s", its head as %s: a text checkpoint too, its copy of tied embeddings left out',
    async (prefix, head) => {
      const folder = await changedCopy('text-sharing', (tensors) => [
        ...Array.from(tensors, ([name, value]) => [name.replace(/^model\./, prefix), value] as const),
        [head, tensors.get('model.embed_tokens.weight')!] as const,
      ]);
      expect(contents(await saved(folder))).toEqual(contents(referencePath('text-sharing')));
    },
  );
});

describe('towers in another dtype than the text', () => {
  const isText = (name: string): boolean => name.includes('language_model');
  const mixed = (
    text: 'float32' | 'bfloat16',
    towers: 'float32' | 'bfloat16',
    dtype?: string,
  ): Promise<string> =>
    changedCopy(
      'multimodal-audio',
      (tensors) =>
        Array.from(tensors, ([name, value]) => [name, value.to(isText(name) ? text : towers)] as const),
      (config) => {
        if (dtype) config['dtype'] = dtype;
      },
    );

  test.each([
    ['float32', 'bfloat16'],
    ['bfloat16', 'float32'],
  ] as const)('load in the wider one, bit by bit: text %s, towers %s', async (text, towers) => {
    const model = await fromPretrained(await mixed(text, towers));
    const wanted = tensorsOf(await mixed(text, towers));
    for (const [name, parameter] of model.namedParameters()) {
      expect(parameter.dtype, name).toBe('float32');
      expect(parameter.toTypedArray(), name).toEqual((wanted.get(name) as Tensor).toTypedArray());
    }
  });

  test('load in the dtype that config.json states, or that is asked for', async () => {
    const folder = await mixed('float32', 'bfloat16', 'bfloat16');
    expect((await fromPretrained(folder)).outputWeight.dtype).toBe('bfloat16');
    expect((await fromPretrained(folder, { dtype: 'float16' })).outputWeight.dtype).toBe('float16');
    const out = await saved(folder);
    expect(readJson(join(out, 'config.json'))['dtype']).toBe('bfloat16');
    expect(Object.values(contents(out)).every((line) => line.startsWith('BF16'))).toBe(true);
  });
});

describe('a checkpoint of another model family', () => {
  test.each([
    [
      { model_type: 'gemma3' },
      'model_type: expected gemma3n, or gemma3n_text: a model of the Gemma 3n family, received "gemma3";',
    ],
    [{ model_type: 'llama', vocab_size: 'many' }, 'received "llama";'],
    [{ model_type: 'gemma3n_vision' }, 'received "gemma3n_vision";'],
    [
      { architectures: ['LlamaForCausalLM'] },
      'architectures: expected gemma3n, or gemma3n_text: a model of the Gemma 3n family, received "LlamaForCausalLM";',
    ],
  ])('is refused by its name alone: %o', async (config, expected) => {
    const folder = temporaryFolder();
    fs.writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
    const error: unknown = await fromPretrained(folder).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toContain(expected);
    expect((error as Error).message.split('\n')).toHaveLength(1);
  });

  test('whose config.json says nothing is known by its weights', async () => {
    const folder = await changedCopy('text-plain', (tensors) =>
      Array.from(tensors, ([name, value]) => [name.replace('altup', 'other'), value] as const),
    );
    await expect(fromPretrained(folder)).rejects.toThrow(
      /lack \d+ tensors: .*altup.* unknown \d+ tensors: .*other/,
    );
  });

  test('or of another size', async () => {
    const folder = await changedCopy(
      'text-plain',
      () => {},
      (config) => (config['hidden_size'] = 48),
    );
    await expect(fromPretrained(folder)).rejects.toThrow(/expected shape \[.*48.*\], as config\.json has it/);
  });
});
