// Saving models, and drawing random ones. What is saved here is loaded by transformers in test/reference/load_checkpoint.py,
// run by hand.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { readHeader } from '../../src/checkpoint/index.js';
import { ConfigError } from '../../src/errors.js';
import { fromConfig, fromPretrained, loadConfig, savePretrained } from '../../src/models/gemma3n/index.js';
import { full, liveTensors, noGrad, rand, scope, setNumThreads } from '../../src/tensor/index.js';
import { temporaryFolder } from './load-files.js';
import { readJson, referencePath } from './text-reference.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const tokenizer = join(referencePath(''), '../tiny-gemma3n');

describe('savePretrained', () => {
  test.each(['text-sharing', 'text-plain', 'multimodal-plain'])(
    'writes %s with the bytes and the configuration that transformers wrote',
    async (name) => {
      const folder = join(temporaryFolder(), 'saved');
      await savePretrained(await fromPretrained(referencePath(name)), folder);
      expect(fs.readdirSync(folder).sort()).toEqual([
        'config.json',
        'generation_config.json',
        'model.safetensors',
      ]);
      const [wanted, saved] = [referencePath(name), folder].map((path) =>
        fs.readFileSync(join(path, 'model.safetensors')),
      );
      expect(saved!.equals(wanted!)).toBe(true);
      const config = readJson(join(referencePath(name), 'config.json'));
      config['dtype'] ??= 'bfloat16'; // where it is not stated, that of the weights
      expect(readJson(join(folder, 'config.json'))).toEqual(config);
    },
  );

  test('keeps floats floats, which transformers insists on', async () => {
    const folder = temporaryFolder();
    await savePretrained(await fromPretrained(referencePath('text-sharing')), folder);
    const text = fs.readFileSync(join(folder, 'config.json'), 'utf8');
    expect(text).toContain('"final_logit_softcapping": 12.0');
    expect(text).toMatch(/"activation_sparsity_pattern": \[\s+0\.6,\s+0\.0,/);
    expect(text).toContain('"rope_theta": 5000.0');
    expect(text).toContain('"hidden_size": 32,');
  });

  test('states the dtype that the weights have now', async () => {
    const folder = temporaryFolder();
    await savePretrained(
      await fromPretrained(referencePath('multimodal-plain'), { dtype: 'bfloat16' }),
      folder,
    );
    expect(readJson(join(folder, 'config.json'))['dtype']).toBe('bfloat16');
    const { header } = readHeader(join(folder, 'model.safetensors'));
    expect(new Set([...header.entries.values()].map(({ dtype }) => dtype))).toEqual(new Set(['BF16']));
    const again = await fromPretrained(folder);
    expect(again.outputWeight.dtype).toBe('bfloat16');
  });

  test('writes shards with an index, and over them one file without leftovers', async () => {
    const folder = join(temporaryFolder(), 'saved');
    const model = await fromPretrained(referencePath('text-sharing'));
    await savePretrained(model, folder, { maxShardBytes: 60_000 });
    const shards = fs.readdirSync(folder).filter((name) => name.startsWith('model-'));
    expect(shards.length).toBeGreaterThan(3);
    for (const shard of shards) expect(fs.statSync(join(folder, shard)).size).toBeLessThan(70_000);
    expect(fs.existsSync(join(folder, 'model.safetensors.index.json'))).toBe(true);
    const again = new Map((await fromPretrained(folder)).namedParameters());
    for (const [name, parameter] of model.namedParameters()) {
      expect(again.get(name)!.toTypedArray()).toEqual(parameter.toTypedArray());
    }

    fs.writeFileSync(join(folder, 'README.md'), 'mine');
    await savePretrained(model, folder);
    expect(fs.readdirSync(folder).sort()).toEqual([
      'README.md',
      'config.json',
      'generation_config.json',
      'model.safetensors',
    ]);
    expect(fs.readdirSync(join(folder, '..'))).toEqual(['saved']);
  });

  test('copies the processor files of the folder that the model came from, even when that is gone', async () => {
    const origin = temporaryFolder();
    await savePretrained(await fromPretrained(referencePath('text-sharing')), origin, {
      processor: tokenizer,
    });
    const files = [
      'tokenizer.json',
      'tokenizer_config.json',
      'chat_template.jinja',
      'preprocessor_config.json',
    ];
    expect(fs.readdirSync(origin)).toEqual(expect.arrayContaining(files));
    fs.writeFileSync(join(origin, 'generation_config.json'), '{"top_k": 64}');

    const [model, drawn] = [await fromPretrained(origin), fromConfig(await loadConfig(origin), { seed: 0 })];
    fs.rmSync(origin, { recursive: true });
    for (const one of [model, drawn]) {
      const folder = join(temporaryFolder(), 'saved');
      await savePretrained(one, folder);
      for (const name of files) {
        expect(fs.readFileSync(join(folder, name)).equals(fs.readFileSync(join(tokenizer, name)))).toBe(true);
      }
      expect(readJson(join(folder, 'generation_config.json'))).toEqual({ top_k: 64 });
    }
  });

  test('leaves what was there when it cannot write, and nothing beside it', async () => {
    const folder = join(temporaryFolder(), 'saved');
    const model = await fromPretrained(referencePath('text-sharing'));
    await savePretrained(model, folder);
    const before = fs.readFileSync(join(folder, 'model.safetensors'));
    noGrad(() => model.outputWeight.zero_());
    model.languageModel.norm.weight!.dispose();
    await expect(savePretrained(model, folder)).rejects.toThrow('disposed');
    expect(fs.readFileSync(join(folder, 'model.safetensors')).equals(before)).toBe(true);
    expect(fs.readdirSync(join(folder, '..'))).toEqual(['saved']);

    await expect(
      savePretrained(await fromPretrained(referencePath('text-plain')), '/proc/saved'),
    ).rejects.toThrow(
      /^\/proc\/saved: expected to write the checkpoint, received ENOENT: .*; check the path/,
    );
    await expect(savePretrained(model, folder, { maxShardBytes: 0 })).rejects.toThrow(ConfigError);
  });
});

describe('fromConfig', () => {
  const config = readJson(join(referencePath('multimodal-plain'), 'config.json'));

  test('draws the same weights from the same seed, others from another, and fills all of them', () => {
    const weightsOf = (seed: number) => {
      const model = fromConfig(config, { seed });
      return new Map(Array.from(model.namedParameters(), ([name, t]) => [name, t.toTypedArray()]));
    };
    const [one, same, other] = [weightsOf(1), weightsOf(1), weightsOf(2)];
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
    for (const [name, values] of one) {
      const numbers = Array.from(values, Number);
      expect(
        numbers.every((value) => Number.isFinite(value) && Math.abs(value) < 100),
        name,
      ).toBe(true);
    }
    // memory that nobody fills is often zero
    expect(one.get('model.audio_tower.conformer.0.norm.weight')!.every((value) => value === 1)).toBe(true);
    expect(one.get('model.embed_audio.embedding.weight')!.some((value) => value !== 0)).toBe(true);
  });

  test('leaves the engine generator as it was', () => {
    const next = (): unknown => scope(() => rand([2]).toTypedArray());
    const before = next();
    fromConfig(config, { seed: 5 }).dispose();
    expect(next()).not.toEqual(before);
  });

  test('saves a model that loads again, in every dtype', async () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const folder = temporaryFolder();
      const model = fromConfig(config, { seed: 3, dtype });
      await savePretrained(model, folder);
      const again = new Map((await fromPretrained(folder)).namedParameters());
      for (const [name, parameter] of model.namedParameters()) {
        expect(again.get(name)!.dtype).toBe(dtype);
        expect(again.get(name)!.toTypedArray()).toEqual(parameter.toTypedArray());
      }
    }
  });

  test('names every fault of the configuration and of its options', () => {
    expect(() =>
      fromConfig({ model_type: 'gemma3n_text', hidden_size: -1, vocab_size: 'x' }, { seed: 0 }),
    ).toThrow(/hidden_size[\s\S]*vocab_size|vocab_size[\s\S]*hidden_size/);
    expect(() => fromConfig(config, { seed: -1, dtype: 'int8' as never })).toThrow(
      /fromConfig: dtype[\s\S]*seed|fromConfig: seed[\s\S]*dtype/,
    );
  });

  test('leaks nothing', async () => {
    const before = await settledTensors();
    fromConfig(config, { seed: 0 }).dispose();
    expect(liveTensors()).toBe(before);
    full([1], 1).dispose();
  });
});
