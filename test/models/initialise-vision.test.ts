// Random weights of the image tower, and the projector's start.

import * as fs from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { Gemma3nMultimodal, createGemma3n, initialiseGemma3n } from '../../src/models/gemma3n/model.js';
import { whitenProjector } from '../../src/models/gemma3n/projector.js';
import {
  type Tensor,
  empty,
  manualSeed,
  noGrad,
  rand,
  scope,
  setNumThreads,
  zeros,
} from '../../src/tensor/index.js';
import { root } from './reference.js';

beforeAll(() => setNumThreads(1));

function randomModel(seed: number): Gemma3nMultimodal {
  const config: unknown = JSON.parse(fs.readFileSync(`${root}multimodal-plain/config.json`, 'utf8'));
  const model = createGemma3n(decodeConfig(config));
  if (!(model instanceof Gemma3nMultimodal)) throw new Error('expected a model with images');
  noGrad(() => {
    for (const [, parameter] of model.namedParameters()) parameter.fill_(NaN); // so that one left out shows
  });
  manualSeed(seed);
  initialiseGemma3n(model);
  return model;
}

const values = (model: Gemma3nMultimodal) =>
  scope(() => [...model.namedParameters()].map(([, parameter]) => parameter.square().sum().item()));

describe('initialiseGemma3n', () => {
  const model = randomModel(1);

  test('fills every parameter, the same for the same seed', () => {
    expect(values(model).every(Number.isFinite)).toBe(true);
    expect(values(randomModel(1))).toEqual(values(model));
    expect(values(randomModel(2))).not.toEqual(values(model));
  });

  test('lets black images through with gradients of the size that noise has', () => {
    const norm = (pixels: Tensor) =>
      scope(() => {
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
        const tower = model.model.visionTower!;
        tower.forward(pixels).square().sum().backward();
        const squares = [...tower.namedParameters()].map(([, { grad }]) => grad?.square().sum().item() ?? 0);
        return Math.sqrt(squares.reduce((sum, square) => sum + square, 0));
      });
    expect(norm(zeros([2, 3, 64, 64]))).toBeLessThan(10 * norm(rand([2, 3, 64, 64])));
  });
});

describe('whitenProjector', () => {
  test('makes the projected soft tokens of these images uncorrelated and of one variance', () => {
    scope(() => {
      const model = randomModel(3);
      const { embedVision, visionTower } = model.model;
      const pixels = rand([64, 3, 2, 2])
        .unsqueeze(3)
        .unsqueeze(5)
        .expand([64, 3, 2, 16, 2, 16])
        .reshape([64, 3, 32, 32]);
      whitenProjector(model, pixels);

      const covariance = noGrad(() => {
        const features = visionTower!.forward(pixels).mul(Math.sqrt(2048));
        const normed = embedVision!.softEmbeddingNorm.forward(features).flatten(0, 1);
        const projected = embedVision!.embeddingProjection.forward(normed);
        expect(projected.mean(0).abs().amax().item()).toBeLessThan(0.02);
        return projected
          .transpose(0, 1)
          .matmul(projected)
          .div(projected.shape[0] ?? 1);
      });
      const [size = 0] = covariance.shape;
      const flat = covariance.toTypedArray() as Float32Array;
      const diagonal = Array.from({ length: size }, (_, i) => flat[i * size + i] ?? 0);
      const sorted = [...diagonal].sort((a, b) => b - a);
      expect(sorted[0]).toBeLessThan(1.05);
      expect(sorted[10]).toBeGreaterThan(0.95); // the last ones lie below the floor
      const off = Math.max(...Array.from(flat, (x, i) => (i % (size + 1) === 0 ? 0 : Math.abs(x))));
      expect(off).toBeLessThan(0.05);
    });
  });

  test('refuses a model without an image tower', () => {
    const config: unknown = JSON.parse(fs.readFileSync(`${root}text-plain/config.json`, 'utf8'));
    expect(() => whitenProjector(createGemma3n(decodeConfig(config)), empty([1, 3, 8, 8]))).toThrow(
      'whitenProjector: expected a model with an image tower, received one without',
    );
  });
});
