// Embeddings that stay mapped from the checkpoint's file: the same numbers, gradients and files as with embeddings in
// memory, and a clear refusal where they are to learn. Recorded checkpoints are those of test/reference/text.py and
// multimodal.py.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { SafetensorsFile, writeShards } from '../../src/checkpoint/index.js';
import { ConfigError, ModelError } from '../../src/errors.js';
import {
  fromPretrained,
  type Gemma3n,
  type LoadOptions,
  loadWeights,
  mappedTables,
  savePretrained,
} from '../../src/models/gemma3n/index.js';
import { liveTensors, scope, setNumThreads, type Tensor, tensorMemory } from '../../src/tensor/index.js';
import { Learner } from '../../src/train/learner.js';
import { changedCopy, temporaryFolder, tensorsOf } from './load-files.js';
import { referencePath } from './text-reference.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const perLayer = 'model.embed_tokens_per_layer.weight';
const input = 'model.embed_tokens.weight';

/** Loss, and the gradient of every parameter that has one. */
function gradients(model: Gemma3n, name: string): { loss: number; grads: Map<string, unknown> } {
  for (const [parameter, tensor] of model.namedParameters()) {
    if (/embed_tokens|lm_head/.test(parameter)) tensor.requiresGrad = false;
  }
  using values = new SafetensorsFile(join(referencePath(name), 'values.safetensors'));
  return scope(() => {
    const { loss } = model.lossSum({
      inputIds: values.read('right.input_ids'),
      attentionMask: values.read('right.attention_mask'),
      labels: values.read('right.labels'),
      ...(values.names.includes('pixel_values') && { pixelValues: values.read('pixel_values') }),
    });
    loss.backward();
    const grads = [...model.namedParameters()].flatMap(([parameter, { grad }]) =>
      grad ? [[parameter, grad.toTypedArray()] as const] : [],
    );
    return { loss: loss.item(), grads: new Map(grads) };
  });
}

const untied = (): Promise<string> =>
  changedCopy(
    'text-sharing',
    (tensors) => [...tensors, ['lm_head.weight', tensors.get(input)!] as const],
    (config) => (config['tie_word_embeddings'] = false),
  );

describe('mapped embeddings', () => {
  test.each([
    ['text-sharing', {}],
    ['text-sharing', { dtype: 'bfloat16' }],
    ['text-plain', { dtype: 'float32' }],
    ['multimodal-plain', {}],
  ] as [string, LoadOptions][])('of %s give the same loss and gradients %o', async (name, options) => {
    const [copied, mapped] = [
      gradients(await fromPretrained(referencePath(name), options), name),
      gradients(await fromPretrained(referencePath(name), { ...options, embeddings: 'mapped' }), name),
    ];
    expect(copied.grads.size).toBeGreaterThan(10);
    expect(mapped).toEqual(copied);
  });

  test('are those that nothing else needs: the input embedding too, unless a tied head would need a copy', async () => {
    const tablesOf = async (folder: string, options: LoadOptions = {}): Promise<string[]> => {
      const model = await fromPretrained(folder, { embeddings: 'mapped', ...options });
      const names = [...mappedTables(model).keys()].sort();
      for (const [name, tensor] of model.namedParameters()) {
        if (names.includes(name)) expect(tensor.requiresGrad, name).toBe(false);
      }
      model.dispose();
      return names;
    };
    const tied = referencePath('text-sharing');
    expect(await tablesOf(tied)).toEqual([input, perLayer]);
    expect(await tablesOf(tied, { dtype: 'bfloat16' })).toEqual([perLayer]);
    expect(await tablesOf(tied, { embeddings: 'perLayerMapped' })).toEqual([perLayer]);
    expect(await tablesOf(tied, { embeddings: 'device' })).toEqual([]);
    expect(await tablesOf(await untied())).toEqual([input, perLayer]);
    expect(await tablesOf(await untied(), { dtype: 'bfloat16' })).toEqual([input, perLayer]);
  });

  test('take no memory of their own', async () => {
    const bytes = async (options: LoadOptions): Promise<number> => {
      await settledTensors();
      const { used } = tensorMemory({ restart: true });
      const model = await fromPretrained(referencePath('text-sharing'), options);
      const taken = tensorMemory().used - used;
      model.dispose();
      return taken;
    };
    const tables = tensorsOf(referencePath('text-sharing'));
    const numBytes = (name: string): number => tables.get(name)!.numel * 4;
    const saved = (await bytes({})) - (await bytes({ embeddings: 'mapped' }));
    expect(saved).toBe(numBytes(perLayer) + numBytes(input));
  });

  test('are found in shards', async () => {
    const folder = temporaryFolder();
    fs.copyFileSync(join(referencePath('text-sharing'), 'config.json'), join(folder, 'config.json'));
    await writeShards(folder, tensorsOf(referencePath('text-sharing')), { maxShardBytes: 60_000 });
    const [copied, mapped] = [
      gradients(await fromPretrained(folder), 'text-sharing'),
      gradients(await fromPretrained(folder, { embeddings: 'mapped' }), 'text-sharing'),
    ];
    expect(mapped).toEqual(copied);
  });

  test.each([{}, { dtype: 'bfloat16' }] as LoadOptions[])(
    'are saved as if they had been copied: %o',
    async (options) => {
      const saved = async (
        embeddings: LoadOptions['embeddings'] & string,
        folder: string,
      ): Promise<Buffer> => {
        const model = await fromPretrained(referencePath('text-sharing'), { ...options, embeddings });
        await savePretrained(model, folder);
        return fs.readFileSync(join(folder, 'model.safetensors'));
      };
      const copied = await saved('device', temporaryFolder());
      expect((await saved('mapped', temporaryFolder())).equals(copied)).toBe(true);
    },
  );

  test('survive that the folder they came from is overwritten with them, and removed', async () => {
    const folder = await untied();
    const model = await fromPretrained(folder, { embeddings: 'mapped' });
    const before = model.languageModel.embedTokensPerLayer.weight.toTypedArray();
    await savePretrained(model, folder);
    fs.rmSync(folder, { recursive: true });
    expect(model.languageModel.embedTokensPerLayer.weight.toTypedArray()).toEqual(before);
  });

  test('are mapped from the new file when other weights are loaded', async () => {
    const other = await changedCopy('text-sharing', (tensors) => {
      for (const [name, tensor] of tensors) tensors.set(name, tensor.mul(2));
    });
    const model = await fromPretrained(referencePath('text-sharing'), { embeddings: 'mapped' });
    const alive = await settledTensors();
    loadWeights(model, other);
    expect(liveTensors()).toBe(alive);
    const wanted = tensorsOf(other);
    for (const [name, tensor] of model.namedParameters()) {
      expect(tensor.toTypedArray(), name).toEqual((wanted.get(name) as Tensor).toTypedArray());
    }
    expect([...mappedTables(model).keys()]).toHaveLength(2);
  });

  test('leave nothing behind', async () => {
    const before = await settledTensors();
    (await fromPretrained(referencePath('multimodal-plain'), { embeddings: 'mapped' })).dispose();
    expect(liveTensors()).toBe(before);
  });
});

describe('mapped embeddings that are to learn are refused', () => {
  const spec = (freeze: string[], embeddings: 'mapped' | 'perLayerMapped') =>
    ({
      seed: 0,
      model: {
        kind: 'gemma3n',
        path: referencePath('text-sharing'),
        dtype: 'float32',
        device: 'cpu',
        freeze,
        embeddings,
        weights: 'pretrained',
        projector: 'pretrained',
      },
      step: {
        kind: 'sft',
        maxSteps: 1,
        accumulate: 1,
        optimizer: { kind: 'adamw', lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
        schedule: { kind: 'constant', warmup: 0 },
      },
    }) as unknown as Parameters<typeof Learner.open>[0];

  test('by a training step, which names them', async () => {
    const error: unknown = await Learner.open(spec([], 'mapped')).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toBe(
      `model.embeddings: expected embeddings that stay in their file to be frozen, received ${input} and ${perLayer}, to be trained; add 'embeddings' to freeze, or take embeddings: 'device' (or 'perLayerMapped', to train the input's)`,
    );
    await expect(Learner.open(spec([perLayer], 'mapped'))).rejects.toThrow(
      `received ${input}, to be trained`,
    );
    const frozen = await Learner.open(spec(['embeddings'], 'mapped'));
    expect(frozen.trainable.some(([name]) => name.includes('embed_tokens'))).toBe(false);
    const halfFrozen = await Learner.open(spec([perLayer], 'perLayerMapped'));
    expect(halfFrozen.trainable.some(([name]) => name === input)).toBe(true);
  });

  test('by the model, when a script asks for their gradient', async () => {
    const model = await fromPretrained(referencePath('text-sharing'), { embeddings: 'mapped' });
    model.languageModel.embedTokensPerLayer.weight.requiresGrad = true;
    expect(() => gradientsOf(model)).toThrow(ModelError);
    expect(() => gradientsOf(model)).toThrow(
      /^embedding: expected a table that does not learn, since it is mapped from a file, received requiresGrad/,
    );
  });
});

function gradientsOf(model: Gemma3n): void {
  using values = new SafetensorsFile(join(referencePath('text-sharing'), 'values.safetensors'));
  scope(() => void model.forward({ inputIds: values.read('right.input_ids') }));
}
