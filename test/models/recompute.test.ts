// Activation checkpointing against the plain backward pass: the same loss and the same gradient of every parameter, bit by
// bit in float32; and what it costs in memory.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { collate } from '../../src/data/collate.js';
import { packRows } from '../../src/data/pack-rows.js';
import { toTensors } from '../../src/device/batch-tensors.js';
import {
  applyAdapter,
  fromConfig,
  type Gemma3n,
  type LabelledInputs,
} from '../../src/models/gemma3n/index.js';
import type { RecomputeOptions } from '../../src/models/gemma3n/recompute.js';
import { dora, lora } from '../../src/peft/index.js';
import {
  type Tensor,
  liveTensors,
  manualSeed,
  randomState,
  randn,
  scope,
  setNumThreads,
  tensor,
  tensorMemory,
  withDefaults,
} from '../../src/tensor/index.js';
import { load, wordsOf } from './multimodal-reference.js';

beforeAll(() => setNumThreads(1));

const [S, F] = ['sliding_attention', 'full_attention'];
/** The last three layers share: two with layer 2, one with layer 3. */
const SHARING = {
  model_type: 'gemma3n_text',
  vocab_size: 256,
  vocab_size_per_layer_input: 250,
  hidden_size: 32,
  hidden_size_per_layer_input: 8,
  intermediate_size: 64,
  num_hidden_layers: 7,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  num_kv_shared_layers: 3,
  sliding_window: 8,
  laurel_rank: 8,
  altup_coef_clip: 120,
  layer_types: [S, S, S, F, S, S, F],
  activation_sparsity_pattern: [0.9, 0.9, 0, 0, 0, 0, 0],
};

function textModel(
  overrides: Record<string, unknown> = {},
  dtype: 'float32' | 'bfloat16' = 'float32',
): Gemma3n {
  return fromConfig({ ...SHARING, ...overrides }, { seed: 3, dtype }).train();
}

function words(batch: number, length: number): { inputIds: Tensor; labels: Tensor } {
  const ids = BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(3 + ((i * 7919) % 240)));
  const labels = ids.map((id, i) => (i % 3 === 0 ? -100n : id));
  return { inputIds: tensor(ids, [batch, length]), labels: tensor(labels, [batch, length]) };
}

interface Found {
  readonly loss: number;
  readonly numLabels: number;
  readonly gradients: Map<string, Float32Array | undefined>;
  readonly random: Uint8Array;
}

/** One forward and backward pass. @param options of checkpointing; without it the plain pass */
function pass(model: Gemma3n, inputs: LabelledInputs, options?: RecomputeOptions): Found {
  manualSeed(11);
  for (const [, parameter] of model.namedParameters()) parameter.grad = null;
  return scope(() => {
    const { loss, numLabels } = options ? model.lossSumBackward(inputs, options) : model.lossSum(inputs);
    if (!options) loss.backward();
    const gradients = new Map<string, Float32Array | undefined>();
    for (const [name, { grad }] of model.namedParameters()) {
      gradients.set(name, grad?.to('float32').toTypedArray() as Float32Array | undefined);
    }
    return { loss: loss.item(), numLabels, gradients, random: randomState() };
  });
}

/** @returns names of the parameters that have a gradient */
function expectSame(got: Found, expected: Found): string[] {
  expect(got.loss).toBe(expected.loss);
  expect(got.numLabels).toBe(expected.numLabels);
  const different = [...expected.gradients].filter(
    ([name, values]) => !isEqual(got.gradients.get(name), values),
  );
  expect(different.map(([name]) => name)).toEqual([]);
  expect(got.random).toEqual(expected.random);
  return [...expected.gradients].flatMap(([name, values]) =>
    values?.some((value) => value !== 0) ? [name] : [],
  );
}

function isEqual(a: Float32Array | undefined, b: Float32Array | undefined): boolean {
  if (!a || !b) return a === b;
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

describe.each(['audio', 'mixed'] as const)('the %s model', (name) => {
  const { model, values } = load(name);
  const batch = {
    ...wordsOf(values, 'left'),
    inputFeatures: values.read('input_features'),
    inputFeaturesMask: values.read('input_features_mask'),
    ...(values.names.includes('pixel_values') && { pixelValues: values.read('pixel_values') }),
  };
  beforeAll(() => void model.train());
  afterAll(() => values.close());

  const choices: [string, RecomputeOptions][] = [
    ['every part', {}],
    ['the text tower alone', { checkpointing: ['text'] }],
    ['towers alone', { checkpointing: ['vision', 'audio'] }],
    ['no part', { checkpointing: false }],
    ['every part, off the device', { offload: true }],
  ];
  test.each(choices)('has the loss and gradients of the plain pass with %s computed again', (_, options) => {
    const learnt = expectSame(pass(model, batch, options), pass(model, batch));
    expect(learnt.some((one) => one.includes('audio_tower'))).toBe(true);
    expect(learnt.some((one) => one.includes('vision_tower'))).toBe('pixelValues' in batch);
  });

  test('has them where the text tower is frozen, and only a tower learns', () => {
    for (const [key, parameter] of model.namedParameters())
      parameter.requiresGrad = key.includes('audio_tower');
    const learnt = expectSame(pass(model, batch, {}), pass(model, batch));
    for (const [, parameter] of model.namedParameters()) parameter.requiresGrad = true;
    expect(learnt.every((one) => one.includes('audio_tower'))).toBe(true);
    expect(learnt.length).toBeGreaterThan(10);
  });

  test('has them where the towers are frozen', () => {
    for (const [key, parameter] of model.namedParameters())
      parameter.requiresGrad = !/vision|audio/.test(key);
    const learnt = expectSame(pass(model, batch, {}), pass(model, batch));
    for (const [, parameter] of model.namedParameters()) parameter.requiresGrad = true;
    expect(learnt.some((one) => one.endsWith('layers.0.self_attn.k_proj.weight'))).toBe(true);
  });

  test('leaves no tensors behind, nor when the backward pass fails or is given up', () => {
    const ends = [
      () => void model.lossSumBackward(batch),
      () => model.recomputedLoss(batch).dispose(),
      () =>
        expect(() =>
          model.recomputedLoss(batch).backward(() => {
            throw new Error('between layers');
          }),
        ).toThrow('between layers'),
    ];
    for (const end of ends) {
      const run = (): void => {
        scope(end);
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
      };
      run();
      const before = liveTensors();
      run();
      run();
      expect(liveTensors()).toBe(before);
    }
  });
});

describe('a text model whose layers share keys and values', () => {
  test.each([
    ['float32', 2, 24],
    ['float32', 1, 2],
    ['bfloat16', 2, 40],
    ['bfloat16', 1, 150],
  ] as const)('has the gradients of the plain pass in %s at %i x %i tokens', (dtype, rows, length) => {
    const model = textModel({}, dtype);
    const batch = words(rows, length);
    const learnt = expectSame(pass(model, batch, {}), pass(model, batch));
    if (length > 2) {
      // Of two tokens, the one with a label to predict sees a single key: whatever it is, its share is 1.
      for (const layer of [0, 1, 2, 3]) {
        expect(learnt).toContain(`model.layers.${layer}.self_attn.k_proj.weight`);
        expect(learnt).toContain(`model.layers.${layer}.self_attn.v_proj.weight`);
      }
    }
    model.dispose();
  });

  test('sums what all sharing layers say of the keys and values of their source', () => {
    // With the queries' weights of sharing layers at zero nothing depends on keys there: the sources' gradients change.
    const model = textModel();
    const batch = words(2, 24);
    const key = 'model.layers.2.self_attn.k_proj.weight';
    const before = pass(model, batch, {}).gradients.get(key)!;
    for (const [name, parameter] of model.namedParameters()) {
      if (/layers\.[45]\.self_attn\.q_proj/.test(name)) scope(() => parameter.detach().zero_());
    }
    const [got, expected] = [pass(model, batch, {}), pass(model, batch)];
    expectSame(got, expected);
    expect(isEqual(got.gradients.get(key), before)).toBe(false);
    model.dispose();
  });

  test('has them with a head of its own, and with padding', () => {
    const model = textModel({ tie_word_embeddings: false });
    const mask = tensor([...new Array<number>(7).fill(0), ...new Array<number>(41).fill(1)], [2, 24], 'bool');
    const learnt = expectSame(
      pass(model, { ...words(2, 24), attentionMask: mask }, {}),
      pass(model, { ...words(2, 24), attentionMask: mask }),
    );
    expect(learnt).toContain('lm_head.weight');
    model.dispose();
  });

  test('has them with several samples in a row', () => {
    const model = textModel();
    const examples = [5, 30, 1, 12].map((length, i) => {
      const inputIds = Int32Array.from({ length }, (_, t) => 3 + ((i * 31 + t * 17) % 240));
      return { inputIds, labels: inputIds };
    });
    const packed = toTensors(packRows(examples, [0, 1, 1, 0], 0), 'cpu');
    const got = pass(model, packed, {});
    expectSame(got, pass(model, packed));
    const padded = pass(model, toTensors(collate(examples, { padTokenId: 0 }), 'cpu'), {});
    expect(got.loss / padded.loss).toBeCloseTo(1, 5);
    model.dispose();
  });

  test.each([
    ['LoRA', lora({ rank: 4, alpha: 8, dropout: 0.3 })],
    ['DoRA', dora({ rank: 4, alpha: 8, dropout: 0.3 })],
  ])('draws the dropout of %s again as it was', (_, config) => {
    const model = textModel();
    applyAdapter(model, config);
    model.train();
    for (const [name, parameter] of model.namedParameters()) {
      if (name.includes('lora_B')) scope(() => parameter.detach().add_(randn(parameter.shape)));
    }
    const batch = words(2, 24);
    const learnt = expectSame(pass(model, batch, {}), pass(model, batch));
    expect(learnt.filter((name) => name.includes('lora_A')).length).toBeGreaterThan(30);
    expect(learnt.every((name) => name.includes('lora_'))).toBe(true);
    model.dispose();
  });

  test('computes nothing again below the lowest layer that learns', () => {
    const model = textModel();
    for (const [name, parameter] of model.namedParameters())
      parameter.requiresGrad = name.includes('layers.6.mlp');
    let segments = 0;
    scope(() => model.recomputedLoss(words(2, 24)).backward(() => segments++));
    expect(segments).toBe(3); // the loss, what stands behind the layers, and layer 6
    expect(expectSame(pass(model, words(2, 24), {}), pass(model, words(2, 24))).length).toBe(3);
    model.dispose();
  });

  test('adds to the gradients that are there, as micro-batches do', () => {
    const model = textModel();
    const sum = (options?: RecomputeOptions): Map<string, Float32Array> => {
      for (const [, parameter] of model.namedParameters()) parameter.grad = null;
      return scope(() => {
        for (const length of [24, 9]) {
          if (options) model.lossSumBackward(words(2, length), options);
          else model.lossSum(words(2, length)).loss.backward();
        }
        return new Map(
          Array.from(model.namedParameters(), ([name, { grad }]) => [
            name,
            grad!.toTypedArray() as Float32Array,
          ]),
        );
      });
    };
    const [got, expected] = [sum({}), sum()];
    for (const [name, values] of expected) {
      const difference = values.reduce(
        (most, value, i) => Math.max(most, Math.abs(value - got.get(name)![i]!)),
        0,
      );
      const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(difference, name).toBeLessThanOrEqual(1e-6 * scale);
    }
    model.dispose();
  });

  test('adds nothing without a label', () => {
    const model = textModel();
    const none = { inputIds: words(1, 8).inputIds, labels: tensor(new BigInt64Array(8).fill(-100n), [1, 8]) };
    const { loss, numLabels } = model.lossSumBackward(none);
    expect([loss.item(), numLabels]).toEqual([0, 0]);
    expect([...model.namedParameters()].every(([, { grad }]) => grad === null)).toBe(true);
    model.dispose();
  });

  test('is refused where nothing learns, and where an input asks for a gradient', () => {
    const model = textModel();
    const { inputIds, labels } = words(1, 8);
    const inputsEmbeds = model.languageModel.embed(inputIds).detach();
    inputsEmbeds.requiresGrad = true;
    expect(() => model.lossSumBackward({ inputsEmbeds, labels })).toThrow(
      'lossSumBackward: inputsEmbeds: expected an input that needs no gradient of its own',
    );
    for (const [, parameter] of model.namedParameters()) parameter.requiresGrad = false;
    expect(() => model.lossSumBackward({ inputIds, labels })).toThrow(
      'lossSumBackward: expected a parameter that learns in what the batch uses, received none',
    );
    model.dispose();
  });
});

test.each([
  [10, 0.25],
  [24, 0.25],
])('takes a quarter of the memory or less, of %i layers', (numLayers, share) => {
  const kinds = Array.from({ length: numLayers }, (_, i) => (i % 5 === 4 ? F : S));
  const model = withDefaults({ dtype: 'float32' }, () =>
    textModel({
      hidden_size: 64,
      intermediate_size: 256,
      num_hidden_layers: numLayers,
      num_kv_shared_layers: 5,
      layer_types: kinds,
      activation_sparsity_pattern: kinds.map((_, i) => (i < 3 ? 0.95 : 0)),
    }),
  );
  applyAdapter(model, lora({ rank: 2, alpha: 4 }));
  model.train();
  const most = (options?: RecomputeOptions): number => {
    pass(model, words(2, 8), options);
    const { used } = tensorMemory({ restart: true });
    pass(model, words(4, 256), options);
    return tensorMemory().most - used;
  };
  const [again, plain] = [most({}), most()];
  expect(again / plain).toBeLessThan(share);
  model.dispose();
});
