// A model of one's own in a pipeline, written by hand without any library: a line through points.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type ArrayBatch,
  type ArrayExample,
  ConfigError,
  type GuestSpec,
  type Learner,
  type LearnerUpdate,
  type SavedLearner,
  adamw,
  arrays,
  batch,
  checkpoints,
  encode,
  evaluation,
  exactMatch,
  guest,
  learningRate,
  linear,
  map,
  metrics,
  pipeline,
  planPipeline,
  report,
  rows,
  sft,
  sgd,
} from '../../src/index.js';
import { readArrays } from '../../src/checkpoint/index.js';
import type { RunEvent } from '../../src/train/events.js';
import { decodePipeline } from '../../src/train/pipeline.js';
import { runPipeline } from '../../src/train/run.js';
import { metricsOf, temporaryFolder } from './job.js';
import { only } from './run-job.js';

interface Point {
  readonly x: number;
  readonly y: number;
}

const points = Array.from({ length: 64 }, (_, i): Point => ({ x: i / 32 - 1, y: 3 * (i / 32 - 1) + 0.5 }));

const example = ({ x, y }: Point): ArrayExample => ({
  arrays: {
    x: { data: Float32Array.of(x), shape: [] },
    y: { data: Float32Array.of(y), shape: [] },
  },
  target: { prompt: `x = ${x}`, reference: y.toFixed(1), tags: {} },
});

/** y = slope x + offset, by gradient descent on half the squared error. */
class Line implements Learner {
  closed = false;
  #weights = Float32Array.of(0, 0);
  #gradient = [0, 0];
  #loss = 0;
  #count = 0;
  #step = 0;

  constructor(readonly spec: GuestSpec) {}

  facts() {
    return { numParameters: 2, numTrainable: 2 };
  }

  accumulate({ arrays: { x, y } }: ArrayBatch) {
    for (const [i, value] of [...x!.data].entries()) {
      const error = this.#at(value) - y!.data[i]!;
      this.#loss += error ** 2 / 2;
      this.#gradient[0]! += error * value;
      this.#gradient[1]! += error;
      this.#count += 1;
    }
  }

  update(): LearnerUpdate {
    const [step, count] = [this.spec.step!, this.#count];
    const lr = learningRate(step, this.#step);
    const gradient = this.#gradient.map((sum) => sum / count);
    this.#weights = this.#weights.map((weight, i) => weight - lr * gradient[i]!);
    const loss = this.#loss / count;
    this.#gradient = [0, 0];
    this.#loss = this.#count = 0;
    this.#step += 1;
    return {
      step: this.#step,
      loss,
      numLabels: count,
      gradNorm: Math.hypot(...gradient),
      clipped: false,
      skipped: 0,
      lr,
    };
  }

  answer({ arrays: { x } }: ArrayBatch) {
    return [...x!.data].map((value) => this.#at(value).toFixed(1));
  }

  save(): SavedLearner {
    const weights = new Map([['line', { data: this.#weights.slice(), shape: [2] }]]);
    return { step: this.#step, random: '', weights, optimizer: new Map() };
  }

  load({ step, weights }: SavedLearner) {
    this.#step = step;
    this.#weights = Float32Array.from(weights.get('line')!.data);
  }

  async close() {
    this.closed = true;
  }

  #at(x: number): number {
    return this.#weights[0]! * x + this.#weights[1]!;
  }
}

function spec(maxSteps: number, open: (spec: GuestSpec) => Learner = (given) => new Line(given)) {
  return pipeline({
    name: 'line',
    seed: 3,
    model: guest({
      open,
      check: ({ step }) => {
        if (step && (step.optimizer as { kind: string }).kind !== 'sgd')
          throw new ConfigError('a line learns by sgd');
      },
    }),
    source: rows(points, { shuffle: { seed: 1 }, epochs: 10 }),
    flow: [map(example), arrays({ size: 4 })],
    step: sft({ optimizer: sgd({ lr: 0.8 }), schedule: linear({ minLrRate: 0.1 }), maxSteps, accumulate: 2 }),
    sinks: [
      metrics(),
      checkpoints({ every: 10 }),
      evaluation({ every: 20, source: rows(points), scores: [exactMatch()] }),
      report(),
    ],
  });
}

async function run(declared: ReturnType<typeof spec>, { outDir = temporaryFolder(), resume = false } = {}) {
  const events: RunEvent[] = [];
  const { facts } = await runPipeline(decodePipeline(declared, [], 'line.ts'), {
    outDir,
    resume,
    sinks: [{ name: 'recorder', onEvent: (event) => void events.push(event) }],
    signal: new AbortController().signal,
    log: () => undefined,
  });
  return { outDir, events, facts };
}

const lineOf = (outDir: string, step: number) =>
  readArrays(join(outDir, `checkpoint-${step}`, 'model.safetensors')).get('line')!.data;

describe('a learner written by hand', () => {
  it('is trained, evaluated, saved and reported like any other model', async () => {
    const learners: Line[] = [];
    const { outDir, events, facts } = await run(
      spec(60, (given) => {
        learners.push(new Line(given));
        return learners.at(-1)!;
      }),
    );
    expect(facts).toMatchObject({ numParameters: 2, numTrainable: 2 });
    expect(learners.map(({ spec: { seed, step }, closed }) => [seed, step?.maxSteps, closed])).toEqual([
      [3, 60, true],
    ]);
    const [slope, offset] = lineOf(outDir, 60);
    expect(slope).toBeCloseTo(3, 2);
    expect(offset).toBeCloseTo(0.5, 2);
    const evals = only(events, 'eval');
    expect(evals.map(({ step, count }) => [step, count])).toEqual([20, 40, 60].map((step) => [step, 64]));
    expect(evals.at(-1)!.scores['exactMatch']).toBeGreaterThan(0.9);
    expect(evals.at(-1)!.scores['exactMatch']).toBeGreaterThan(evals[0]!.scores['exactMatch']!);
    const steps = metricsOf(outDir).filter(({ event }) => event === 'step');
    expect(steps).toHaveLength(60);
    expect(steps[0]).toMatchObject({ lr: 0.8, numLabels: 8, samples: 8 });
    expect(readFileSync(join(outDir, 'report.html'), 'utf8')).toContain('exactMatch');
  });

  it('is continued as a run without a break would be', async () => {
    const whole = await run(spec(40));
    const { outDir } = await run(spec(40));
    const broken = temporaryFolder();
    const halfway = spec(40, (given) => {
      const line = new Line(given);
      const update = line.update.bind(line);
      line.update = () => {
        const result = update();
        if (result.step === 25) throw new Error('the machine fell over');
        return result;
      };
      return line;
    });
    await expect(run(halfway, { outDir: broken })).rejects.toThrow('fell over');
    const { events } = await run(spec(40), { outDir: broken, resume: true });
    expect(events.find(({ event }) => event === 'step')).toMatchObject({ step: 21 });
    expect(lineOf(broken, 40)).toEqual(lineOf(whole.outDir, 40));
    expect(lineOf(outDir, 40)).toEqual(lineOf(whole.outDir, 40));
  });

  it('is asked before the run whether it can do what is declared', async () => {
    const wrong = {
      ...spec(4),
      step: sft({ optimizer: adamw({ lr: 1 }), schedule: linear(), maxSteps: 4 }),
    };
    await expect(run(wrong as ReturnType<typeof spec>)).rejects.toThrow('a line learns by sgd');
  });

  it('takes no stage that makes tokens, and no plan', async () => {
    const wrong = { ...spec(4), flow: [encode(), batch({ size: 4 })] };
    await expect(run(wrong as unknown as ReturnType<typeof spec>)).rejects.toThrow(
      /flow: expected stages that need no Gemma's processor.*arrays\(\{ size: 32 \}\)/,
    );
    await expect(planPipeline(spec(4))).rejects.toThrow(/plan: expected a pipeline whose model is gemma3n/);
  });
});
