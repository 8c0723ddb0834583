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
import { TfjsLearner } from '../../src/train/tfjs-learner.js';
import { type Tfjs, loadTfjs, tfjsPath } from '../../src/train/tfjs-package.js';
import { type EasyVqaRow, questions } from '../../pipelines/easy-vqa.js';
import { temporaryFolder } from './job.js';
import { only } from './run-job.js';

const classes = ['black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow'];
const size = 8;
const explode = (row: EasyVqaRow) => questions(row);
const colours = filter(({ tags }: Sample) => tags?.['kind'] === 'colour');

/** Features of each pixel, the strongest anywhere, and what they say: plain JavaScript is slow in convolutions. */
function network(tf: Tfjs) {
  const { layers } = tf;
  return tf.sequential({
    layers: [
      layers.reshape({ inputShape: [size, size, 3], targetShape: [size * size, 3] }),
      layers.dense({ units: 16, activation: 'relu' }),
      layers.globalMaxPooling1d({}),
      layers.dropout({ rate: 0.05 }),
      layers.dense({ units: 32, activation: 'relu' }),
      layers.dense({ units: classes.length }),
    ],
  });
}

/** Without dropout: the same whatever it draws. */
function plain(tf: Tfjs) {
  const { layers } = tf;
  return tf.sequential({
    layers: [layers.flatten({ inputShape: [size, size, 3] }), layers.dense({ units: classes.length })],
  });
}

/** Convolutions, normalisation over batches, dropout, and two outputs: the class, and one that should be 0. */
function twoHeads({ input, layers, model }: Tfjs) {
  const inputs = input({ shape: [size, size, 3] });
  const stages = [
    layers.conv2d({ filters: 4, kernelSize: 3, activation: 'relu' }),
    layers.batchNormalization(),
    layers.flatten(),
    layers.dropout({ rate: 0.2 }),
  ];
  const features = stages.reduce((x, layer) => layer.apply(x) as typeof inputs, inputs);
  const heads = [classes.length, 1].map((units) => layers.dense({ units }).apply(features) as typeof inputs);
  return model({ inputs, outputs: heads });
}

interface Job {
  readonly model?: Parameters<typeof tfjsLearner>[0];
  readonly learner?: Parameters<typeof tfjsLearner>[1];
  readonly maxSteps: number;
  readonly lr?: number;
  /** Of a micro-batch. */
  readonly size?: number;
  readonly step?: Partial<Parameters<typeof sft>[0]>;
  readonly outDir?: string;
  readonly resume?: boolean;
  readonly every?: number;
  readonly evaluated?: number;
}

async function run({
  model = network,
  maxSteps,
  lr = 1e-2,
  size: batchSize = 32,
  step,
  every,
  evaluated,
  learner,
  ...options
}: Job) {
  const spec = pipeline({
    name: 'guest',
    seed: 1,
    model: tfjsLearner(model, { classes, ...learner }),
    source: parquet('fixtures/easy-vqa/train.parquet', { shuffle: { seed: 1 }, epochs: 4, explode }),
    flow: [colours, decodeMedia(), labelledImages({ size, classes }), arrays({ size: batchSize })],
    step: sft({
      ...{ optimizer: adamw({ lr }), schedule: constant(), maxSteps },
      ...(step?.clip === undefined && { clipNorm: 1 }),
      ...step,
    }),
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
    const { events } = await run({ maxSteps: 60, lr: 2e-2, evaluated: 150 });
    const scored = events.find((event) => event.event === 'eval');
    expect(scored?.count).toBe(150);
    expect(scored?.scores['exactMatch']).toBeGreaterThan(0.5); // of eight colours
    const steps = events.filter((event) => event.event === 'step');
    expect(steps).toHaveLength(60);
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

  it('splits a step into micro-batches without changing it, and clips by one norm', async () => {
    const whole = await run({ maxSteps: 3, model: plain, size: 8 });
    const split = await run({ maxSteps: 3, model: plain, size: 4, step: { accumulate: 2 } });
    const clipped = await run({ maxSteps: 3, model: plain, size: 8, step: { clip: { norm: 1 } } });
    const unclipped = await run({ maxSteps: 3, model: plain, size: 8, step: { clip: { norm: 1e9 } } });
    const steps = ({ events }: typeof whole) => only(events, 'step');
    expect(steps(split).map(({ numLabels }) => numLabels)).toEqual([8, 8, 8]);
    steps(split).forEach(({ loss, gradNorm }, i) => {
      expect(loss).toBeCloseTo(steps(whole)[i]!.loss, 4);
      expect(gradNorm).toBeCloseTo(steps(whole)[i]!.gradNorm, 4);
    });
    expect(steps(clipped).map(({ loss }) => loss)).toEqual(steps(whole).map(({ loss }) => loss));
    expect(steps(whole)[0]!.clipped).toBe(true);
    expect(steps(unclipped)[0]!.clipped).toBe(false);
  });

  it('trains a model that the file has built, from the weights that it has', async () => {
    const built = plain(await loadTfjs());
    const before = built.getWeights().map((weight) => weight.dataSync().slice());
    const { outDir } = await run({ maxSteps: 2, model: built });
    const after = built.getWeights().map((weight) => weight.dataSync());
    expect(after).not.toEqual(before);
    expect([...weightsOf(outDir, 2).values()].map(({ data }) => data)).toEqual(after);
  });

  it('trains a model with several outputs by a loss of their list, and asks for one', async () => {
    const options: Parameters<typeof tfjsLearner>[1] = {
      loss: (tf, [named, zero], labels) =>
        tf
          .logSoftmax(named!)
          .mul(tf.oneHot(labels, classes.length))
          .sum(-1)
          .neg()
          .add(zero!.squeeze([-1]).square()),
      predict: (_tf, [named]) => [...named!.argMax(-1).dataSync()].map((number) => classes[number]!),
    };
    const { events } = await run({ maxSteps: 12, model: twoHeads, learner: options });
    const losses = only(events, 'step').map(({ loss }) => loss);
    expect(Math.min(...losses.slice(-3))).toBeLessThan(losses[0]!);
    await expect(run({ maxSteps: 1, model: twoHeads })).rejects.toThrow(
      /^model\.loss: expected a function of the list of outputs.*received none, for 2 outputs/,
    );
    const { loss } = options;
    const learner = new TfjsLearner(await loadTfjs(), { model: twoHeads, classes, loss }, { seed: 1 });
    const pictures = { data: new Float32Array(size * size * 3), shape: [1, size, size, 3] };
    const labels = { data: Int32Array.of(0), shape: [1] };
    expect(() => learner.answer({ arrays: { inputs: pictures, labels }, numSamples: 1 })).toThrow(
      /^model\.predict: expected a function of the list of outputs/,
    );
    learner.close();
  });

  it.each([
    [
      'optimizer: expected adamw(...), which a tfjs model learns by, received sgd',
      { optimizer: sgd({ lr: 0.1 }) },
    ],
    ['optimizer.groups: expected none', { optimizer: adamw({ lr: 0.1, groups: [{ match: '*', lr: 1 }] }) }],
    ['optimizer.noDecay: expected none', { optimizer: adamw({ lr: 0.1, noDecay: '*bias' }) }],
    ["optimizer.rounding: expected 'nearest'", { optimizer: adamw({ lr: 0.1, rounding: 'stochastic' }) }],
    ['clip: expected { norm }', { clip: { adaptive: 0.1 } }],
    ['checkpointing: expected none', { checkpointing: true }],
    ['optimizerInBackward: expected none', { optimizerInBackward: true, clipNorm: undefined }],
  ])('refuses before the run what it would not do: step.%s', async (said, step) => {
    await expect(run({ maxSteps: 4, step })).rejects.toThrow(`step.${said}`);
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
