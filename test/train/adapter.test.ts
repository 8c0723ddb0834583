// Runs that train an adapter: what learns, what their checkpoints hold, and how they go on.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type AdapterPart,
  checkpoints,
  dora,
  evaluation,
  exactMatch,
  fromPretrained,
  gemma3n,
  lora,
  metrics,
  parquet,
} from '../../src/index.js';
import { loadProcessor } from '../../src/data/processor.js';
import { noGrad, scope, setNumThreads, tensor } from '../../src/tensor/index.js';
import { type ColourRow, colourRows, temporaryFolder, writeRows } from './job.js';
import { type JobOptions, conversation, only, runJob } from './run-job.js';
import { savedModel } from './saved-model.js';
import { map, decodeMedia, encode, batch } from '../../src/index.js';

let base: string;
beforeAll(async () => {
  setNumThreads(1);
  base = await savedModel();
});

const withAdapter = (adapter: AdapterPart | string, path = base): Pick<JobOptions, 'change'> => ({
  change: (spec) => ({ ...spec, model: gemma3n(path, { adapter }) }),
});

const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
const FILES = ['adapter_config.json', 'adapter_model.safetensors', 'optimizer.safetensors', 'state.json'];

function logits(model: Awaited<ReturnType<typeof fromPretrained>>): number[] {
  const inputIds = tensor([2, 40, 41, 42, 43], [1, 5], 'int64');
  return scope(() => Array.from(noGrad(() => model.forward({ inputIds }).logits).toTypedArray(), Number));
}

describe('a run with an adapter', () => {
  it('trains and saves the adapter alone, in a folder that loads as a model', async () => {
    const ran = await runJob({
      ...withAdapter(lora({ rank: 2, alpha: 4 })),
      epochs: 3,
      maxSteps: 6,
      sinks: [metrics(), checkpoints({ every: 4, keep: 2 })],
    });
    expect(ran.error).toBeUndefined();
    const { numParameters, numTrainable } = ran.result!.facts;
    expect(numTrainable).toBeLessThan(numParameters / 10);
    const losses = only(ran.events, 'step').map(({ loss }) => loss);
    expect(losses.at(-1)).toBeLessThan(losses[0]!);

    const folder = join(ran.outDir, 'checkpoint-6');
    expect(
      readdirSync(folder)
        .filter((name) => /safetensors|config\.json$/.test(name))
        .sort(),
    ).toEqual(
      expect.arrayContaining(['adapter_config.json', 'adapter_model.safetensors', 'optimizer.safetensors']),
    );
    expect(existsSync(join(folder, 'model.safetensors'))).toBe(false);
    const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object;
    expect(config).toMatchObject({ base_model_name_or_path: base, r: 2, lora_alpha: 4, peft_type: 'LORA' });

    const [whole, adapted] = [await fromPretrained(base), await fromPretrained(folder)];
    expect(logits(adapted)).not.toEqual(logits(whole));
    expect((await loadProcessor(folder)).eosTokenIds).toEqual((await loadProcessor(base)).eosTokenIds);
    for (const model of [whole, adapted]) model.dispose();
  });

  it.each([
    ['lora with dropout', lora({ rank: 3, alpha: 6, dropout: 0.2, targets: /[qv]_proj$/ })],
    ['dora with modules that learn whole', dora({ rank: 2, targets: 'text', modulesToSave: 'embed_vision' })],
    ['pissa', lora({ rank: 2, init: 'pissa', rsLora: true, targets: ['text', 'projector'] })],
  ])('of %s goes on from its checkpoint as if it had not been stopped', async (_, adapter) => {
    const job = { ...withAdapter(adapter), rows: await colourRows(16), epochs: 4, maxSteps: 6 };
    const whole = await runJob({ ...job, sinks: [checkpoints()] });
    expect(whole.error).toBeUndefined();

    const outDir = temporaryFolder();
    const controller = new AbortController();
    const first = await runJob({
      ...job,
      outDir,
      sinks: [checkpoints()],
      signal: controller.signal,
      onEvent: (event) => event.event === 'step' && event.step === 2 && controller.abort(new Error('enough')),
    });
    expect(first.error?.message).toBe('enough');
    const second = await runJob({ ...job, outDir, sinks: [checkpoints()], resume: true });
    expect(second.error).toBeUndefined();
    for (const name of FILES) {
      expect(digest(join(outDir, 'checkpoint-6', name)), name).toBe(
        digest(join(whole.outDir, 'checkpoint-6', name)),
      );
    }
  });

  it('is evaluated by the folder of its checkpoint, and trained on from it', async () => {
    const adapter = lora({ rank: 2 });
    const ran = await runJob({ ...withAdapter(adapter), maxSteps: 2, sinks: [checkpoints()] });
    const folder = join(ran.outDir, 'checkpoint-2');
    const file = writeRows(join(temporaryFolder(), 'rows.parquet'), await colourRows(4));
    const sink = evaluation({
      source: parquet<ColourRow>(file),
      flow: [map(conversation), decodeMedia(), encode(), batch({ size: 4 })],
      scores: [exactMatch()],
      maxNewTokens: 2,
    });
    const evaluated = await runJob({
      sinks: [sink],
      change: ({ step: _step, source: _source, ...spec }) => ({
        ...spec,
        model: gemma3n(folder, { adapter }),
      }),
    });
    expect(evaluated.error).toBeUndefined();
    expect(only(evaluated.events, 'eval')).toHaveLength(1);

    const on = await runJob({
      maxSteps: 1,
      sinks: [checkpoints()],
      change: (spec) => ({ ...spec, model: gemma3n(folder) }),
    });
    expect(on.error).toBeUndefined();
    expect(readFileSync(join(on.outDir, 'checkpoint-1/adapter_config.json'), 'utf8')).toContain(base);
    const both = await runJob({ ...withAdapter(adapter, folder), maxSteps: 1 });
    expect(both.error?.message).toContain('is an adapter itself, received lora');
  });

  it('whose declaration has changed is not continued', async () => {
    const ran = await runJob({ ...withAdapter(lora({ rank: 2 })), maxSteps: 1, sinks: [checkpoints()] });
    const again = await runJob({
      ...withAdapter(lora({ rank: 3 })),
      maxSteps: 2,
      outDir: ran.outDir,
      resume: true,
    });
    expect(again.error?.message).toMatch(/expected the adapter that is declared.*differs in \d+ tensors/);
  });

  it.each([
    ['random weights', { weights: 'random' as const }, "received weights: 'random'"],
    ['a projector that is set anew', { projector: 'whitened' as const }, "received projector: 'whitened'"],
  ])('on %s is refused, since no checkpoint would hold them', async (_, model, message) => {
    const ran = await runJob({
      change: (spec) => ({ ...spec, model: gemma3n(base, { adapter: lora({ rank: 2 }), ...model }) }),
    });
    expect(ran.error?.message).toContain(message);
  });

  it.each([
    [lora({ rank: 2, targets: 'q_prj' }), "lora.targets 'q_prj'"],
    [lora({ rank: 1000 }), 'expected at most'],
    ['nowhere/to be found', 'model.adapter: expected lora'],
  ])('that cannot be made is refused before the first step', async (adapter, message) => {
    const ran = await runJob(withAdapter(adapter));
    expect(ran.error?.message).toContain(message);
    expect(only(ran.events, 'step')).toEqual([]);
  });

  it('with a faulty option names its path', async () => {
    const ran = await runJob({ ...withAdapter(lora({ rank: 2 })), set: ['model.adapter.rank=0'] });
    expect(ran.error?.message).toContain('model.adapter.rank');
    expect(ran.error?.message).toContain('received 0');
  });
});
