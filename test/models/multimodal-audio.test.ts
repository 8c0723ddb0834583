// Parity of the whole model with transformers, text, images and sound mixed (test/reference/multimodal_audio.py), and
// what it says of inputs that do not fit.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { generate } from '../../src/generate/index.js';
import {
  type Tensor,
  cat,
  full,
  liveTensors,
  noGrad,
  scope,
  setNumThreads,
  tensor,
  where,
  zeros,
} from '../../src/tensor/index.js';
import { expectGradients, expectLogits, ids, load, wordsOf } from './multimodal-reference.js';
import { scaledDifference } from './reference.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

/** Clips and images of each row, as recorded. */
const media = {
  audio: [
    { clips: 2, images: 0 },
    { clips: 1, images: 0 },
    { clips: 0, images: 0 },
  ],
  mixed: [
    { clips: 2, images: 1 },
    { clips: 1, images: 1 },
    { clips: 0, images: 1 },
    { clips: 1, images: 0 },
  ],
} as const;

describe.each(['audio', 'mixed'] as const)('the %s model', (name) => {
  const { model, values } = load(name);
  afterAll(() => values.close());
  const hasImages = values.names.includes('pixel_values');
  const sound = () => ({
    inputFeatures: values.read('input_features'),
    inputFeaturesMask: values.read('input_features_mask'),
  });
  const batchOf = (side: string) => ({
    ...wordsOf(values, side),
    ...sound(),
    ...(hasImages && { pixelValues: values.read('pixel_values') }),
  });

  test('gives the reference audio features, with a mask that is true on real frames', () => {
    scope(() => {
      const { inputFeatures, inputFeaturesMask } = sound();
      const { features, mask } = model.audioFeatures(inputFeatures, inputFeaturesMask);
      expect(mask.toTypedArray()).toEqual(values.read('audio_features_mask').toTypedArray());
      expect(scaledDifference(features, values.read('audio_features'))).toBeLessThan(1e-4);
      expect(features.maskedFill(mask.unsqueeze(-1), 0).abs().amax().item()).toBe(0);
    });
  });

  test.each(['left', 'right'])('gives the reference logits and loss of the batch padded %s', (side) =>
    scope(() => expectLogits(model, values, side, batchOf(side))),
  );

  test.each(['forward', 'lossSum'] as const)(
    'gives the reference gradient of every parameter, of both towers too, by %s',
    (path) => scope(() => expectGradients(model, values, path, batchOf('left'))),
  );

  test('generates the reference ids, prompts alone and padded together', async () => {
    const expected = media[name].map((_, i) => ids(values, `generate.alone.${i}`));
    const options = { maxNewTokens: 6, eosTokenIds: [] };
    const { inputFeatures, inputFeaturesMask } = sound();
    let [clip, image] = [0, 0];
    for (const [i, { clips, images }] of media[name].entries()) {
      const inputs = {
        inputIds: values.read(`generate.prompt.${i}`),
        ...(clips > 0 && {
          inputFeatures: inputFeatures.narrow(0, clip, clips),
          inputFeaturesMask: inputFeaturesMask.narrow(0, clip, clips),
        }),
        ...(images > 0 && { pixelValues: values.read('pixel_values').narrow(0, image, images) }),
      };
      expect((await generate(model, inputs, options))[0]).toEqual(expected[i]);
      clip += clips;
      image += images;
    }
    const { labels: _, ...together } = batchOf('left');
    expect(await generate(model, together, options)).toEqual(expected);
  });
});

describe('a model with sound', () => {
  const { model, values } = load('audio');
  afterAll(() => values.close());
  const [audio, softTokens] = [89, 8];
  const inputFeatures = values.read('input_features');
  const inputFeaturesMask = values.read('input_features_mask');
  const row = (numPlaceholders: number, ...rest: number[]) => [
    2,
    ...new Array<number>(numPlaceholders).fill(audio),
    ...rest,
  ];
  const idsOf = (rows: number[][]) =>
    tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);
  const run = (rows: number[][], features?: Tensor, mask?: Tensor) =>
    scope(() => {
      const inputs = { inputIds: idsOf(rows), inputFeatures: features, inputFeaturesMask: mask };
      return model.forward(inputs).logits.shape;
    });

  test('names the row whose placeholders are not whole clips', () => {
    expect(() => run([row(8, 5), row(7, 5, 6)], inputFeatures)).toThrow(
      'inputIds: row 1: expected a multiple of 8 audio placeholders (token 89), 8 a clip, received 7; ' +
        'check that encoding expands each clip, and that nothing cuts the row short',
    );
  });

  test('counts placeholders against clips, and says which rows have how many', () => {
    expect(() =>
      run([row(16, 5), row(8, 5, 6, 7, 8, 9, 10, 11, 12, 13)], inputFeatures.narrow(0, 0, 2)),
    ).toThrow(
      'inputIds: audio placeholders: expected 16, 8 for each of 2 clips in inputFeatures, ' +
        'received 24 (row 0: 16, row 1: 8); ' +
        'give one clip for each that the chat template names, in the order of the rows',
    );
    expect(() => run([row(8, 5)])).toThrow(
      'expected 0, 8 for each of 0 clips in inputFeatures, received 8 (row 0: 8)',
    );
    expect(() => run([row(0, 5)], inputFeatures)).toThrow(
      'expected 24, 8 for each of 3 clips in inputFeatures, received 0;',
    );
  });

  test('takes a placeholder that it wrote itself for a word', () => {
    expect(run([[audio], [5]])).toEqual([2, 1, 96]);
  });

  test('takes all frames for real where no mask is given, and no mask without features', () => {
    scope(() => {
      const whole = full([3, 90], 1, { dtype: 'bool' });
      const { features } = model.audioFeatures(inputFeatures);
      expect(features.toTypedArray()).toEqual(
        model.audioFeatures(inputFeatures, whole).features.toTypedArray(),
      );
    });
    expect(() => run([row(0, 5)], undefined, inputFeaturesMask)).toThrow(
      'inputFeaturesMask: expected inputFeatures beside it, received none; give both, or neither',
    );
  });

  test('refuses features and masks of another shape, and clips of padding alone', () => {
    expect(() => model.audioFeatures(zeros([3, 90, 12]))).toThrow(
      'inputFeatures: expected [clips, frames, 16], received [3, 90, 12]; ' +
        'prepare the clips with the processor of this model',
    );
    expect(() => model.audioFeatures(inputFeatures, full([3, 80], 1))).toThrow(
      'inputFeaturesMask: expected [3, 90], as the features, received [3, 80]; ' +
        'give true for every real frame and false for padding',
    );
    const mask = cat([inputFeaturesMask.narrow(0, 0, 2), zeros([1, 90], { dtype: 'bool' })]);
    expect(() => model.audioFeatures(inputFeatures, mask)).toThrow(
      'inputFeaturesMask: clip 2: expected at least one real frame, received padding alone; ' +
        'leave out clips without sound, or check that the mask is true on real frames',
    );
  });

  test('refuses a clip with more frames than its placeholders', () => {
    expect(() => run([row(8, 5)], zeros([1, 129, 16]))).toThrow(
      'inputFeatures: expected clips of at most 8 frames past the tower, one a placeholder, ' +
        'received 9, from 129 frames; cut the clips, as the processor of this model does',
    );
  });

  test('lets gradients reach the audio tower, and keeps nothing of it when it is frozen', () => {
    const tower = [...model.namedParameters()].filter(([name]) => name.startsWith('model.audio_tower.'));
    const inputIds = idsOf([row(softTokens, 88, 7, 9, 11)]);
    const clip = { inputFeatures: inputFeatures.narrow(0, 0, 1) };
    const backward = () =>
      scope(() => {
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
        model.lossSum({ inputIds, labels: inputIds, ...clip }).loss.backward();
        return tower.filter(([, parameter]) => parameter.grad !== null).length;
      });
    expect(backward()).toBe(tower.length);

    for (const [, parameter] of tower) parameter.requiresGrad = false;
    expect(backward()).toBe(0);
    scope(() => {
      expect(model.model.audioTower!.forward(clip.inputFeatures).features.requiresGrad).toBe(false);
      expect(model.audioFeatures(clip.inputFeatures).features.requiresGrad).toBe(true); // the projector still learns
    });
    for (const [, parameter] of tower) parameter.requiresGrad = true;
  });

  test('is deaf to padding in the middle of a batch, be it noise or no number at all', () => {
    scope(() => {
      const inputIds = idsOf([row(24, 5, 6)]);
      const forward = (features: Tensor) =>
        noGrad(() =>
          model.forward({ inputIds, inputFeatures: features, inputFeaturesMask }).logits.toTypedArray(),
        );
      // The convolutions see 6 frames past the last one that is kept; from there on padding counts for nothing.
      const ahead = full([3, 6], 1, { dtype: 'bool' });
      const seen = cat([ahead, inputFeaturesMask.narrow(1, 0, 84)], 1).unsqueeze(-1);
      const expected = forward(inputFeatures);
      for (const noise of [7, -1e30, 3e38, Infinity, NaN]) {
        expect(forward(where(seen, inputFeatures, noise))).toEqual(expected);
      }
    });
  });

  test('leaves no tensors behind a step', async () => {
    const step = () =>
      scope(() =>
        model.lossSum({ ...wordsOf(values, 'left'), inputFeatures, inputFeaturesMask }).loss.backward(),
      );
    step();
    const before = await settledTensors();
    step();
    step();
    expect(liveTensors()).toBe(before);
  });
});
