// Packed rows against the same samples one by one: text, images and sound, sequences longer than the sliding window and
// shorter, shared keys and values.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { collate } from '../../src/data/collate.js';
import { packRows } from '../../src/data/pack-rows.js';
import type { Batch, Example } from '../../src/data/types.js';
import { toTensors } from '../../src/device/batch-tensors.js';
import {
  type DType,
  type Tensor,
  liveTensors,
  noGrad,
  scope,
  setNumThreads,
  withDefaults,
} from '../../src/tensor/index.js';
import { load } from './multimodal-reference.js';
import { scaledDifference } from './reference.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const IGNORED = -100;

/** What the recorded models take for one of each medium. */
const MEDIA = {
  audio: { A: { id: 89, count: 8 }, I: undefined },
  mixed: { A: { id: 74, count: 6 }, I: { id: 81, count: 4 } },
} as const;

/** Media in order (A, I) and the number of words behind them, of each sample. */
const SAMPLES = {
  audio: [
    ['', 5],
    ['A', 3],
    ['', 150],
    ['', 1],
    ['AA', 20],
    ['', 70],
    ['A', 90],
  ],
  mixed: [
    ['IA', 6],
    ['', 7],
    ['AIA', 2],
    ['', 1],
    ['', 130],
    ['I', 66],
    ['', 2],
  ],
} as const;

describe.each(['audio', 'mixed'] as const)('the %s model', (name) => {
  const { model, values } = load(name);
  afterAll(() => values.close());
  const examples = examplesOf(name, values);
  const layouts: [string, number[]][] = [
    ['one row', examples.map(() => 0)],
    ['two rows, of which one is padded', examples.map((_, i) => i % 2)],
  ];
  const alone = examples.map((example) => collate([example], { padTokenId: 0 }));

  test.each(layouts)('gives the logits of the samples alone, packed in %s', (_, rows) =>
    scope(() => {
      const batch = packRows(examples, rows, 0);
      const logits = noGrad(() => model.forward(toTensors(batch, 'cpu')).logits);
      for (const [i, { row, start }] of placesIn(examples, rows).entries()) {
        const expected = noGrad(() => model.forward(toTensors(alone[i]!, 'cpu')).logits).select(0, 0);
        const own = logits.select(0, row).narrow(0, start, examples[i]!.inputIds.length);
        expect(scaledDifference(own, expected), `sample ${i}`).toBeLessThan(2e-5);
      }
    }),
  );

  test.each(layouts)('gives their summed loss and gradients, packed in %s', (_, rows) =>
    expectSame(model, [packRows(examples, rows, 0)], alone, { loss: 1e-6, gradient: 5e-5, audio: 1e-3 }),
  );

  test('gives the loss and gradients of a padded batch', () =>
    expectSame(
      model,
      [
        packRows(
          examples,
          examples.map(() => 0),
          0,
        ),
      ],
      [collate(examples, { padTokenId: 0 })],
      { loss: 1e-6, gradient: 5e-5 },
    ));

  test('gives them in bfloat16, to its precision', () => {
    const dtype: DType = 'bfloat16';
    const { model: small, values: again } = withDefaults({ dtype }, () => load(name));
    again.close();
    const packed = packRows(examples, layouts[0]![1], 0);
    expectSame(small, [packed], alone, { loss: 1e-2, gradient: 0.1 });
  });

  test('leaves no tensors behind', async () => {
    const step = (): void =>
      scope(() => {
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
        model.lossSum(toTensors(packRows(examples, layouts[1]![1], 0), 'cpu')).loss.backward();
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
      });
    step();
    const before = await settledTensors();
    for (let i = 0; i < 3; i++) step();
    expect(liveTensors()).toBe(before);
  });
});

/** Samples that are labelled from their first token on, media excepted. */
function examplesOf(name: keyof typeof SAMPLES, values: ReturnType<typeof load>['values']): Example[] {
  const read = (key: string): { data: Float32Array; shape: readonly number[] } =>
    scope(() => {
      const value = values.read(key);
      return { data: Float32Array.from(value.toTypedArray() as ArrayLike<number>), shape: [...value.shape] };
    });
  const features = read('input_features');
  const mask = read('input_features_mask');
  const pixels = values.names.includes('pixel_values') ? read('pixel_values') : undefined;
  const taken = { A: 0, I: 0 };
  let seed = 7;
  const word = (): number => 3 + (((seed = (seed * 1103515245 + 12345) % 2 ** 31) >> 8) % 60);
  return SAMPLES[name].map(([media, length]) => {
    const first = { ...taken };
    const ids: number[] = [];
    for (const medium of media) {
      const { id, count } = MEDIA[name][medium as 'A'];
      ids.push(word(), ...new Array<number>(count).fill(id));
      taken[medium as 'A' | 'I'] += 1;
    }
    for (let i = 0; i < length; i++) ids.push(word());
    const [clips, images] = [taken.A - first.A, taken.I - first.I];
    const part = (from: { data: Float32Array; shape: readonly number[] }, start: number, count: number) => {
      const size = from.data.length / from.shape[0]!;
      const at = start % (from.shape[0]! - count + 1);
      return {
        data: from.data.slice(at * size, (at + count) * size),
        shape: [count, ...from.shape.slice(1)],
      };
    };
    const heard = clips > 0 ? part(mask, first.A, clips) : undefined;
    return {
      inputIds: Int32Array.from(ids),
      labels: Int32Array.from(ids, (id) => (id < 64 ? id : IGNORED)),
      ...(heard && {
        inputFeatures: part(features, first.A, clips),
        inputFeaturesMask: { data: Uint8Array.from(heard.data), shape: heard.shape },
      }),
      ...(images > 0 && { pixelValues: part(pixels!, first.I, images) }),
    };
  });
}

function placesIn(examples: readonly Example[], rows: readonly number[]): { row: number; start: number }[] {
  const lengths = new Map<number, number>();
  return examples.map(({ inputIds }, i) => {
    const row = rows[i]!;
    const start = lengths.get(row) ?? 0;
    lengths.set(row, start + inputIds.length);
    return { row, start };
  });
}

/** Summed losses, label counts and every parameter's gradient, of the same samples in different batches. */
function expectSame(
  model: ReturnType<typeof load>['model'],
  packed: readonly Batch[],
  apart: readonly Batch[],
  within: {
    readonly loss: number;
    readonly gradient: number;
    /** Of the audio tower, where its clips come in other batches: this one rounds so, padded too. */
    readonly audio?: number;
  },
): void {
  const run = (batches: readonly Batch[]) => {
    for (const [, parameter] of model.namedParameters()) parameter.grad = null;
    let [sum, labels, foretold] = [0, 0, 0];
    for (const batch of batches) {
      scope(() => {
        const { loss, numLabels } = model.lossSum(toTensors(batch, 'cpu'));
        if (numLabels > 0) loss.backward();
        sum += loss.item();
        labels += numLabels;
        foretold += batch.numLabels;
      });
    }
    expect(foretold).toBe(labels);
    const gradients = new Map<string, Tensor>();
    for (const [name, { grad }] of model.namedParameters()) if (grad) gradients.set(name, grad.to('float32'));
    return { sum, labels, gradients };
  };
  scope(() => {
    const [got, expected] = [run(packed), run(apart)];
    expect(got.labels).toBe(expected.labels);
    expect(Math.abs(got.sum - expected.sum) / expected.sum).toBeLessThan(within.loss);
    expect([...got.gradients.keys()]).toEqual([...expected.gradients.keys()]);
    expect(got.gradients.size).toBeGreaterThan(50);
    const wrong = [...expected.gradients].flatMap(([name, gradient]) => {
      const difference = scaledDifference(got.gradients.get(name)!, gradient);
      const most = name.includes('audio') ? (within.audio ?? within.gradient) : within.gradient;
      return difference < most ? [] : [[name, difference]];
    });
    expect(wrong).toEqual([]);
  });
}
