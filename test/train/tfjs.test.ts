// A TensorFlow.js model as a guest: it learns, it is continued bit for bit, and what it refuses is said.

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  adamw,
  arrays,
  checkpoints,
  constant,
  decodeMedia,
  evaluation,
  type Sample,
  exactMatch,
  filter,
  labelledImages,
  parquet,
  pipeline,
  sft,
  sgd,
  tfjsLearner,
} from '../../src/index.js';
import { readArrays } from '../../src/checkpoint/index.js';
import type { RunEvent } from '../../src/train/events.js';
import { decodePipeline } from '../../src/train/pipeline.js';
import { runPipeline } from '../../src/train/run.js';
import { tfjsPath } from '../../src/train/tfjs-package.js';
import { type EasyVqaRow, questions } from '../../pipelines/easy-vqa.js';
import { temporaryFolder } from './job.js';

const classes = ['black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow'];
const size = 12;
const explode = (row: EasyVqaRow) => questions(row);
const colours = filter(({ tags }: Sample) => tags?.['kind'] === 'colour');

interface Job {
  readonly maxSteps: number;
  readonly lr?: number;
  readonly optimizer?: ReturnType<typeof sgd>;
  readonly outDir?: string;
  readonly resume?: boolean;
  readonly every?: number;
  readonly evaluated?: number;
}

async function run({ maxSteps, lr = 1e-2, optimizer, every, evaluated, ...options }: Job) {
  const spec = pipeline({
    name: 'guest',
    seed: 1,
    model: tfjsLearner({
      classes,
      build: (tf) =>
        tf.sequential({
          layers: [
            tf.layers.conv2d({ inputShape: [size, size, 3], filters: 8, kernelSize: 3, activation: 'relu' }),
            tf.layers.globalMaxPooling2d({}),
            tf.layers.dropout({ rate: 0.05 }),
            tf.layers.dense({ units: 32, activation: 'relu' }),
            tf.layers.dense({ units: classes.length }),
          ],
        }),
    }),
    source: parquet('fixtures/easy-vqa/train.parquet', { shuffle: { seed: 1 }, epochs: 4, explode }),
    flow: [colours, decodeMedia(), labelledImages({ size, classes }), arrays({ size: 32 })],
    step: sft({ optimizer: optimizer ?? adamw({ lr }), schedule: constant(), clipNorm: 1, maxSteps }),
    sinks: [
      checkpoints({ ...(every !== undefined && { every }) }),
      ...(evaluated === undefined
        ? []
        : [
            evaluation({
              source: parquet('fixtures/easy-vqa/test.parquet', { explode }),
              scores: [exactMatch()],
              limit: evaluated,
            }),
          ]),
    ],
  });
  const events: RunEvent[] = [];
  const outDir = options.outDir ?? temporaryFolder();
  await runPipeline(decodePipeline(spec, [], 'guest.ts'), {
    outDir,
    resume: options.resume ?? false,
    sinks: [{ name: 'recorder', onEvent: (event) => void events.push(event) }],
    signal: new AbortController().signal,
    log: () => undefined,
  });
  return { outDir, events };
}

const weightsOf = (outDir: string, step: number, file = 'model') =>
  readArrays(join(outDir, `checkpoint-${step}`, `${file}.safetensors`));

describe('a tfjs model in a pipeline', () => {
  it('learns to name colours that it has not seen', async () => {
    const { events } = await run({ maxSteps: 120, evaluated: 300 });
    const scored = events.find((event) => event.event === 'eval');
    expect(scored?.count).toBe(300);
    expect(scored?.scores['exactMatch']).toBeGreaterThan(0.5); // of eight colours
    const steps = events.filter((event) => event.event === 'step');
    expect(steps).toHaveLength(120);
    expect(steps.at(-1)!.loss).toBeLessThan(0.7 * steps[0]!.loss);
  });

  it('continues from a checkpoint as a run without a break would, dropout too', async () => {
    const whole = await run({ maxSteps: 8 });
    const { outDir } = await run({ maxSteps: 4 });
    await run({ maxSteps: 8, outDir, resume: true });
    for (const file of ['model', 'optimizer']) {
      expect(weightsOf(outDir, 8, file)).toEqual(weightsOf(whole.outDir, 8, file));
    }
    expect(weightsOf(outDir, 8)).not.toEqual(weightsOf(outDir, 4));
  });

  it('names the step and its rows when the loss is no number', async () => {
    await expect(run({ maxSteps: 30, lr: 1e30 })).rejects.toThrow(
      /step \d+, (loss|gradient norm): expected a finite number, received (NaN|Infinity).*train\.parquet row group/s,
    );
  });

  it('refuses an optimizer that it has not, before the run', async () => {
    await expect(run({ maxSteps: 4, optimizer: sgd({ lr: 0.1 }) })).rejects.toThrow(
      'step.optimizer: expected adamw(...), which a tfjs model learns by, received sgd',
    );
  });
});

describe('the package of a tfjs model', () => {
  it('is the first one that is installed', () => {
    expect(
      tfjsPath((name) => (name.endsWith('tfjs-node') ? 'b' : name.endsWith('tfjs') ? 'c' : undefined)),
    ).toBe('b');
  });

  it('is asked for where none is', () => {
    expect(() => tfjsPath(() => undefined)).toThrow(
      /expected TensorFlow\.js, one of .*, received none that is installed; npm install @tensorflow\/tfjs-node/,
    );
  });
});
