// Memory as it is told against the bytes that the engine's tensors take.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import {
  fromConfig,
  fromPretrained,
  applyAdapter,
  inspectCheckpoint,
  quantise,
  type Gemma3n,
  type Quantisation,
} from '../../src/models/gemma3n/index.js';
import { KvCache } from '../../src/models/gemma3n/kv-cache.js';
import { WeightAverage, adamw } from '../../src/optim/index.js';
import { lora } from '../../src/peft/index.js';
import { noGrad, randn, scope, setNumThreads, tensor, tensorMemory } from '../../src/tensor/index.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const fixture = (path: string): string => fileURLToPath(new URL(`../../fixtures/${path}`, import.meta.url));
const [S, F] = ['sliding_attention', 'full_attention'];
const mid = {
  model_type: 'gemma3n_text',
  vocab_size: 4096,
  vocab_size_per_layer_input: 4000,
  hidden_size: 128,
  hidden_size_per_layer_input: 32,
  intermediate_size: 512,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 64,
  num_kv_shared_layers: 2,
  sliding_window: 64,
  laurel_rank: 16,
  layer_types: [S, S, F, S, S, F],
  activation_sparsity_pattern: [0.95, 0.95, 0, 0, 0, 0],
};

// what earlier tests left is not freed meanwhile
beforeEach(async () => void (await settledTensors()));

/** Bytes beside what was there before: the most at one time, and what is left. */
function measured(work: () => void): { most: number; left: number } {
  const { used } = tensorMemory({ restart: true });
  work();
  const after = tensorMemory();
  return { most: after.most - used, left: after.used - used };
}

function idsOf(batch: number, length: number) {
  const ids = BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(3 + ((i * 7919) % 60)));
  return tensor(ids, [batch, length]);
}

function within(found: number, expected: number, share: number): void {
  expect(found / expected).toBeGreaterThan(1 - share);
  expect(found / expected).toBeLessThan(1 + share);
}

describe.each([
  ['float32', 1, 320],
  ['float32', 3, 48],
  ['float32', 1, 1200],
  ['bfloat16', 1, 160],
] as const)('a model in %s at %i x %i tokens', (dtype, batch, length) => {
  const told = inspectCheckpoint(mid, { batch, length, dtype });
  const open = (): Gemma3n => fromConfig(mid, { seed: 1, dtype });

  it('takes what is told to hold it, and to read a prompt', async () => {
    const { inference, kvCache } = (await told).memory;
    let model: Gemma3n | undefined;
    expect(measured(() => (model = open())).left).toBe(inference.weights);
    const cache = new KvCache(model!.config.text, length);
    const { most } = measured(() =>
      scope(() =>
        noGrad(() => {
          const inputs = { inputIds: idsOf(batch, length) };
          model!.logits(model!.eval().hiddenStates(inputs, cache, { lastOnly: true }));
        }),
      ),
    );
    within(inference.activations + inference.kvCache, most, 0.2);
    const held = tensorMemory().used;
    cache.dispose();
    within(kvCache.bytes, held - tensorMemory().used, 0.05);
    model!.dispose();
  });

  it('takes what is told to learn whole', async () => {
    const { full } = (await told).memory;
    const model = open().train();
    const parameters = Array.from(model.namedParameters(), ([, parameter]) => parameter);
    expect(parameters.reduce((sum, { numel }) => sum + numel, 0)).toBe(full.trainedParameters);
    const optimizer = adamw({ lr: 1e-3 })(parameters);
    const step = (checkpointing = false): { most: number; update: number; gradients: number } => {
      const { used } = tensorMemory({ restart: true });
      scope(() => {
        const inputs = { inputIds: idsOf(batch, length), labels: idsOf(batch, length) };
        if (checkpointing) model.lossSumBackward(inputs);
        else model.lossSum(inputs).loss.backward();
      });
      const gradients = tensorMemory().used - used;
      optimizer.step();
      const { most } = tensorMemory();
      optimizer.zeroGrad();
      return { most: most - used, update: tensorMemory().used - used, gradients };
    };
    const first = step();
    within(full.gradients, first.gradients, 0.001);
    within(full.optimizer, first.update, 0.001); // and a count of steps for each tensor
    const second = step();
    within(full.peak - full.weights - full.optimizer, second.most, 0.1);
    const recomputed = step(true);
    within(full.peakCheckpointed - full.weights - full.optimizer, recomputed.most, 0.12);
    optimizer.dispose();
    model.dispose();
  });
});

describe.each(['bfloat16', 'float32'] as const)('low-rank adapters over a model in %s', (dtype) => {
  const load = { batch: 2, length: 96, dtype, rank: 4 };

  /** Bytes of weights and adapters, and the most of a step beside them. */
  function learning(quantisation?: Quantisation): { weights: number; step: number } {
    let model: Gemma3n | undefined;
    const { left: weights } = measured(() => {
      model = fromConfig(mid, { seed: 1, dtype });
      if (quantisation) quantise(model, quantisation);
      applyAdapter(model, lora({ rank: load.rank }));
    });
    const parameters = [...model!.train().namedParameters()].flatMap(([, one]) =>
      one.requiresGrad ? [one] : [],
    );
    const optimizer = adamw({ lr: 1e-3 })(parameters);
    const step = (): number => {
      const { used } = tensorMemory({ restart: true });
      const ids = idsOf(load.batch, load.length);
      scope(() => model!.lossSum({ inputIds: ids, labels: ids }).loss.backward());
      optimizer.step();
      optimizer.zeroGrad();
      return tensorMemory().most - used;
    };
    step();
    const most = step();
    optimizer.dispose();
    model!.dispose();
    return { weights, step: most };
  }

  it('take what is told with quantised weights, beside what they take without', async () => {
    const { memory } = await inspectCheckpoint(mid, load);
    const plain = learning();
    expect(plain.weights).toBe(memory.lora.weights);
    for (const told of memory.qlora) {
      const found = learning(told.quantisation);
      expect(found.weights).toBe(told.weights);
      within(told.peak - memory.lora.peak + plain.weights + plain.step, found.weights + found.step, 0.05);
      const most = (told.quantisation.format === 'nf4' ? 0.26 : 0.52) * (dtype === 'bfloat16' ? 1 : 0.5);
      expect(told.share).toBeLessThan(most);
    }
  });
});

test('QLoRA takes less than 0.3 of what bfloat16 takes for the published models, embeddings and towers included', async () => {
  for (const name of ['E2B', 'E4B']) {
    const { memory, parameters } = await inspectCheckpoint(fixture(`configs/gemma-3n-${name}.json`), {
      dtype: 'bfloat16',
    });
    const [nf4, whole] = memory.qlora;
    expect(nf4!.share).toBeLessThan(0.26);
    const adapters = 4 * memory.lora.adapterParameters;
    expect((whole!.weights - adapters) / (2 * parameters.live), name).toBeLessThan(0.3);
  }
});

test('a recipe with checkpointing needs what is counted for it, and saves the activations that are told', async () => {
  const load = { batch: 4, length: 256, dtype: 'float32', rank: 4 } as const;
  for (const [method, name] of [
    ['full', 'full'],
    ['lora', 'lora'],
    ['qlora', 0],
  ] as const) {
    const peak = async (checkpointing: boolean) =>
      inspectCheckpoint(mid, { ...load, recipe: { method, checkpointing } });
    const [plain, again] = [await peak(false), await peak(true)];
    const need = name === 0 ? plain.memory.qlora[0]! : plain.memory[name];
    expect(plain.recipe!.peak).toBe(Math.round(need.peak));
    expect(again.recipe!.peak).toBe(Math.round(need.peakCheckpointed));
    if (method !== 'full')
      expect(need.peak - need.peakCheckpointed).toBe(need.activations - need.activationsCheckpointed);
    expect(again.recipe!.peak).toBeLessThan(plain.recipe!.peak);
  }
});

test.each([
  ['float32', 2, 256],
  ['float32', 4, 64],
] as const)(
  'checkpointing takes what is told, in %s at %i x %i tokens, and an average its bytes',
  async (dtype, batch, length) => {
    const { lora: told, full } = (await inspectCheckpoint(mid, { batch, length, dtype, rank: 4 })).memory;
    const model = fromConfig(mid, { seed: 1, dtype });
    const weights = new WeightAverage(model.namedParameters(), { decay: 0.9 });
    expect(full.average).toBe(weights.numBytes);
    weights.dispose();
    applyAdapter(model, lora({ rank: 4, alpha: 4 }));
    model.train();
    const inputs = { inputIds: idsOf(batch, length), labels: idsOf(batch, length) };
    const most = (run: () => void): number => {
      const found = measured(() => scope(run)).most;
      for (const [, parameter] of model.namedParameters()) parameter.grad = null;
      return found - told.gradients;
    };
    const again = () => void model.lossSumBackward(inputs);
    most(again); // buffers of the first pass
    within(told.activationsCheckpointed, most(again), 0.2);
    within(
      told.activations,
      most(() => model.lossSum(inputs).loss.backward()),
      0.25,
    );
    expect(told.activationsCheckpointed).toBeLessThan(told.activations / 2);
    model.dispose();
  },
);

test('an image tower takes what is told, also where it learns', async () => {
  const folder = fixture('tiny-gemma3n');
  const told = async (images: number, freeze: 'vision'[]) =>
    (
      await inspectCheckpoint(folder, {
        batch: 4,
        length: 48,
        images,
        freeze,
        dtype: 'float32',
        weights: false,
      })
    ).memory;
  const model = await fromPretrained(folder, { dtype: 'float32' });
  const pixels = randn([4, 3, 64, 64]);
  const { left } = measured(() => void model.train().imageFeatures(pixels));
  const [learns, frozen] = [await told(4, []), await told(4, ['vision'])];
  within(learns.full.activations - frozen.full.activations, left, 0.35);
});

test('an audio tower takes what is told, also where it learns', async () => {
  const config = JSON.parse(readFileSync(fixture('configs/gemma-3n-E2B.json'), 'utf8')) as Record<
    string,
    object
  >;
  delete config['vision_config'];
  Object.assign(config['text_config']!, {
    ...mid,
    ...{ vocab_size: 262_400, hidden_size: 8, head_dim: 8, num_hidden_layers: 1, layer_types: [F] },
    ...{ num_kv_shared_layers: 0, activation_sparsity_pattern: [0], hidden_size_per_layer_input: 2 },
  });
  Object.assign(config['audio_config']!, { hidden_size: 64, conf_num_hidden_layers: 2 });
  const model = fromConfig(config, { seed: 1, dtype: 'float32' });
  const clip = randn([1, 188 * 16, 128]);
  const run = (): void => void scope(() => void model.audioFeatures(clip, undefined as never));
  const { inference, full } = (await inspectCheckpoint(config, { length: 1, clips: 1, dtype: 'float32' }))
    .memory;
  within(inference.activations, measured(() => noGrad(run)).most, 0.1);
  let kept = 0;
  scope(() => {
    const { used } = tensorMemory();
    model.train().audioFeatures(clip, undefined);
    kept = tensorMemory().used - used;
  });
  expect(full.activations).toBeGreaterThan(kept);
});

test('per-layer embeddings off the device save their bytes, and more where they would learn', async () => {
  const config = JSON.parse(readFileSync(fixture('configs/gemma-3n-E2B.json'), 'utf8')) as object;
  const { memory } = await inspectCheckpoint(config as never, { length: 2048 });
  const table = 2_013_265_920 * 2;
  expect(memory.options.dtype).toBe('bfloat16');
  expect(memory.perLayerEmbeddings).toBe(table);
  expect(memory.inference.peak - memory.inference.peakEmbeddingsOff).toBe(table);
  expect(memory.full.peak - memory.full.peakEmbeddingsOff).toBe(table * 7);
  // weights 2, gradient 2, master 4, moments 8 bytes a parameter
  expect(memory.full.gradients + memory.full.optimizer).toBe(memory.full.trainedParameters * 14);
});

test('keys and values are counted once where layers share, and up to the window where they slide', async () => {
  const config = JSON.parse(readFileSync(fixture('configs/gemma-3n-E2B.json'), 'utf8')) as never;
  const at = async (length: number) => (await inspectCheckpoint(config, { length, batch: 2 })).memory.kvCache;
  const each = 2 * 2 * 2 * 256 * 2; // keys and values, rows, heads, head size, bytes
  expect(await at(100)).toEqual({ bytes: 20 * 100 * each, plainBytes: 30 * 100 * each });
  expect(await at(4096)).toEqual({ bytes: (4 * 4096 + 16 * 512) * each, plainBytes: 30 * 4096 * each });
});

test('what is frozen has neither gradient nor state, and adapters are counted by their rank', async () => {
  const config = JSON.parse(readFileSync(fixture('configs/gemma-3n-E2B.json'), 'utf8')) as never;
  const all = await inspectCheckpoint(config, { images: 1, clips: 1 });
  const some = await inspectCheckpoint(config, {
    images: 1,
    clips: 1,
    rank: 32,
    freeze: ['vision', 'projector', 'audio', 'embeddings'],
  });
  expect(all.memory.full.trainedParameters).toBe(all.parameters.live);
  expect(some.memory.full.trainedParameters).toBe(some.parameters.parts.text);
  expect(some.memory.full.peak).toBeLessThan(all.memory.full.peak / 2);
  expect(some.memory.lora.adapterParameters).toBe(2 * all.memory.lora.adapterParameters);
});
