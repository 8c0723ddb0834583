// Adapters in files of PEFT's layout: there and back, and files that do not fit or cannot be trusted.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, readdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { writeSafetensors } from '../../src/checkpoint/writer.js';
import {
  applyAdapter,
  fromPretrained,
  type Gemma3n,
  loadAdapter,
  saveAdapter,
  savePretrained,
} from '../../src/models/gemma3n/index.js';
import { type AdapterPart, adaptersOf, dora, lora } from '../../src/peft/index.js';
import { type Tensor, manualSeed, noGrad, op, scope, tensor, zeros } from '../../src/tensor/index.js';
import { referencePath, relativeMax } from '../models/text-reference.js';
import { temporaryFolder } from '../train/job.js';
import { adapterReference, smallModel } from './adapter-reference.js';

const normal_ = op('aten::normal_');
const models: Gemma3n[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  for (const model of models.splice(0)) model.dispose();
});
async function open(name?: string): Promise<Gemma3n> {
  const model = await smallModel(name);
  models.push(model);
  return model;
}

const IDS = [2, 5, 9, 17, 33, 60, 71, 8, 44];
const logits = (model: Gemma3n): Tensor =>
  noGrad(() => model.forward({ inputIds: tensor(IDS, [1, IDS.length], 'int64') }).logits);

function disturb(model: Gemma3n): void {
  manualSeed(5);
  noGrad(() =>
    scope(() => {
      for (const [name, tensor] of model.namedParameters()) {
        if (!tensor.requiresGrad) continue;
        if (name.includes('magnitude')) tensor.mul_(1.1);
        else tensor.add_(normal_(tensor.detach().clone(), 0, 0.1));
      }
    }),
  );
}

const SAVED: [string, string, AdapterPart][] = [
  ['lora with ranks of its own', 'sharing', lora({ rank: 4, alpha: 8, rankPattern: { up_proj: 2 } })],
  [
    'rank-stabilised lora with alphas of its own',
    'sharing',
    lora({
      rank: 3,
      alpha: 4,
      rsLora: true,
      alphaPattern: { 'layers.1': 7 },
      rankPattern: { 'layers.1': 5 },
    }),
  ],
  ['dora on biases', 'plain', dora({ rank: 4, alpha: 2 })],
  [
    'modules that learn whole',
    'plain',
    lora({ rank: 2, modulesToSave: ['lm_head', 'layers.1.laurel', 'model.norm'] }),
  ],
  ['an input embedding that learns', 'sharing', lora({ rank: 2, modulesToSave: 'embed_tokens' })],
  ['pissa', 'sharing', lora({ rank: 3, alpha: 4, init: 'pissa' })],
  ['rank-stabilised dora of pissa', 'plain', dora({ rank: 2, alpha: 3, init: 'pissa', rsLora: true })],
  ['every linear module', 'clipped', lora({ rank: 1, targets: '*' })],
];

describe.each(SAVED)('%s', { timeout: 180_000 }, (_, base, adapter) => {
  it('is the same after it was saved and loaded', async () => {
    const model = applyAdapter(await open(base), adapter);
    disturb(model);
    const folder = join(temporaryFolder(), 'adapter');
    await saveAdapter(model, folder);
    expect(readdirSync(folder).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'base.json',
    ]);
    const again = await loadAdapter(await open(base), folder);
    expect(relativeMax(logits(again), logits(model))).toBeLessThan(2e-5);
    expect([...again.namedParameters()].some(([, { requiresGrad }]) => requiresGrad)).toBe(false);

    // and by its base, which it names
    const whole = await fromPretrained(folder);
    models.push(whole);
    expect(relativeMax(logits(whole), logits(again))).toBe(0);
    const twice = join(temporaryFolder(), 'twice');
    await saveAdapter(again, twice);
    const bytes = (dir: string) => readFileSync(join(dir, 'adapter_model.safetensors'));
    expect(bytes(twice).equals(bytes(folder))).toBe(true);
    expectPeftToAgree(folder, base, logits(model));
  });
});

/** Only where a Python with PEFT is named: SLUICE_PYTHON. */
function expectPeftToAgree(folder: string, base: string, ours: Tensor): void {
  const python = process.env['SLUICE_PYTHON'];
  if (python === undefined) return;
  writeFileSync(join(folder, 'ids.json'), JSON.stringify([IDS]));
  const script = referencePath('../../test/reference/adapters.py');
  const ran = spawnSync(python, [script, 'check', folder, referencePath(`text-${base}`)], {
    encoding: 'utf8',
  });
  const theirs = JSON.parse(ran.stdout.trim().split('\n').at(-1)!) as number[];
  expect(relativeMax(tensor(theirs, ours.shape, 'float32'), ours)).toBeLessThan(5e-5);
}

/** A copy of the recorded LoRA adapter, changed. */
async function changed(change: {
  config?: (json: Record<string, unknown>) => unknown;
  tensors?: (tensors: Map<string, Tensor>) => void;
}): Promise<string> {
  const { folder } = adapterReference('lora');
  const copy = join(temporaryFolder(), 'adapter');
  mkdirSync(copy);
  const json = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  writeFileSync(join(copy, 'adapter_config.json'), JSON.stringify(change.config?.(json) ?? json));
  if (change.tensors) {
    const file = new SafetensorsFile(join(folder, 'adapter_model.safetensors'));
    const tensors = new Map(file.names.map((name) => [name, file.read(name)]));
    change.tensors(tensors);
    await writeSafetensors(join(copy, 'adapter_model.safetensors'), tensors);
    file.close();
  } else {
    copyFileSync(join(folder, 'adapter_model.safetensors'), join(copy, 'adapter_model.safetensors'));
  }
  return copy;
}

const A = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';

describe('an adapter that does not fit', () => {
  it.each<[string, Parameters<typeof changed>[0], RegExp]>([
    [
      'for modules that are not there',
      { tensors: (all) => void all.set(A.replace('layers.0', 'layers.77'), zeros([4, 32])) },
      /expected tensors for modules of this model.*unknown 1 tensor: .*layers\.77.*made for "fixtures\/reference\/text-sharing"/,
    ],
    [
      'with an output head of its own',
      { tensors: (all) => void all.set('base_model.model.lm_head.weight', zeros([96, 32])) },
      /expected an output head that is the token embedding, .*lm_head\.weight, a head of its own; train .*embed_tokens/,
    ],
    [
      'of another width',
      { tensors: (all) => void all.set(A, zeros([4, 48])) },
      /q_proj\.lora_A\.weight": expected shape \[4, 32\].*received \[4, 48\]; the adapter was made for/,
    ],
    ['of another rank than it says', { config: (json) => ({ ...json, r: 5 }) }, /expected shape \[5, 40\]/],
    [
      'with half of a pair',
      { tensors: (all) => void all.delete(A) },
      /expected lora_A, lora_B of .*received no lora_A/,
    ],
    [
      'that says dora without magnitudes',
      { config: (json) => ({ ...json, use_dora: true }) },
      /no lora_magnitude_vector/,
    ],
    [
      'of whole numbers',
      { tensors: (all) => void all.set(A, zeros([4, 32], { dtype: 'int32' })) },
      /floating-point/,
    ],
    [
      'of an unknown kind',
      { config: (json) => ({ ...json, peft_type: 'IA3' }) },
      /peft_type: expected "LORA"/,
    ],
    [
      'whose start is unknown',
      { config: (json) => ({ ...json, init_lora_weights: 'olora' }) },
      /init_lora_weights.*path_initial_model_for_weight_conversion/,
    ],
    [
      'with an expression that could take for ever',
      { config: (json) => ({ ...json, alpha_pattern: { '(a+)+$': 3 } }) },
      /alpha_pattern: expected module names/,
    ],
    ['whose rank is no number', { config: (json) => ({ ...json, r: '4' }) }, /: r: /],
    ['that is no object', { config: () => [1] }, /expected an adapter's configuration in JSON/],
    ['that is nested without end', { config: () => nested(200) }, /nested more than/],
    ['without tensors', { tensors: (all) => all.clear() }, /expected an adapter's tensors, received none/],
  ])('%s is named, and the model stays as it was', async (_, change, message) => {
    const model = await open();
    const before = logits(model);
    await expect(changed(change).then((folder) => loadAdapter(model, folder))).rejects.toThrow(message);
    expect([...model.namedParameters()].every(([, { requiresGrad }]) => requiresGrad)).toBe(true);
    expect(relativeMax(logits(model), before)).toBe(0);
  });

  it('is named where its folder has none', async () => {
    const model = await open();
    await expect(loadAdapter(model, temporaryFolder())).rejects.toThrow(
      /adapter_config\.json: expected an adapter's/,
    );
    const folder = temporaryFolder();
    copyFileSync(
      join(adapterReference('lora').folder, 'adapter_config.json'),
      join(folder, 'adapter_config.json'),
    );
    writeFileSync(join(folder, 'adapter_model.bin'), 'pickle');
    await expect(loadAdapter(model, folder)).rejects.toThrow(
      /adapter_model\.bin: expected .* in safetensors, .*received a pickle, which can run code when it is read, and is not read/,
    );
    await expect(fromPretrained(join(folder, 'nothing'))).rejects.toThrow(/no such folder/);
  });

  it('that would let biases learn is at home where there are none', async () => {
    const [plain, model] = [await open(), await open()];
    await loadAdapter(plain, adapterReference('lora').folder);
    await loadAdapter(model, await changed({ config: (json) => ({ ...json, bias: 'all' }) }));
    expect(relativeMax(logits(model), logits(plain))).toBe(0);
  });

  it('of the whole model has its ranks and alphas by the names of that', async () => {
    const model = await open();
    const folder = await changed({
      config: (json) => ({
        ...json,
        alpha_pattern: { 'model.language_model.layers.0.self_attn.q_proj': 3 },
      }),
      tensors: (all) => {
        for (const [name, tensor] of [...all]) {
          all.delete(name);
          all.set(name.replace('.model.layers.', '.model.language_model.layers.'), tensor);
        }
      },
    });
    await loadAdapter(model, folder);
    const saved = join(temporaryFolder(), 'saved');
    await saveAdapter(model, saved);
    const { alpha_pattern: alphas } = JSON.parse(
      readFileSync(join(saved, 'adapter_config.json'), 'utf8'),
    ) as { alpha_pattern: unknown };
    expect(alphas).toEqual({ 'model.layers.0.self_attn.q_proj': 3 });
  });

  it('of another base of the same shapes is loaded with a warning', async () => {
    const warnings: string[] = [];
    vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warnings.push(String(text)));
    const folder = await changed({
      config: (json) => ({ ...json, base_model_name_or_path: 'google/gemma-3n-E2B-it' }),
    });
    await loadAdapter(await open(), folder);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/made for "google\/gemma-3n-E2B-it", and the model is ".*text-sharing"/);
  });

  describe('trained here', () => {
    const made = async (): Promise<{ base: string; adapter: string }> => {
      const model = await open();
      applyAdapter(model, lora({ rank: 2 }));
      const folder = temporaryFolder();
      const [base, adapter] = [join(folder, 'base'), join(folder, 'adapter')];
      await saveAdapter(model, adapter);
      adaptersOf(model)!.remove('default');
      noGrad(() => scope(() => model.languageModel.layers[3]!.mlp.downProj.weight.mul_(1.5)));
      await savePretrained(model, base);
      return { base, adapter };
    };

    it('is refused beside other weights of the same shapes, and goes where it is told to', async () => {
      vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
      const { base, adapter } = await made();
      const other = await fromPretrained(base);
      models.push(other);
      const before = logits(other);
      await expect(loadAdapter(other, adapter)).rejects.toThrow(
        /base\.json: expected the model that the adapter was trained with, ".*text-sharing", weights [0-9a-f]{32}, received ".*base", weights [0-9a-f]{32}; .*delete /,
      );
      expect(relativeMax(logits(other), before)).toBe(0);
      unlinkSync(join(adapter, 'base.json'));
      await expect(loadAdapter(other, adapter)).resolves.toBe(other);
    });

    it('is at home beside the same weights in another dtype, in shards, under another name', async () => {
      const warnings: string[] = [];
      vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warnings.push(String(text)));
      const { adapter } = await made();
      const narrow = await smallModel('sharing', 'bfloat16');
      models.push(narrow);
      const copy = join(temporaryFolder(), 'copy');
      await savePretrained(narrow, copy, { maxShardBytes: 40_000 });
      const again = await fromPretrained(copy);
      models.push(again);
      await expect(loadAdapter(again, adapter)).resolves.toBe(again);
      expect(warnings).toEqual([]);
    });

    it.each(['{"fingerprint": "short"}', '{', '[]'])('refuses %s for its base', async (text) => {
      const { adapter } = await made();
      writeFileSync(join(adapter, 'base.json'), text);
      await expect(loadAdapter(await open(), adapter)).rejects.toThrow(/base\.json/);
    });
  });

  it('for keys of layers that share them leaves these out, and says so', async () => {
    const warnings: string[] = [];
    vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warnings.push(String(text)));
    const folder = await changed({
      tensors: (all) => {
        const dead = A.replace('layers.0', 'layers.5').replace('q_proj', 'k_proj');
        all.set(dead, zeros([4, 32])).set(dead.replace('lora_A', 'lora_B'), zeros([16, 4]));
      },
    });
    await loadAdapter(await open(), folder);
    expect(warnings[0]).toMatch(/left out 2 tensors: .*layers\.5\.self_attn\.k_proj/);
  });

  it('that names no base that can be found is not opened as a model', async () => {
    const without = await changed({ config: (json) => ({ ...json, base_model_name_or_path: null }) });
    await expect(fromPretrained(without)).rejects.toThrow(/expected base_model_name_or_path/);
    const lost = await changed({
      config: (json) => ({ ...json, base_model_name_or_path: '/nowhere/at/all' }),
    });
    await expect(fromPretrained(lost)).rejects.toThrow(/received "\/nowhere\/at\/all"/);
    await expect(fromPretrained(without, { adapter: lost })).rejects.toThrow(
      /base_model_name_or_path|one adapter/,
    );
  });
});

function nested(depth: number): unknown {
  let json: unknown = 1;
  for (let i = 0; i < depth; i++) json = [json];
  return json;
}
