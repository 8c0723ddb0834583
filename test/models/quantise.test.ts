// Gemma 3n over quantised weights: beside PEFT over weights that bitsandbytes quantised, and beside the same model whose
// weights are the dequantised numbers.

import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SafetensorsFile, writeSafetensors } from '../../src/checkpoint/index.js';
import {
  adapterNames,
  applyAdapter,
  dora,
  fromPretrained,
  generate,
  type Gemma3n,
  loadAdapter,
  lora,
  mergeAdapter,
  quantise,
  type QuantiseOptions,
  saveAdapter,
  savePretrained,
} from '../../src/index.js';
import { loadWeights, quantisationOf } from '../../src/models/gemma3n/index.js';
import { modulesToQuantise } from '../../src/models/gemma3n/quantise.js';
import {
  type Tensor,
  liveTensors,
  manualSeed,
  noGrad,
  op,
  scope,
  setNumThreads,
} from '../../src/tensor/index.js';
import { storedName } from '../peft/adapter-reference.js';
import { relativeMax, relativeNorm, referencePath } from './text-reference.js';
import { wordsOf } from './multimodal-reference.js';

setNumThreads(1);
const same = op<boolean>('aten::equal');
const file = new SafetensorsFile(referencePath('qlora.safetensors'));
const base = referencePath('text-sharing');
const EVERYTHING = { format: 'nf4', embeddings: true, towers: true } as const;

const folders: string[] = [];
const temporary = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-quantise-'));
  folders.push(folder);
  return folder;
};
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** The model with the dequantised numbers for weights. */
async function denseTwin(model: Gemma3n, path: string): Promise<Gemma3n> {
  const twin = await fromPretrained(path, { dtype: 'float32' });
  const quantised = modulesToQuantise(model, { embeddings: true, towers: true });
  for (const [name, module] of modulesToQuantise(twin, { embeddings: true, towers: true })) {
    const numbers = quantised.get(name)?.quantised?.dequantised();
    if (numbers) noGrad(() => module.weight.copy_(numbers));
  }
  return twin;
}

function learn(model: Gemma3n, inputs: Parameters<Gemma3n['lossSum']>[0]): Map<string, Tensor> {
  scope(() => model.lossSum(inputs).loss.backward());
  const learning = [...model.namedParameters()].filter(([, tensor]) => tensor.grad);
  return new Map(learning.map(([name, tensor]) => [name, tensor.grad!]));
}

describe.each([
  ['lora', 'nf4'],
  ['dora', 'nf4'],
  ['int8', 'int8'],
] as const)('%s of PEFT over weights in %s of bitsandbytes', (name, format) => {
  const value = (key: string): Tensor => file.read(`${name}.${key}`);
  const inputs = { inputIds: value('input_ids'), labels: value('labels') };

  it('gives its logits, loss and gradients', async () => {
    const model = await fromPretrained(base, { quantise: format, dtype: 'float32' });
    await loadAdapter(model, referencePath(`qlora-${name}`), { trainable: true });
    const { logits, loss } = model.forward(inputs);
    expect(relativeMax(logits, value('logits'))).toBeLessThan(5e-5);
    expect(loss!.item()).toBeCloseTo(value('loss').item(), 5);
    loss!.backward();
    let compared = 0;
    for (const [key, tensor] of model.namedParameters()) {
      if (!tensor.requiresGrad) continue;
      const recorded = value(
        `grad.${storedName(key).replace(/\.weight$|$/, (end) => `.default${end}`)}`.replace(
          /(magnitude_vector)\.default$/,
          '$1.default.weight',
        ),
      );
      if (recorded.abs().amax().item() < 1e-9) continue;
      expect(relativeNorm(tensor.grad!, recorded), key).toBeLessThan(2e-4);
      compared += 1;
    }
    expect(compared).toBeGreaterThan(60);
    model.dispose();
  });
});

describe('a model whose weights are quantised as they are read', () => {
  it.each<QuantiseOptions>([
    'nf4',
    'int8',
    { format: 'nf4', embeddings: true, blockSize: 128, doubleQuantise: false },
    { format: 'int8', embeddings: true },
  ])('is the one that is quantised afterwards: %j', async (options) => {
    const read = await fromPretrained(base, { quantise: options, dtype: 'bfloat16' });
    const made = quantise(await fromPretrained(base, { dtype: 'bfloat16' }), options);
    expect(quantisationOf(read)).toEqual(quantisationOf(made));
    const others = new Map(made.languageModel.namedBuffers());
    const buffers = [...read.languageModel.namedBuffers()];
    expect(buffers.length).toBe(others.size);
    expect(buffers.length).toBeGreaterThan(60);
    for (const [name, tensor] of buffers) expect(same(tensor, others.get(name)), name).toBe(true);
    const { inputIds } = { inputIds: file.read('lora.input_ids') };
    expect(
      same(
        noGrad(() => read.forward({ inputIds }).logits),
        noGrad(() => made.forward({ inputIds }).logits),
      ),
    ).toBe(true);
    for (const model of [read, made]) model.dispose();
  });

  it('takes as much as its codes and scales, and gives it back', async () => {
    const before = liveTensors();
    const model = await fromPretrained(base, { quantise: 'nf4' });
    applyAdapter(model, dora({ rank: 2 }));
    scope(() => void noGrad(() => model.forward({ inputIds: file.read('lora.input_ids') })));
    model.dispose();
    expect(liveTensors()).toBe(before);
  });

  it.each(['multimodal-audio', 'multimodal-plain', 'multimodal-mixed'])(
    'computes and learns as one with the dequantised numbers, towers and embeddings included (%s)',
    async (name) => {
      const folder = referencePath(name);
      const values = new SafetensorsFile(join(folder, 'values.safetensors'));
      const side = values.names.find((one) => one.endsWith('.input_ids'))!.split('.')[0]!;
      const media = (key: string): Tensor | undefined =>
        values.names.includes(key) ? values.read(key) : undefined;
      const inputs = {
        ...wordsOf(values, side),
        pixelValues: media('pixel_values') ?? media(`${side}.pixel_values`),
        inputFeatures: media('input_features') ?? media(`${side}.input_features`),
        inputFeaturesMask: media('input_features_mask') ?? media(`${side}.input_features_mask`),
      };
      const model = await fromPretrained(folder, { quantise: EVERYTHING, dtype: 'float32' });
      const chosen = [...modulesToQuantise(model, EVERYTHING).entries()];
      expect(chosen.every(([, { quantised }]) => quantised !== undefined)).toBe(true);
      for (const part of ['embed_tokens', 'vision_tower', 'audio_tower']) {
        const hasPart = [...model.namedParameters()].some(([one]) => one.includes(part));
        expect(
          chosen.some(([one]) => one.includes(part)),
          part,
        ).toBe(hasPart);
      }
      const twin = await denseTwin(model, folder);
      for (const one of [model, twin]) {
        manualSeed(5);
        applyAdapter(one, lora({ rank: 3, targets: ['text', 'projector'] }));
        for (const [key, tensor] of one.namedParameters()) {
          if (key.includes('lora_B')) noGrad(() => op('aten::normal_')(tensor, 0, 0.05));
        }
      }
      const [ours, theirs] = [model, twin].map((one) => noGrad(() => one.forward(inputs)));
      expect(relativeMax(ours!.logits, theirs!.logits)).toBeLessThan(2e-5);
      const [gradients, others] = [learn(model, inputs), learn(twin, inputs)];
      expect([...gradients.keys()]).toEqual([...others.keys()]);
      for (const [key, gradient] of gradients) {
        if (others.get(key)!.abs().amax().item() < 1e-9) continue;
        expect(relativeNorm(gradient, others.get(key)!), key).toBeLessThan(2e-4);
      }
      for (const one of [model, twin]) one.dispose();
    },
  );

  it('gives the same gradients with activation checkpointing', async () => {
    const inputs = { inputIds: file.read('lora.input_ids'), labels: file.read('lora.labels') };
    const model = await fromPretrained(base, { quantise: { format: 'nf4', embeddings: true } });
    await loadAdapter(model, referencePath('qlora-lora'), { trainable: true });
    const plain = new Map([...learn(model, inputs)].map(([name, grad]) => [name, grad.clone()]));
    for (const [, tensor] of model.namedParameters()) if (tensor.grad) tensor.grad.zero_();
    model.lossSumBackward(inputs, { checkpointing: true });
    for (const [name, tensor] of model.namedParameters()) {
      if (tensor.requiresGrad) expect(relativeNorm(tensor.grad!, plain.get(name)!), name).toBeLessThan(1e-5);
    }
    model.dispose();
  });

  it('answers', async () => {
    const model = await fromPretrained(base, { quantise: { format: 'nf4', embeddings: true } });
    const twin = await denseTwin(model, base);
    const inputs = { inputIds: file.read('lora.input_ids') };
    const [ours, theirs] = await Promise.all(
      [model, twin].map((one) => generate(one, inputs, { maxNewTokens: 6 })),
    );
    expect(ours).toEqual(theirs);
    for (const one of [model, twin]) one.dispose();
  });
});

describe('adapters over a quantised base', () => {
  it('begin as no update, with DoRA and PiSSA too', async () => {
    const inputs = { inputIds: file.read('lora.input_ids'), labels: file.read('lora.labels') };
    const model = await fromPretrained(base, { quantise: 'nf4' });
    const before = noGrad(() => model.forward(inputs).logits);
    for (const adapter of [
      lora({ rank: 4 }),
      dora({ rank: 4 }),
      lora({ rank: 4, init: 'pissa' }),
      dora({ rank: 2, dropout: 0.3 }),
    ]) {
      applyAdapter(model, adapter, { name: `of-${liveTensors()}` });
      expect(
        relativeMax(
          noGrad(() => model.forward(inputs).logits),
          before,
        ),
      ).toBeLessThan(1e-4);
    }
    model.dispose();
  });

  it.each([
    ['lora', lora({ rank: 3, dropout: 0.4 })],
    ['dora', dora({ rank: 3, dropout: 0.4 })],
  ])('draw their dropout as over the dequantised numbers (%s)', async (_, adapter) => {
    const inputs = { inputIds: file.read('lora.input_ids'), labels: file.read('lora.labels') };
    const model = await fromPretrained(base, { quantise: 'nf4' });
    const twin = await denseTwin(model, base);
    const losses = [model, twin].map((one) => {
      manualSeed(9);
      applyAdapter(one, adapter);
      for (const [key, tensor] of one.namedParameters()) {
        if (key.includes('lora_B')) noGrad(() => op('aten::normal_')(tensor, 0, 0.05));
      }
      one.train();
      return [1, 2].map(() => one.lossSum(inputs).loss.item());
    });
    expect(losses[0]![0]).not.toBe(losses[0]![1]);
    for (const i of [0, 1]) expect(losses[0]![i]! / losses[1]![i]!).toBeCloseTo(1, 5);
    for (const one of [model, twin]) one.dispose();
  });

  it('tell in their files how it was quantised, and load so, or as numbers to be merged', async () => {
    const folder = temporary();
    const model = await fromPretrained(base, { quantise: { format: 'int8', embeddings: true } });
    await loadAdapter(model, referencePath('qlora-int8'));
    await saveAdapter(model, folder);
    const again = await fromPretrained(folder);
    expect(quantisationOf(again)).toMatchObject({ format: 'int8', embeddings: true, towers: false });
    const inputs = { inputIds: file.read('int8.input_ids') };
    expect(
      same(
        noGrad(() => again.forward(inputs).logits),
        noGrad(() => model.forward(inputs).logits),
      ),
    ).toBe(true);

    expect(() => mergeAdapter(model)).toThrow(
      /mergeAdapter: expected a base whose weights are numbers.*quantise: false/,
    );
    const dense = await fromPretrained(folder, { quantise: false });
    expect(quantisationOf(dense)).toBeUndefined();
    const unmerged = noGrad(() => dense.forward(inputs).logits);
    mergeAdapter(dense);
    expect(
      relativeMax(
        noGrad(() => dense.forward(inputs).logits),
        unmerged,
      ),
    ).toBeLessThan(1e-4);
    await savePretrained(dense, join(folder, 'merged'));

    await saveAdapter(dense, folder);
    expect(existsSync(join(folder, 'quantise.json')), 'an adapter of a dense base').toBe(false);
    for (const one of [model, again, dense]) one.dispose();
  });
});

describe('what cannot be quantised', () => {
  it('is refused with what to do', async () => {
    const model = await fromPretrained(base, { quantise: { format: 'nf4', embeddings: true } });
    await expect(savePretrained(model, temporary())).rejects.toThrow(
      /savePretrained: expected a model whose weights are numbers.*in nf4/,
    );
    expect(() => loadWeights(model, base)).toThrow(/loadWeights: expected a model whose weights are numbers/);
    expect(() => quantise(model, 'nf4')).toThrow(/quantised already; quantise once/);
    const save = (names: string[]) => () =>
      applyAdapter(model, lora({ rank: 2, modulesToSave: names, targets: 'q_proj' }), { name: 'new' });
    applyAdapter(model, lora({ rank: 1 }));
    expect(save(['embed_tokens'])).toThrow(
      /modulesToSave: expected modules whose weights are numbers, received .*embed_tokens.weight, which is quantised/,
    );
    expect(adapterNames(model)).toEqual({ all: ['default'], active: ['default'] });
    model.dispose();

    const adapted = applyAdapter(await fromPretrained(base), lora({ rank: 2 }));
    expect(() => quantise(adapted, 'int8')).toThrow(/one with adapters/);
    adapted.dispose();

    await expect(
      fromPretrained(base, { quantise: { format: 'nf4', embeddings: true }, embeddings: 'mapped' }),
    ).rejects.toThrow(/quantise.embeddings: expected .*received both \(embeddings: 'mapped'\)/);
  });

  it.each<[unknown, RegExp]>([
    ['nf5', /quantise: Invalid option.*"nf4".*received "nf5"/],
    [{ format: 'nf4', blockSize: 63 }, /quantise.blockSize: .*received 63/],
    [{ format: 'nf4', block: 64 }, /quantise.block: expected a known key/],
    [{ embeddings: true }, /quantise.format: .*received nothing/],
    [true, /quantise: .*received true/],
  ])('%j is refused by its key', async (options, message) => {
    await expect(fromPretrained(base, { quantise: options as 'nf4' })).rejects.toThrow(message);
  });

  it('a weight that is not finite is named', async () => {
    const folder = temporary();
    for (const name of readdirSync(base).filter((one) => one.endsWith('.json'))) {
      writeFileSync(join(folder, name), readFileSync(join(base, name)));
    }
    const stored = new SafetensorsFile(join(base, 'model.safetensors'));
    const broken = stored.names.find((name) => name.endsWith('layers.1.mlp.up_proj.weight'))!;
    const weights = stored.names.map((name): [string, Tensor] => {
      const tensor = stored.read(name);
      if (name === broken) noGrad(() => tensor.narrow(0, 3, 1).fill_(NaN));
      return [name, tensor];
    });
    await writeSafetensors(join(folder, 'model.safetensors'), weights);
    await expect(fromPretrained(folder, { quantise: 'nf4' })).rejects.toThrow(
      /layers.1.mlp.up_proj.weight.*finite/,
    );
  });
});
