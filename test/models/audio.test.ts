// Parity of the audio tower with transformers' Gemma3nAudioEncoder (test/reference/audio.py): features within 1e-4 of
// their scale, every gradient within 1e-3 of its norm; what padding may and may not change.

import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { AudioTower } from '../../src/models/gemma3n/audio.js';
import { decodeAudioConfig } from '../../src/models/gemma3n/audio-config.js';
import { checkpointName } from '../../src/models/gemma3n/names.js';
import { type DType, scope, setNumThreads, withDefaults } from '../../src/tensor/index.js';
import { gradientDifference, recordedGradients, relativeNorm, root, scaledDifference } from './reference.js';

beforeAll(() => setNumThreads(1));

function load(name: string, dtype: DType = 'float32'): { tower: AudioTower; values: SafetensorsFile } {
  const folder = `${root}audio-${name}/`;
  const config: unknown = JSON.parse(fs.readFileSync(`${folder}config.json`, 'utf8'));
  const tower = withDefaults({ dtype }, () => new AudioTower(decodeAudioConfig(config)));
  using weights = new SafetensorsFile(`${folder}model.safetensors`);
  const names: string[] = [];
  for (const [path, parameter] of tower.namedParameters()) {
    weights.copyInto(checkpointName(path), parameter);
    names.push(checkpointName(path));
  }
  expect(names.sort()).toEqual([...weights.names].sort());
  return { tower, values: new SafetensorsFile(`${folder}values.safetensors`) };
}

describe.each(['plain', 'odd', 'ahead', 'every'])('the %s tower', (name) => {
  const { tower, values } = load(name);
  afterAll(() => values.close());
  const cases = values.names.filter((key) => /^\d\.input$/.test(key)).map((key) => key.slice(0, 1));

  test.each(cases)(
    'gives the reference features, mask and input gradients for the clips of case %s',
    (index) => {
      scope(() => {
        const input = values.read(`${index}.input`);
        input.requiresGrad = true;
        const { features, mask } = tower.forward(input, values.read(`${index}.mask`));
        expect(mask.dtype).toBe('bool');
        expect(mask.toTypedArray()).toEqual(values.read(`${index}.features_mask`).toTypedArray());
        expect(scaledDifference(features, values.read(`${index}.features`))).toBeLessThan(1e-4);

        features
          .mul(values.read(`${index}.cotangent`))
          .sum()
          .backward();
        expect(relativeNorm(input.grad!, values.read(`${index}.input.grad`))).toBeLessThan(1e-3);
      });
    },
  );

  test('gives the reference gradient of every parameter', () => {
    scope(() => {
      for (const [, parameter] of tower.namedParameters()) parameter.grad = null;
      const { features } = tower.forward(values.read('0.input'), values.read('0.mask'));
      features.mul(values.read('0.cotangent')).sum().backward();

      const differences = new Map<string, number>();
      for (const [path, parameter] of tower.namedParameters()) {
        const key = checkpointName(path);
        if (parameter.grad) differences.set(key, gradientDifference(parameter.grad, key, values));
      }
      expect([...differences.keys()].sort()).toEqual(recordedGradients(values).sort());
      expect([...differences].filter(([, difference]) => !(difference < 1e-3))).toEqual([]);
    });
  });

  test('is as exact in bfloat16 as the reference is', () => {
    const half = load(name, 'bfloat16');
    scope(() => {
      const { features } = half.tower.forward(values.read('0.input'), values.read('0.mask'));
      expect(features.dtype).toBe('bfloat16');
      const exact = values.read('0.features');
      const referenceError = relativeNorm(values.read('bfloat16.features'), exact);
      expect(relativeNorm(features.to('float32'), exact)).toBeLessThan(1.3 * referenceError);

      features.to('float32').mul(values.read('0.cotangent')).sum().backward();
      const errors = values.read('bfloat16.gradient_errors').toTypedArray() as Float32Array;
      const own = Array.from(half.tower.namedParameters(), ([path, { grad }]) =>
        gradientDifference(grad!.to('float32'), checkpointName(path), values),
      );
      const norm = (x: Iterable<number>) => Math.hypot(...x);
      expect(norm(own)).toBeLessThan(1.3 * norm(errors));
    });
    half.tower.dispose();
    half.values.close();
  });
});
