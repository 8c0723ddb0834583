// Each warning through a whole run, and numbers that are not finite named by their layer.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  assistant,
  chat,
  fromConfig,
  gemma3n,
  map,
  metrics,
  report,
  savePretrained,
  text,
  user,
} from '../../src/index.js';
import { loadConfig } from '../../src/models/gemma3n/index.js';
import { noGrad, scope, setNumThreads } from '../../src/tensor/index.js';
import { type ColourRow, modelFolder, metricsOf, smallConfig, temporaryFolder } from './job.js';
import { type JobOptions, only, runJob } from './run-job.js';

beforeAll(() => setNumThreads(1));

/** The small job's model with weights, one of them filled, and keys of text_config changed. */
async function savedModel(
  filled: Readonly<Record<string, number>>,
  text: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const folder = temporaryFolder();
  fs.cpSync(modelFolder(), folder, { recursive: true });
  const config = smallConfig();
  const changed = { ...config, text_config: { ...(config['text_config'] as object), ...text } };
  fs.writeFileSync(join(folder, 'config.json'), JSON.stringify(changed));
  const model = fromConfig(await loadConfig(folder), { seed: 3 });
  const parameters = new Map(model.namedParameters());
  for (const [name, value] of Object.entries(filled)) {
    const tensor = parameters.get(name)!;
    noGrad(() => scope(() => void tensor.fill_(value)));
  }
  await savePretrained(model, folder);
  model.dispose();
  return folder;
}

const withModel = (path: string): Pick<JobOptions, 'change'> => ({
  change: (spec) => ({ ...spec, model: gemma3n(path) }),
});

/** Questions without their pictures. */
const asked = map((row: ColourRow) => chat(user(text(row.question)), assistant(text(row.answer))));

describe('a run warns', () => {
  it('of every step clipped and of parts without a gradient, once, at its end where it is short', async () => {
    const rows = Array.from({ length: 12 }, () => ({ image: null, question: 'what color?', answer: 'red' }));
    const { events, error, outDir } = await runJob({
      rows,
      batchSize: 1,
      maxSteps: 12,
      set: ['step.clipNorm=1e-6'],
      sinks: [metrics(), report()],
      change: ({ flow, ...spec }) => ({ ...spec, flow: [asked, ...(flow as unknown[]).slice(1)] }),
    });
    expect(error).toBeUndefined();
    expect(only(events, 'step').every(({ clippedShare }) => clippedShare === 1)).toBe(true);
    const warnings = only(events, 'warning').filter(({ step }) => step > 0);
    expect(warnings.map(({ kind, step }) => [kind, step])).toEqual([
      ['dead parameters', 10],
      ['clipping', 12],
    ]);
    const [dead, clipping] = warnings;
    expect(dead!.message).toMatch(/nothing in the loss depends on .*model\.vision_tower\./);
    expect(dead!.remedy).toMatch(/^give samples with images, or freeze them/);
    expect(dead!.names!.every((name) => /vision/.test(name))).toBe(true);
    expect(clipping!.message).toMatch(
      /^each of the last 12 steps was clipped to 0\.000001, .* carr(y|ies) \d+% of its square/,
    );
    expect(clipping!.remedy).toMatch(/^raise step\.clipNorm above /);
    expect(metricsOf(outDir).filter(({ event }) => event === 'warning')).toHaveLength(3);
    const page = fs.readFileSync(join(outDir, 'report.html'), 'utf8');
    expect(page).toContain('<h2>3 warnings</h2>');
    expect(page).toContain('All of the first 12 steps were clipped');
  });

  it('of weights that are zero throughout and of another soft cap, before the first step', async () => {
    const zero = 'model.language_model.layers.1.mlp.up_proj.weight';
    const { events, error } = await runJob({
      ...withModel(await savedModel({ [zero]: 0 }, { final_logit_softcapping: 50 })),
      maxSteps: 1,
    });
    expect(error).toBeUndefined();
    const warnings = only(events, 'warning');
    expect(warnings.map(({ kind, step, names }) => [kind, step, names])).toEqual([
      ['zero weights', 0, [zero]],
      ['soft cap', 0, undefined],
    ]);
    expect(warnings[0]!.message).toContain(`zero throughout: ${zero}`);
    expect(warnings[1]!.message).toMatch(/soft-capped at 50, .* where every published Gemma 3n has 30/);
    expect(events.findIndex(({ event }) => event === 'warning')).toBeLessThan(
      events.findIndex(({ event }) => event === 'step'),
    );
  });

  it('of nothing where nothing is wrong', async () => {
    const { events, error } = await runJob({
      ...withModel(await savedModel({}, { final_logit_softcapping: 30 })),
      set: ['step.clipNorm=1e9'],
      batchSize: 3,
      maxSteps: 4,
    });
    expect(error).toBeUndefined();
    expect(only(events, 'warning')).toEqual([]);
  });
});

describe('a number that is not finite', () => {
  it.each([
    [
      'model.language_model.layers.2.self_attn.q_proj.weight',
      NaN,
      'layers.2.self_attn.q_proj (Linear)',
      true,
    ],
    ['model.language_model.layers.1.mlp.down_proj.weight', Infinity, 'layers.1.mlp.down_proj (Linear)', true],
    ['model.embed_vision.embedding_projection.weight', NaN, 'model.embed_vision.embedding_projection', true],
    [
      'model.language_model.layers.1.post_attention_layernorm.weight',
      Infinity,
      'layers.1.post_attention_layernorm (RmsNorm)',
      true,
    ],
    ['model.language_model.embed_tokens.weight', NaN, 'model.language_model.embed_tokens (', true],
    ['model.language_model.layers.3.mlp.gate_proj.weight', 3e38, 'layers.3.mlp.gate_proj (Linear)', false],
  ] as const)('in %s of %d names its layer', async (name, value, place, isInWeights) => {
    const { error, events } = await runJob({
      ...withModel(await savedModel({ [name]: value })),
      maxSteps: 2,
    });
    expect(error?.message).toMatch(
      /^step 1, loss: expected a finite number, received (NaN|-?Infinity); the model was not/,
    );
    expect(error?.message).toContain('the first module whose result is not finite is ');
    expect(error?.message).toContain(place);
    if (isInWeights) expect(error?.message).toContain(`its weights are not finite: ${name}`);
    else expect(error?.message).toMatch(/, of inputs up to [\d.]+; its weights are finite/);
    expect(only(events, 'step')).toEqual([]);
    expect(only(events, 'end')).toMatchObject([{ outcome: 'failed' }]);
  });
});
