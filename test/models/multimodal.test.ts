// Parity of the whole model with transformers, text and images mixed (test/reference/multimodal.py): image features and
// logits within 1e-4 of their scale, every gradient within 1e-3 of its norm.

import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { generate } from '../../src/generate/index.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { createGemma3n } from '../../src/models/gemma3n/model.js';
import { type Tensor, liveTensors, scope, setNumThreads, tensor, zeros } from '../../src/tensor/index.js';
import { expectGradients, expectLogits, ids, load, wordsOf } from './multimodal-reference.js';
import { root, scaledDifference } from './reference.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

describe.each(['plain', 'wide'])('the %s model', (name) => {
  const { model, values } = load(name);
  const batchOf = (side: string) => ({
    ...wordsOf(values, side),
    ...(side !== 'text' && { pixelValues: values.read('pixel_values') }),
  });
  afterAll(() => values.close());

  test('gives the reference image features', () => {
    scope(() => {
      const features = model.imageFeatures(values.read('pixel_values'));
      expect(scaledDifference(features, values.read('image_features'))).toBeLessThan(1e-4);
    });
  });

  test.each(['left', 'right', 'text'])('gives the reference logits and loss of the batch padded %s', (side) =>
    scope(() => expectLogits(model, values, side, batchOf(side))),
  );

  test.each(['forward', 'lossSum'] as const)(
    'gives the reference gradient of every parameter by %s',
    (path) => scope(() => expectGradients(model, values, path, batchOf('left'))),
  );

  test('generates the reference ids, prompts alone and padded together', async () => {
    const expected = [0, 1, 2].map((i) => ids(values, `generate.alone.${i}`));
    const pixels = values.read('pixel_values');
    const images = [pixels.narrow(0, 0, 2), pixels.narrow(0, 2, 1), undefined];
    for (const [i, pixelValues] of images.entries()) {
      const inputs = { inputIds: values.read(`generate.prompt.${i}`), pixelValues };
      expect((await generate(model, inputs, { maxNewTokens: 6, eosTokenIds: [] }))[0]).toEqual(expected[i]);
    }
    const { inputIds, attentionMask, pixelValues } = batchOf('left');
    const together = { inputIds, attentionMask, pixelValues };
    expect(await generate(model, together, { maxNewTokens: 6, eosTokenIds: [] })).toEqual(expected);
  });
});

describe('a model with images', () => {
  const { model, values } = load('plain');
  afterAll(() => values.close());
  const pixelValues = values.read('pixel_values');
  const [image, softTokens] = [81, 4];
  const row = (numPlaceholders: number, ...rest: number[]) => [
    2,
    ...new Array<number>(numPlaceholders).fill(image),
    ...rest,
  ];
  const run = (rows: number[][], images?: Tensor) =>
    scope(() => {
      const length = rows[0]?.length ?? 0;
      const inputIds = tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, length]);
      return model.forward({ inputIds, pixelValues: images }).logits.shape;
    });

  test('names the row whose placeholders are not whole images', () => {
    expect(() => run([row(4, 5), row(3, 5, 6)], pixelValues)).toThrow(
      'inputIds: row 1: expected a multiple of 4 image placeholders (token 81), 4 an image, received 3; ' +
        'check that encoding expands each image, and that nothing cuts the row short',
    );
  });

  test('counts placeholders against images, and says which rows have how many', () => {
    expect(() => run([row(8, 5), row(4, 5, 6, 7, 8, 9)], pixelValues.narrow(0, 0, 2))).toThrow(
      'inputIds: image placeholders: expected 8, 4 for each of 2 images in pixelValues, ' +
        'received 12 (row 0: 8, row 1: 4); ' +
        'give one image for each that the chat template names, in the order of the rows',
    );
    expect(() => run([row(4, 5)])).toThrow(
      'expected 0, 4 for each of 0 images in pixelValues, received 4 (row 0: 4)',
    );
    expect(() => run([row(0, 5)], pixelValues)).toThrow(
      'expected 12, 4 for each of 3 images in pixelValues, received 0;',
    );
    expect(
      run(
        [row(8, 5), row(4, 5, 6, 7, 8, 9)].map((ids) => ids.slice(0, 9)),
        pixelValues.narrow(0, 0, 3),
      ),
    ).toEqual([2, 9, 96]);
  });

  test('takes a placeholder that it wrote itself for a word', () => {
    expect(run([[image], [5]])).toEqual([2, 1, 96]);
  });

  test('refuses pixels of another shape', () => {
    expect(() => model.imageFeatures(zeros([3, 32, 32]))).toThrow(
      'pixelValues: expected [images, 3, height, width], received [3, 32, 32]; ' +
        'prepare the images with the processor of this model',
    );
  });

  test('lets gradients reach the image tower, and keeps nothing of it when it is frozen', () => {
    const tower = [...model.namedParameters()].filter(([name]) => name.startsWith('model.vision_tower'));
    const ids = tensor(BigInt64Array.from(row(softTokens, 80, 7, 9, 11), BigInt), [1, 9]);
    const backward = () =>
      scope(() => {
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
        const inputs = { inputIds: ids, labels: ids, pixelValues: pixelValues.narrow(0, 0, 1) };
        model.lossSum(inputs).loss.backward();
        return tower.filter(([, parameter]) => parameter.grad !== null).length;
      });
    expect(backward()).toBe(tower.length);

    for (const [, parameter] of tower) parameter.requiresGrad = false;
    expect(backward()).toBe(0);
    scope(() => {
      expect(model.model.visionTower!.forward(pixelValues).requiresGrad).toBe(false);
      expect(model.imageFeatures(pixelValues).requiresGrad).toBe(true); // the projector still learns
    });
    for (const [, parameter] of tower) parameter.requiresGrad = true;
  });

  test('leaves no tensors behind a step', async () => {
    const step = () =>
      scope(() => {
        const { loss } = model.lossSum({
          inputIds: values.read('left.input_ids'),
          labels: values.read('left.labels'),
          attentionMask: values.read('left.attention_mask'),
          pixelValues,
        });
        loss.backward();
      });
    step();
    const before = await settledTensors();
    step();
    step();
    expect(liveTensors()).toBe(before);
  });
});

test('a configuration whose soft tokens are not the positions of the fused features is refused', () => {
  const config = JSON.parse(fs.readFileSync(`${root}multimodal-plain/config.json`, 'utf8')) as object;
  expect(() => createGemma3n(decodeConfig({ ...config, vision_soft_tokens_per_image: 256 }))).toThrow(
    'config.json: vision_soft_tokens_per_image: expected 4, the positions of msfa_output_resolution 2x2, received 256; ' +
      'change one of the two',
  );
});
