// Runs whose adapter learns over quantised weights: what their checkpoints hold, how they go on, and what is refused.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type QuantiseOptions,
  adamw,
  checkpoints,
  constant,
  dora,
  evaluation,
  exactMatch,
  fromPretrained,
  gemma3n,
  lora,
  parquet,
  sft,
} from '../../src/index.js';
import { quantisationOf } from '../../src/models/gemma3n/index.js';
import { setNumThreads } from '../../src/tensor/index.js';
import { decodePipeline } from '../../src/train/pipeline.js';
import { runPipeline } from '../../src/train/run.js';
import image from '../../pipelines/image-lora.pipeline.js';
import qlora from '../../pipelines/image-qlora.pipeline.js';
import { type ColourRow, colourRows, temporaryFolder, writeRows } from './job.js';
import { type JobOptions, conversation, only, runJob } from './run-job.js';
import { savedModel } from './saved-model.js';
import { batch, decodeMedia, encode, map } from '../../src/index.js';

let base: string;
beforeAll(async () => {
  setNumThreads(1);
  base = await savedModel();
});

type ModelPart = Parameters<typeof gemma3n>[1];
const withModel = (options: ModelPart, path = base): Pick<JobOptions, 'change'> => ({
  change: (spec) => ({ ...spec, model: gemma3n(path, options) }),
});
const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
const FILES = [
  'adapter_config.json',
  'adapter_model.safetensors',
  'optimizer.safetensors',
  'quantise.json',
  'state.json',
];

describe('a run with an adapter over quantised weights', () => {
  it.each<[string, QuantiseOptions, ModelPart]>([
    ['nf4 and lora', 'nf4', { adapter: lora({ rank: 2, alpha: 4, dropout: 0.1 }) }],
    [
      'int8, embeddings and towers, and dora',
      { format: 'int8', embeddings: true, towers: true },
      { adapter: dora({ rank: 2 }), dtype: 'bfloat16' },
    ],
  ])(
    'of %s saves the adapter alone, and goes on as if it had not been stopped',
    async (_, quantise, options) => {
      const job = {
        ...withModel({ ...options, quantise }),
        rows: await colourRows(16),
        epochs: 4,
        maxSteps: 6,
      };
      const whole = await runJob({ ...job, sinks: [checkpoints()] });
      expect(whole.error).toBeUndefined();
      const losses = only(whole.events, 'step').map(({ loss }) => loss);
      expect(losses.at(-1)).toBeLessThan(losses[0]!);
      const folder = join(whole.outDir, 'checkpoint-6');
      expect(existsSync(join(folder, 'model.safetensors'))).toBe(false);

      const outDir = temporaryFolder();
      const controller = new AbortController();
      await runJob({
        ...job,
        outDir,
        sinks: [checkpoints()],
        signal: controller.signal,
        onEvent: (event) =>
          event.event === 'step' && event.step === 2 && controller.abort(new Error('enough')),
      });
      const second = await runJob({ ...job, outDir, sinks: [checkpoints()], resume: true });
      expect(second.error).toBeUndefined();
      for (const name of FILES) {
        expect(digest(join(outDir, 'checkpoint-6', name)), name).toBe(digest(join(folder, name)));
      }
      // What a checkpoint learnt over, whoever loads it learns from it.
      const model = await fromPretrained(folder);
      expect(quantisationOf(model)?.format).toBe(typeof quantise === 'string' ? quantise : quantise.format);
      model.dispose();

      const other = await runJob({
        ...job,
        ...withModel({ ...options, quantise: { format: 'nf4', blockSize: 32 } }),
        outDir,
        maxSteps: 7,
        resume: true,
      });
      expect(other.error?.message).toMatch(
        /expected the quantisation that is declared: nf4, blocks of 32, received .*change model.quantise back/,
      );
    },
  );

  it('is evaluated and trained on by the folder of its checkpoint, quantised as it was', async () => {
    const job = { rows: await colourRows(12), epochs: 2, maxSteps: 3 };
    const trained = await runJob({
      ...job,
      ...withModel({ quantise: 'nf4', adapter: lora({ rank: 2 }) }),
      sinks: [checkpoints()],
    });
    expect(trained.error).toBeUndefined();
    const folder = join(trained.outDir, 'checkpoint-3');
    const file = writeRows(join(temporaryFolder(), 'test.parquet'), await colourRows(4));
    const outDir = temporaryFolder();
    const more = await runJob({
      ...job,
      ...withModel({}, folder),
      outDir,
      sinks: [
        checkpoints(),
        evaluation({
          source: parquet<ColourRow>(file),
          flow: [map(conversation), decodeMedia(), encode(), batch({ size: 4 })],
          scores: [exactMatch()],
          maxNewTokens: 2,
        }),
      ],
    });
    expect(more.error).toBeUndefined();
    expect(only(more.events, 'eval').length).toBeGreaterThan(0);
    expect(readFileSync(join(outDir, 'checkpoint-3', 'quantise.json'), 'utf8')).toBe(
      readFileSync(join(folder, 'quantise.json'), 'utf8'),
    );
  });

  it.each<[string, ModelPart, RegExp]>([
    [
      'no adapter',
      { quantise: 'nf4' },
      /model.quantise: expected an adapter that learns beside the weights in nf4.*received full fine-tuning; add adapter/,
    ],
    [
      'random weights',
      { quantise: 'int8', weights: 'random' },
      /model.quantise: expected weights from files/,
    ],
    [
      'embeddings in their file',
      { quantise: { format: 'nf4', embeddings: true }, embeddings: 'mapped', adapter: lora({ rank: 2 }) },
      /model.quantise.embeddings: expected .*received both/,
    ],
    ['another format', { quantise: 'fp4' as 'nf4' }, /model.quantise: .*received "fp4"/],
    [
      'another key',
      { quantise: { format: 'nf4', bits: 4 } as never },
      /model.quantise.bits: expected a known key/,
    ],
  ])('with %s is refused before it begins', async (_, options, message) => {
    const ran = await runJob(withModel(options));
    expect(ran.error?.message).toMatch(message);
    expect(ran.events).toEqual([]);
  });

  it('takes overrides of its leaves', async () => {
    const spec = {
      ...(qlora as object),
      model: gemma3n(base, { quantise: { format: 'nf4' }, adapter: lora({ rank: 2 }) }),
    };
    const decoded = decodePipeline(
      spec,
      ['model.quantise.format=int8', 'model.quantise.towers=true'],
      'x.ts',
    );
    expect(decoded.model.quantise).toEqual({
      format: 'int8',
      embeddings: false,
      towers: true,
      doubleQuantise: true,
      blockSize: 64,
    });
    expect(decodePipeline(spec, ['model.quantise=false'], 'x.ts').model.quantise).toBe(false);
  });
});

describe('pipelines/image-qlora.pipeline.ts', () => {
  it('is image-lora with one line more, and its loss falls', async () => {
    expect({ ...qlora, model: undefined, name: '' }).toEqual({ ...image, model: undefined, name: '' });
    const losses: number[] = [];
    const spec = {
      ...qlora,
      step: sft({ optimizer: adamw({ lr: 2e-3 }), schedule: constant(), clipNorm: 1, maxSteps: 12 }),
      sinks: [],
    };
    const { facts } = await runPipeline(decodePipeline(spec, [], 'image-qlora'), {
      outDir: temporaryFolder(),
      sinks: [
        { name: 'recorder', onEvent: (event) => void (event.event === 'step' && losses.push(event.loss)) },
      ],
      signal: new AbortController().signal,
      log: () => undefined,
    });
    expect(facts.numTrainable).toBeLessThan(facts.numParameters / 6);
    const mean = (some: readonly number[]): number => some.reduce((sum, one) => sum + one, 0) / some.length;
    expect(mean(losses.slice(-3))).toBeLessThan(mean(losses.slice(0, 3)) * 0.9);
  });
});
