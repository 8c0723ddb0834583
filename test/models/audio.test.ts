// Parity of the audio tower with transformers' Gemma3nAudioEncoder (test/reference/audio.py): features within 1e-4 of
// their scale, every gradient within 1e-3 of its norm; what padding may and may not change.

import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { AudioTower } from '../../src/models/gemma3n/audio.js';
import { decodeAudioConfig } from '../../src/models/gemma3n/audio-config.js';
import { checkpointName } from '../../src/models/gemma3n/names.js';
import {
  type DType,
  type Tensor,
  cat,
  full,
  ones,
  scope,
  setNumThreads,
  tensor,
  where,
  withDefaults,
} from '../../src/tensor/index.js';
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
      // Products in bfloat16 round otherwise on each processor: 1.1 to 1.4 have been seen.
      expect(norm(own)).toBeLessThan(1.6 * norm(errors));
    });
    half.tower.dispose();
    half.values.close();
  });
});

describe('padding', () => {
  const { tower, values } = load('plain');
  afterAll(() => values.close());
  const lengths = [150, 61, 5];
  const input = values.read('0.input');
  const [, frames = 0, bins = 0] = input.shape;
  /** The convolutions see 6 frames past the last one that is kept, which is the last multiple of 4. */
  const sight = lengths.map((length) => Math.min(frames, Math.floor((length - 1) / 4) * 4 + 7));
  const upTo = (ends: readonly number[]) =>
    tensor(
      Uint8Array.from({ length: ends.length * frames }, (_, i) =>
        i % frames < ends[Math.floor(i / frames)]! ? 1 : 0,
      ),
      [ends.length, frames],
      'bool',
    );
  const mask = upTo(lengths);
  const run = (features: Tensor, mask: Tensor) => {
    features.requiresGrad = true;
    for (const [, parameter] of tower.namedParameters()) parameter.grad = null;
    const result = tower.forward(features, mask);
    result.features.square().sum().backward();
    const gradients = Array.from(tower.namedParameters(), ([, { grad }]) => grad!);
    return { ...result, gradients, inputGradient: features.grad! };
  };

  test('beyond the sight of real frames changes no result and no gradient, be it noise or no number at all', () => {
    scope(() => {
      const expected = run(input.clone(), mask);
      for (const noise of [0, 7, -1e30, 3e38, Infinity, NaN]) {
        const noisy = run(where(upTo(sight).unsqueeze(-1), input, noise).detach(), mask);
        expect(noisy.features.toTypedArray()).toEqual(expected.features.toTypedArray());
        expect(noisy.inputGradient.toTypedArray()).toEqual(expected.inputGradient.toTypedArray());
        for (const [i, gradient] of noisy.gradients.entries()) {
          expect(gradient.toTypedArray()).toEqual(expected.gradients[i]!.toTypedArray());
        }
      }
    });
  });

  test('in their sight counts as zero where it is no number, and gets no gradient', () => {
    scope(() => {
      const silent = run(where(mask.unsqueeze(-1), input, 0).detach(), mask);
      for (const nothing of [NaN, Infinity, -Infinity]) {
        const { features, inputGradient } = run(where(mask.unsqueeze(-1), input, nothing).detach(), mask);
        expect(features.toTypedArray()).toEqual(silent.features.toTypedArray());
        expect(inputGradient.isfinite().all().item()).toBe(1);
        expect(inputGradient.maskedFill(mask.unsqueeze(-1), 0).abs().amax().item()).toBe(0);
      }
    });
  });

  test('of a batch is of no account: each clip alone has the same features', () => {
    scope(() => {
      const together = tower.forward(input, mask);
      for (const [i, length] of lengths.entries()) {
        const alone = tower.forward(
          input.narrow(0, i, 1).narrow(1, 0, sight[i]!),
          mask.narrow(0, i, 1).narrow(1, 0, sight[i]!),
        );
        const count = Math.ceil(length / 16);
        expect(alone.mask.to('int64').sum().item()).toBe(count);
        const own = together.features.narrow(0, i, 1);
        expect(scaledDifference(own.narrow(1, 0, count), alone.features.narrow(1, 0, count))).toBeLessThan(
          1e-6,
        );
      }
    });
  });

  test('does not reach a clip from the others: a NaN in a real frame stays in its clip', () => {
    scope(() => {
      const expected = tower.forward(input, mask).features;
      const broken = cat([full([1, frames, bins], NaN), input.narrow(0, 1, 2)]);
      const { features } = tower.forward(broken, mask);
      expect(features.narrow(0, 1, 2).toTypedArray()).toEqual(expected.narrow(0, 1, 2).toTypedArray());
      expect(features.select(0, 0).isfinite().all().item()).toBe(0);
    });
  });

  test('is masked the same by bools and by numbers', () => {
    scope(() => {
      const expected = tower.forward(input, mask).features.toTypedArray();
      for (const dtype of ['int64', 'uint8', 'float32'] as const) {
        expect(tower.forward(input, mask.to(dtype)).features.toTypedArray()).toEqual(expected);
      }
      const whole = ones([3, frames], { dtype: 'bool' });
      expect(tower.forward(input).features.toTypedArray()).toEqual(
        tower.forward(input, whole).features.toTypedArray(),
      );
    });
  });
});
