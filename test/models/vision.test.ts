// Parity of the image tower with timm's mobilenetv5_300m_enc (test/reference/vision.py): features within 1e-4 of their
// scale, every gradient within 1e-3 of its norm.

import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { MobileNetV5Encoder } from '../../src/models/gemma3n/mobilenet.js';
import { decodeVisionConfig } from '../../src/models/gemma3n/vision-config.js';
import { type DType, noGrad, scope, setNumThreads, withDefaults } from '../../src/tensor/index.js';
import { gradientDifference, recordedGradients, relativeNorm, root, scaledDifference } from './reference.js';

beforeAll(() => setNumThreads(1));

function snakeCase(path: string): string {
  return path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function load(
  name: string,
  dtype: DType = 'float32',
): { encoder: MobileNetV5Encoder; values: SafetensorsFile } {
  const folder = `${root}vision-${name}/`;
  const model_args: unknown = JSON.parse(fs.readFileSync(`${folder}model_args.json`, 'utf8'));
  const encoder = withDefaults(
    { dtype },
    () => new MobileNetV5Encoder(decodeVisionConfig({ model_args }).tower),
  );
  using weights = new SafetensorsFile(`${folder}model.safetensors`);
  const names: string[] = [];
  for (const [path, parameter] of encoder.namedParameters()) {
    weights.copyInto(snakeCase(path), parameter);
    names.push(snakeCase(path));
  }
  expect(names.sort()).toEqual([...weights.names].sort());
  return { encoder, values: new SafetensorsFile(`${folder}values.safetensors`) };
}

describe.each(['plain', 'scaled', 'uncommon', 'shifted'])('the %s tower', (name) => {
  const { encoder, values } = load(name);
  afterAll(() => values.close());
  const cases = values.names.filter((key) => key.endsWith('.features')).map((key) => key.split('.')[0] ?? '');

  test.each(cases)('gives the reference features and pixel gradients for images of size %s', (index) => {
    scope(() => {
      const pixels = values.read(`${index}.pixels`);
      pixels.requiresGrad = true;
      const features = encoder.forward(pixels);
      expect(scaledDifference(features, values.read(`${index}.features`))).toBeLessThan(1e-4);

      features
        .mul(values.read(`${index}.cotangent`))
        .sum()
        .backward();
      expect(relativeNorm(pixels.grad!, values.read(`${index}.pixels.grad`))).toBeLessThan(1e-3);
    });
  });

  test('computes each block in bfloat16 to that precision', () => {
    const half = load(name, 'bfloat16');
    noGrad(() =>
      scope(() => {
        // One by one on exact inputs: through the whole tower of random weights, rounding grows twentyfold, as in timm.
        let x = encoder.convStem.forward(values.read('0.pixels'));
        for (const [stage, blocks] of encoder.blocks.entries()) {
          for (const [i, block] of blocks.entries()) {
            const rounded = half.encoder.blocks[stage]![i]!.forward(x.to('bfloat16'));
            x = block.forward(x);
            expect(rounded.dtype).toBe('bfloat16');
            expect(relativeNorm(rounded.to('float32'), x)).toBeLessThan(0.015);
          }
        }
        expect(half.encoder.forward(values.read('0.pixels').to('bfloat16')).isfinite().all().item()).toBe(1);
      }),
    );
    half.encoder.dispose();
    half.values.close();
  });

  test('gives the reference gradient of every parameter', () => {
    scope(() => {
      for (const [, parameter] of encoder.namedParameters()) parameter.grad = null;
      encoder.forward(values.read('0.pixels')).mul(values.read('0.cotangent')).sum().backward();

      const differences = new Map<string, number>();
      for (const [path, parameter] of encoder.namedParameters()) {
        const gradient = parameter.grad;
        if (gradient) differences.set(snakeCase(path), gradientDifference(gradient, snakeCase(path), values));
      }
      expect([...differences.keys()].sort()).toEqual(recordedGradients(values).sort());
      const worst = [...differences].filter(([, difference]) => !(difference < 1e-3));
      expect(worst).toEqual([]);
    });
  });
});
