// Counts against what transformers builds (test/reference/configurations.py) and against what is published.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, test } from 'vitest';
import { fromConfig, inspectCheckpoint, MATFORMER_PRESETS } from '../../src/models/gemma3n/index.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { planSlice } from '../../src/models/gemma3n/matformer-plan.js';
import { parameterShapes } from '../../src/models/gemma3n/shapes.js';
import { liveTensors } from '../../src/tensor/index.js';
import { temporaryFolder } from './load-files.js';
import { readJson, referencePath } from './text-reference.js';
import { settledTensors } from '../live.js';

interface Recorded {
  readonly parts: Record<string, number>;
  readonly total: number;
  readonly dead: number;
  readonly numTensors: number;
  readonly sha256: string;
}

const configPath = (name: string): string =>
  fileURLToPath(new URL(`../../fixtures/configs/${name}.json`, import.meta.url));
const recorded = readJson(configPath('parameters')) as unknown as Record<string, Recorded>;

/** Of all names and shapes. */
function digestOf(shapes: ReadonlyMap<string, readonly number[]>): string {
  const lines = [...shapes]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, s]) => `${name} ${s.join('x')}\n`);
  return createHash('sha256').update(lines.join('')).digest('hex');
}

describe.each([
  // Totals of the published checkpoints; effective sizes as Google's MatFormer Lab counts them.
  ['gemma-3n-E2B', 5_439_438_272, 1_905_495_648, 4_456_156_768],
  ['gemma-3n-E4B', 7_849_978_192, 3_980_491_248, undefined],
] as const)('%s', (name, published, effective, publishedText) => {
  it('has the published number of parameters, and each part its own', async () => {
    const { parameters } = await inspectCheckpoint(configPath(name));
    const { parts, total, dead } = recorded[name]!;
    expect(parameters).toMatchObject({ total: published, live: total, dead, effective });
    expect(parameters.parts).toEqual({ ...parts, outputHead: 0 });
    expect(parameters.resident).toBe(total - parts['perLayerEmbeddings']!);
    const { text, tokenEmbeddings, perLayerEmbeddings } = parameters.parts;
    if (publishedText) expect(text + dead + tokenEmbeddings + perLayerEmbeddings).toBe(publishedText);
  });

  it('has every name and shape of the reference', () => {
    const shapes = parameterShapes(decodeConfig(readJson(configPath(name))));
    expect(shapes.size).toBe(recorded[name]!.numTensors);
    expect(digestOf(shapes)).toBe(recorded[name]!.sha256);
  });
});

test('a large model is inspected at once, and nothing of it stays', async () => {
  await inspectCheckpoint(configPath('gemma-3n-E2B')); // the engine is there
  const [before, rss, began] = [await settledTensors(), process.memoryUsage.rss(), performance.now()];
  await inspectCheckpoint(configPath('gemma-3n-E4B'));
  expect(performance.now() - began).toBeLessThan(5000);
  expect(process.memoryUsage.rss() - rss).toBeLessThan(100e6);
  expect(liveTensors()).toBe(before);
});

test('layers tell whose keys and values they use, how far they see, how wide and how sparse they are', async () => {
  const { layers } = await inspectCheckpoint(configPath('gemma-3n-E2B'));
  expect(layers).toHaveLength(30);
  expect(layers[4]).toEqual({
    layer: 4,
    attention: 'full',
    window: undefined,
    keysValuesOf: 4,
    intermediateSize: 8192,
    sparsity: 0.95,
  });
  expect(layers[21]).toMatchObject({ attention: 'sliding', window: 512, keysValuesOf: 18, sparsity: 0 });
  expect(layers.filter(({ keysValuesOf, layer }) => keysValuesOf !== layer)).toHaveLength(10);
  expect(layers.filter(({ keysValuesOf }) => keysValuesOf === 19).map(({ layer }) => layer)).toEqual([
    19, 24, 29,
  ]);
});

test('a text model with an output head of its own is counted', async () => {
  const { parameters, kind } = await inspectCheckpoint(join(referencePath('text-plain'), 'config.json'));
  const model = fromConfig(readJson(join(referencePath('text-plain'), 'config.json')), { seed: 1 });
  const live = [...model.namedParameters()].reduce((sum, [, tensor]) => sum + tensor.numel, 0);
  expect(kind).toBe('text');
  expect(parameters).toMatchObject({ live, total: live, dead: 0 });
  expect(parameters.parts.outputHead).toBe(96 * 24);
});

test('biases of dead keys and values count where there are any', async () => {
  const config = readJson(join(referencePath('text-sharing'), 'config.json'));
  const dead = async (attention_bias: boolean): Promise<number> =>
    (await inspectCheckpoint({ ...config, attention_bias })).parameters.dead;
  expect((await dead(true)) - (await dead(false))).toBe(3 * 2 * 16);
});

describe('presets', () => {
  const config = decodeConfig(readJson(configPath('gemma-3n-E4B')));

  it('e2b makes of E4B exactly E2B', async () => {
    const { config: sliced, layers } = planSlice(config, { preset: 'e2b' });
    expect(layers).toEqual([...Array(20).keys(), ...Array.from({ length: 10 }, (_, i) => 25 + i)]);
    expect(digestOf(parameterShapes(sliced))).toBe(recorded['gemma-3n-E2B']!.sha256);
    expect(sliced.text).toEqual(decodeConfig(readJson(configPath('gemma-3n-E2B'))).text);
    expect((await inspectCheckpoint(sliced)).parameters.total).toBe(5_439_438_272);
  });

  it.each(MATFORMER_PRESETS)('%s has the size in its name', async (preset) => {
    const { config: sliced } = planSlice(config, { preset });
    const { effective } = (await inspectCheckpoint(sliced)).parameters;
    const stated = preset === 'e2b' ? 1.91 : preset === 'e3.79b-block' ? 3.74 : parseFloat(preset.slice(1));
    expect(Math.abs(effective / 1e9 - stated)).toBeLessThan(0.021);
    expect(sliced.text.numKvSharedLayers).toBe(sliced.text.numHiddenLayers - 20);
  });
});

describe('what is no checkpoint', () => {
  it('a missing folder, a broken file and a faulty configuration are told', async () => {
    const folder = temporaryFolder();
    await expect(inspectCheckpoint(join(folder, 'none'))).rejects.toThrow('no such folder');
    await expect(inspectCheckpoint(folder)).rejects.toThrow('config.json');
    fs.writeFileSync(join(folder, 'x.json'), '{');
    await expect(inspectCheckpoint(join(folder, 'x.json'))).rejects.toThrow(
      "a model's configuration in JSON",
    );
    fs.writeFileSync(join(folder, 'x.json'), '{"num_hidden_layers": 0}');
    await expect(inspectCheckpoint(join(folder, 'x.json'))).rejects.toThrow('num_hidden_layers');
  });

  it.each([
    { batch: 0 },
    { length: 1.5 },
    { images: -1 },
    { dtype: 'int8' as never },
    { freeze: ['legs' as never] },
  ])('%o is refused by its key', async (options) => {
    const [key] = Object.keys(options);
    await expect(inspectCheckpoint(configPath('gemma-3n-E2B'), options)).rejects.toThrow(key);
  });
});
