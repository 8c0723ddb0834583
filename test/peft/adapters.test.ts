// Adapters on a model: what they begin as, switching, merging, and what they leave alone.

import { afterEach, describe, expect, it } from 'vitest';
import {
  adapterNames,
  applyAdapter,
  disableAdapters,
  enableAdapters,
  type Gemma3n,
  loadAdapter,
  mergeAdapter,
  removeAdapter,
  savePretrained,
  setAdapter,
  unmergeAdapter,
} from '../../src/models/gemma3n/index.js';
import { fromPretrained } from '../../src/models/gemma3n/index.js';
import { type AdapterPart, dora, lora } from '../../src/peft/index.js';
import { generate } from '../../src/generate/index.js';
import { type Tensor, liveTensors, manualSeed, noGrad, op, scope, tensor } from '../../src/tensor/index.js';
import { relativeMax } from '../models/text-reference.js';
import { temporaryFolder } from '../train/job.js';
import { adapterReference, smallModel } from './adapter-reference.js';
import { settledTensors } from '../live.js';

const normal_ = op('aten::normal_');

const models: Gemma3n[] = [];
afterEach(() => {
  for (const model of models.splice(0)) model.dispose();
});

async function open(name?: string): Promise<Gemma3n> {
  const model = await smallModel(name);
  models.push(model);
  return model;
}

const ids = () => tensor([2, 5, 9, 17, 33, 60, 71, 8, 44], [1, 9], 'int64');
const logits = (model: Gemma3n): Tensor => noGrad(() => model.forward({ inputIds: ids() }).logits);
const same = (a: Tensor, b: Tensor): boolean => relativeMax(a, b) === 0;
const learning = (model: Gemma3n) => [...model.namedParameters()].filter(([, tensor]) => tensor.requiresGrad);

/** As if it had learnt something. */
function disturb(model: Gemma3n, seed = 1): void {
  manualSeed(seed);
  noGrad(() =>
    scope(() => {
      for (const [name, tensor] of learning(model)) {
        if (name.includes('magnitude')) tensor.mul_(1.1);
        else tensor.add_(normal_(tensor.detach().clone(), 0, 0.1));
      }
    }),
  );
}

const KINDS: [string, AdapterPart][] = [
  ['lora', lora({ rank: 4, alpha: 8 })],
  ['rank-stabilised lora', lora({ rank: 4, alpha: 8, rsLora: true, init: 'gaussian' })],
  ['dora', dora({ rank: 3 })],
  ['pissa', lora({ rank: 3, alpha: 5, init: 'pissa' })],
  ['dora of pissa', dora({ rank: 2, alpha: 3, init: 'pissa' })],
  ['every linear module', lora({ rank: 2, targets: '*' })],
];

describe.each(KINDS)('%s', (_, adapter) => {
  it('changes nothing before it has learnt, and leaves its tensors alone to learn', async () => {
    const model = await open();
    const before = logits(model);
    applyAdapter(model, adapter);
    expect(relativeMax(logits(model), before)).toBeLessThan(2e-5);
    expect(learning(model).length).toBeGreaterThan(10);
    for (const [name] of learning(model))
      expect(name).toMatch(/\.(lora_[AB]|lora_magnitude_vector)\.default\./);
  });

  it('merged computes what it computes beside the weights; unmerged is to the bit what it was', async () => {
    const model = await open();
    const plain = logits(model);
    applyAdapter(model, adapter);
    disturb(model);
    const beside = logits(model);
    expect(relativeMax(beside, plain)).toBeGreaterThan(1e-3);
    mergeAdapter(model);
    expect(relativeMax(logits(model), beside)).toBeLessThan(2e-5);
    expect(learning(model).length).toBeGreaterThan(0);
    unmergeAdapter(model);
    expect(same(logits(model), beside)).toBe(true);
    disableAdapters(model);
    expect(same(logits(model), plain)).toBe(true);
    enableAdapters(model);
    expect(same(logits(model), beside)).toBe(true);
  });

  it('generates the same token by token as in whole forwards', async () => {
    const model = await open();
    applyAdapter(model, adapter);
    disturb(model);
    const [generated] = await generate(model, { inputIds: ids() }, { maxNewTokens: 5, eosTokenIds: [] });
    const whole = [...Array.from(ids().toTypedArray(), Number)];
    for (let i = 0; i < 5; i++) {
      const inputIds = tensor(whole, [1, whole.length], 'int64');
      const all = noGrad(() => model.forward({ inputIds }).logits);
      whole.push(
        all
          .select(0, 0)
          .select(0, whole.length - 1)
          .argmax()
          .item(),
      );
    }
    expect(generated).toEqual(whole.slice(9));
  });

  it('frees all that it made', async () => {
    const model = await open();
    const before = await settledTensors();
    applyAdapter(model, adapter);
    disturb(model);
    scope(() => {
      const loss = model.lossSum({ inputIds: ids(), labels: ids() }).loss;
      loss.backward();
    });
    scope(() => void logits(model));
    mergeAdapter(model);
    unmergeAdapter(model);
    removeAdapter(model);
    expect(liveTensors()).toBe(before);
  });
});

describe('adapters by name', () => {
  it('are switched, added up and removed', async () => {
    const model = await open();
    const plain = logits(model);
    applyAdapter(model, lora({ rank: 2 }), { name: 'one' });
    disturb(model, 1);
    const one = logits(model);
    applyAdapter(model, dora({ rank: 3, targets: ['q_proj', 'down_proj'] }), { name: 'two' });
    disturb(model, 2);
    const two = logits(model);
    expect(adapterNames(model)).toEqual({ all: ['one', 'two'], active: ['two'] });
    expect(learning(model).every(([name]) => name.includes('.two.'))).toBe(true);
    setAdapter(model, 'one');
    expect(same(logits(model), one)).toBe(true);
    expect(learning(model).every(([name]) => name.includes('.one.'))).toBe(true);
    expect(() => setAdapter(model, ['one', 'two', 'one'])).toThrow(
      "expected each adapter once, received 'one' twice",
    );
    setAdapter(model, ['one', 'two']);
    const both = logits(model);
    expect(relativeMax(both, one)).toBeGreaterThan(1e-3);
    mergeAdapter(model);
    expect(relativeMax(logits(model), both)).toBeLessThan(2e-5);
    setAdapter(model, 'two');
    expect(same(logits(model), two)).toBe(true);
    removeAdapter(model, 'two');
    expect(same(logits(model), plain)).toBe(true);
    expect(() => setAdapter(model, 'two')).toThrow("expected one of one, received 'two'");
    expect(() => applyAdapter(model, lora({ rank: 1 }), { name: 'one' })).toThrow(
      'expected a name that is free',
    );
  });

  it('exchange whole modules, of which no two are active at once', async () => {
    const model = await open('plain');
    const plain = logits(model);
    applyAdapter(model, lora({ rank: 1, modulesToSave: ['norm', 'lm_head'], targets: 'o_proj' }), {
      name: 'one',
    });
    disturb(model, 1);
    const one = logits(model);
    applyAdapter(model, lora({ rank: 1, modulesToSave: ['lm_head'], targets: 'o_proj' }), { name: 'two' });
    expect(relativeMax(logits(model), plain)).toBeLessThan(1e-6);
    expect(() => setAdapter(model, ['one', 'two'])).toThrow('received lm_head.weight in two');
    setAdapter(model, 'one');
    expect(same(logits(model), one)).toBe(true);
  });
});

describe('a model with an adapter', () => {
  it('learns in its training path by the gradients of the whole logits', async () => {
    const model = await open();
    applyAdapter(model, dora({ rank: 2, targets: '*' }));
    disturb(model);
    const gradients = (loss: () => Tensor): Map<string, Tensor> => {
      for (const [, tensor] of learning(model)) tensor.grad = null;
      scope(() => loss().backward());
      return new Map(learning(model).map(([name, tensor]) => [name, tensor.grad!]));
    };
    const inputs = { inputIds: ids(), labels: ids() };
    const mean = gradients(() => model.forward(inputs).loss!);
    const summed = gradients(() => model.lossSum(inputs).loss.div(8));
    for (const [name, gradient] of mean)
      expect(relativeMax(summed.get(name)!, gradient), name).toBeLessThan(1e-4);
    const own = [...model.ownParameters()].filter(([, tensor]) => tensor.grad !== null);
    expect(own).toEqual([]);
  });

  it('drops out in training alone', async () => {
    const model = await open();
    applyAdapter(model, dora({ rank: 4, alpha: 8, dropout: 0.5 }));
    disturb(model);
    const steady = logits(model);
    expect(same(logits(model), steady)).toBe(true);
    model.train();
    manualSeed(1);
    const first = logits(model);
    expect(same(first, logits(model))).toBe(false);
    manualSeed(1);
    expect(same(first, logits(model))).toBe(true);
    model.eval();
    expect(same(logits(model), steady)).toBe(true);
  });

  it('is saved whole once it is merged, and refused before', async () => {
    const reference = adapterReference('dora');
    const model = await open('plain');
    await loadAdapter(model, reference.folder);
    const beside = logits(model);
    const folder = `${temporaryFolder()}/merged`;
    await expect(savePretrained(model, folder)).rejects.toThrow(/mergeAdapter\(model\) first/);
    mergeAdapter(model);
    await savePretrained(model, folder);
    const loaded = await fromPretrained(folder);
    models.push(loaded);
    expect(relativeMax(logits(loaded), beside)).toBeLessThan(2e-5);
  });

  it('in bfloat16 keeps its adapter in float32', async () => {
    const model = await smallModel('sharing', 'bfloat16');
    models.push(model);
    const before = logits(model);
    applyAdapter(model, dora({ rank: 4 }));
    expect(learning(model).every(([, { dtype }]) => dtype === 'float32')).toBe(true);
    expect(relativeMax(logits(model).to('float32'), before.to('float32'))).toBeLessThan(0.05);
    scope(() => model.lossSum({ inputIds: ids(), labels: ids() }).loss.backward());
    for (const [name, tensor] of learning(model)) {
      if (name.includes('lora_B')) expect(tensor.grad!.abs().amax().item(), name).toBeGreaterThan(0);
    }
  });
});
