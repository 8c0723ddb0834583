// The average of the weights through a run: in checkpoints, in the final model, in evaluations, and on resume.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { adamw, checkpoints, constant, fromPretrained, generate, sft } from '../../src/index.js';
import { SafetensorsFile } from '../../src/checkpoint/index.js';
import type { Batch } from '../../src/data/types.js';
import { scope, setNumThreads, tensor } from '../../src/tensor/index.js';
import { loadTraining, snapshotBytes, snapshotOf } from '../../src/train/checkpoint.js';
import { Learner } from '../../src/train/learner.js';
import type { StepOptions } from '../../src/train/options.js';
import { writeSnapshot } from '../../src/train/snapshot.js';
import { colourRows, modelFolder, temporaryFolder } from './job.js';
import { runJob } from './run-job.js';

beforeAll(() => setNumThreads(1));

const LONG_MS = 240_000;
const NAME = 'model.language_model.layers.0.mlp.up_proj.weight';

function valuesIn(path: string, name = NAME): number[] {
  const file = new SafetensorsFile(path);
  const values = scope(() => Array.from(file.read(name).to('float32').toTypedArray(), Number));
  file.close();
  return values;
}

const change = (spec: Record<string, unknown>) => ({
  ...spec,
  step: sft({
    optimizer: adamw({ lr: 1e-2 }),
    schedule: constant(),
    maxSteps: 3,
    ema: { decay: 0.75, final: true },
  }),
});

describe('a run that keeps an average', { timeout: LONG_MS }, () => {
  it('has it in its checkpoints, goes on with it bit for bit, and ends with a model of it', async () => {
    const job = {
      rows: await colourRows(8),
      batchSize: 2,
      change,
      sinks: [checkpoints({ every: 1, keep: 9 })],
    };
    const whole = await runJob(job);
    expect(whole.error).toBeUndefined();
    const at = (outDir: string, step: number, file: string) => join(outDir, `checkpoint-${step}`, file);
    const averages = [1, 2, 3].map((step) => valuesIn(at(whole.outDir, step, 'ema.safetensors')));
    for (const step of [2, 3]) {
      const weights = valuesIn(at(whole.outDir, step, 'model.safetensors'));
      const [before, now] = [averages[step - 2]!, averages[step - 1]!];
      const worst = Math.max(
        ...now.map((value, i) => Math.abs(value - (0.75 * before[i]! + 0.25 * weights[i]!))),
      );
      expect(worst).toBeLessThan(1e-6);
    }
    expect(valuesIn(join(whole.outDir, 'final', 'model.safetensors'))).toEqual(averages[2]);

    const outDir = temporaryFolder();
    const stopped = new Error('enough');
    const controller = new AbortController();
    await runJob({
      ...job,
      outDir,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.event === 'step' && event.step === 1) controller.abort(stopped);
      },
    });
    expect(existsSync(join(outDir, 'final'))).toBe(false);
    expect((await runJob({ ...job, outDir, resume: true })).error).toBeUndefined();
    for (const file of ['model.safetensors', 'optimizer.safetensors', 'ema.safetensors', 'state.json']) {
      const [got, expected] = [outDir, whole.outDir].map((folder) => readFileSync(at(folder, 3, file)));
      expect(got!.equals(expected!), file).toBe(true);
    }
  });
});

function open(ema?: StepOptions['ema'], dtype: 'float32' | 'bfloat16' = 'float32'): Promise<Learner> {
  return Learner.open({
    model: {
      kind: 'gemma3n',
      path: modelFolder(),
      dtype,
      device: 'cpu',
      freeze: ['vision'],
      weights: 'random',
      projector: 'pretrained',
    },
    step: {
      kind: 'sft',
      optimizer: { kind: 'adamw', lr: 3e-2 },
      schedule: { kind: 'constant' },
      maxSteps: 10,
      accumulate: 1,
      ...(ema && { ema }),
    },
    seed: 1,
  });
}

const IDS = Int32Array.of(2, 40, 41, 42, 43, 44);
function batch(labels = IDS): Batch {
  const shape = [1, 6];
  return {
    inputIds: { data: IDS.slice(), shape },
    attentionMask: { data: new Uint8Array(6).fill(1), shape },
    labels: { data: labels.slice(), shape },
    numTokens: 6,
    numLabels: 5,
    numSamples: 1,
  };
}

function train(learner: Learner, steps: number): void {
  for (let step = 0; step < steps; step++) {
    learner.accumulate(batch(), []);
    learner.update([]);
  }
}

const EMA = { decay: 0.9, warmup: false, every: 1, evaluate: true, final: false };
const NO_STREAM = { stream: undefined, plan: undefined };
const WISH = { maxNewTokens: 6, eosTokenIds: [] };

describe('a learner that keeps an average', { timeout: LONG_MS }, () => {
  it.each(['float32', 'bfloat16'] as const)('of %s answers by it where it is asked to', async (dtype) => {
    const [asked, plain] = [await open(EMA, dtype), await open({ ...EMA, evaluate: false }, dtype)];
    train(asked, 4);
    train(plain, 4);
    const folder = join(temporaryFolder(), 'final');
    await asked.writeAverage(folder);
    const answers = [await asked.generate(batch(), WISH), await plain.generate(batch(), WISH)];
    const inputs = { inputIds: tensor(BigInt64Array.from(IDS, BigInt), [1, 6]) };
    const model = (await fromPretrained(folder, { dtype })).eval();
    expect(answers[0]).toEqual(await generate(model, inputs, { ...WISH, doSample: false }));
    expect(answers[1]).toEqual(await generate(plain.model.eval(), inputs, { ...WISH, doSample: false }));
    expect(answers[0]).not.toEqual(answers[1]);
    train(asked, 1);
    train(plain, 1);
    const bytes = (learner: Learner) =>
      learner.trainable.map(([, one]) => scope(() => Buffer.from(one.toBytes()).toString('base64')));
    expect(bytes(asked)).toEqual(bytes(plain));
    expect(snapshotBytes(asked) - snapshotBytes(await open(undefined, dtype))).toBe(asked.average!.numBytes);
  });

  it('leaves it alone in a step without labels', async () => {
    const learner = await open({ ...EMA, every: 2 });
    train(learner, 1);
    learner.accumulate(batch(new Int32Array(6).fill(-100)), []);
    expect(learner.update([])).toMatchObject({ step: 2, skipped: 1 });
    expect(learner.average!.updates).toBe(0);
    train(learner, 2);
    expect(learner.average!.updates).toBe(1);
  });

  it('is refused a checkpoint without one, and the other way round', async () => {
    const paths = await Promise.all(
      [EMA, undefined].map(async (ema) => {
        const learner = await open(ema);
        train(learner, 1);
        return (await writeSnapshot(temporaryFolder(), snapshotOf(learner, NO_STREAM))).path;
      }),
    );
    const [withOne, without] = paths as [string, string];
    const other = await open();
    expect(() => loadTraining(other, withOne)).toThrow(
      `step.ema: expected an average, as ${withOne} holds one, received none; continue with the same, or begin a new run from the weights of that folder`,
    );
    const one = await open(EMA);
    expect(() => loadTraining(one, without)).toThrow(`expected none, as ${without} holds none, received one`);
    expect(loadTraining(one, withOne)).toMatchObject({ step: 1 });
    expect(one.average!.updates).toBe(1);
  });
});
