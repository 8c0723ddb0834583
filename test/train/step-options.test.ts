// The step's options through a whole run: what changes memory alone ends at the same weights, bit for bit; what cannot go
// together, or with this model, is refused before the first step.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, test } from 'vitest';
import { adamw, checkpoints, constant, linear, lora, sft } from '../../src/index.js';
import { decodePipeline } from '../../src/train/pipeline.js';
import { colourRows } from './job.js';
import { type JobOptions, type Ran, jobSpec, only, runJob } from './run-job.js';

type Spec = Record<string, unknown>;
type StepInput = NonNullable<Parameters<typeof sft>[0]>;

const STEP: StepInput = { optimizer: adamw({ lr: 1e-3 }), schedule: constant(), maxSteps: 2 };

const withStep =
  (step: Partial<StepInput>, model: Spec = {}) =>
  (spec: Spec): Spec => ({
    ...spec,
    model: { ...(spec['model'] as Spec), projector: 'pretrained', ...model },
    step: sft({ ...STEP, ...step }),
  });

async function run(step: Partial<StepInput>, model: Spec = {}, job: JobOptions = {}): Promise<Ran> {
  const ran = await runJob({
    rows: await colourRows(8),
    batchSize: 2,
    sinks: [checkpoints()],
    ...job,
    change: withStep(step, model),
  });
  expect(ran.error).toBeUndefined();
  return ran;
}

const fileOf = ({ outDir }: Ran, name: string, step = 2): Buffer =>
  readFileSync(join(outDir, `checkpoint-${step}`, name));
const curve = ({ events }: Ran) =>
  only(events, 'step').map(({ step, loss, gradNorm, lr }) => ({ step, loss, gradNorm, lr }));

function expectSame(got: Ran, expected: Ran, { norms = true } = {}): void {
  const shown = (ran: Ran) =>
    curve(ran).map(({ gradNorm, ...rest }) => ({ ...rest, ...(norms && { gradNorm }) }));
  expect(shown(got)).toEqual(shown(expected));
  for (const name of ['model.safetensors', 'optimizer.safetensors']) {
    expect(fileOf(got, name).equals(fileOf(expected, name)), name).toBe(true);
  }
}

/** A run takes a second or two, and much longer on a busy machine. */
const LONG_MS = 240_000;

describe('a run', { timeout: LONG_MS }, () => {
  it('with checkpointing is the one without, bit for bit', async () => {
    const clipped = { clipNorm: 1, accumulate: 2 };
    const plain = await run(clipped);
    expectSame(await run({ ...clipped, checkpointing: true }), plain);
    expectSame(await run({ ...clipped, checkpointing: ['vision'], offload: true }), plain);
  });

  it('that updates in the backward pass is the one that does not, bit for bit', async () => {
    const plain = await run({});
    const ran = await run({ optimizerInBackward: true });
    // Norms are added up in the order of the layers' backward pass: their last bits may be others.
    expectSame(ran, plain, { norms: false });
    for (const [i, { gradNorm }] of curve(ran).entries()) {
      expect(gradNorm / curve(plain)[i]!.gradNorm).toBeCloseTo(1, 5);
    }
  });

  it('of bfloat16 does so too, and its small updates are not lost', async () => {
    const step = { optimizer: adamw({ lr: 1e-6 }) };
    const plain = await run(step, { dtype: 'bfloat16' });
    expectSame(
      await run({ ...step, optimizerInBackward: true, checkpointing: true }, { dtype: 'bfloat16' }),
      plain,
      {
        norms: false,
      },
    );
    const tensors = header(fileOf(plain, 'optimizer.safetensors'));
    const masters = Object.entries(tensors).filter(([name]) => name.endsWith('.master'));
    expect(masters.length).toBeGreaterThan(20);
    expect(masters.every(([, { dtype }]) => dtype === 'F32')).toBe(true);
    const started = header(fileOf(plain, 'model.safetensors'));
    expect(Object.values(started).every(({ dtype }) => dtype === 'BF16')).toBe(true);
  });

  it('of bfloat16 without masters moves by stochastic rounding, which repeats', async () => {
    const step = { optimizer: adamw({ lr: 1e-4, rounding: 'stochastic' }) };
    const [one, other] = [await run(step, { dtype: 'bfloat16' }), await run(step, { dtype: 'bfloat16' })];
    expectSame(one, other);
    const state = Object.keys(header(fileOf(one, 'optimizer.safetensors')));
    expect(state.some((name) => name.endsWith('.master'))).toBe(false);
  });
});

/** Of a safetensors file. */
function header(file: Buffer): Record<string, { dtype: string }> {
  const json = file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString();
  const { __metadata__: _, ...tensors } = JSON.parse(json) as Record<string, { dtype: string }>;
  return tensors;
}

describe('before the first step', () => {
  const refusal = async (step: Partial<StepInput>, model: Spec = {}): Promise<Ran> => {
    const ran = await runJob({ change: withStep(step, model) });
    expect(only(ran.events, 'step')).toEqual([]);
    return ran;
  };

  it('an update in the backward pass is refused with an adapter', async () => {
    const adapter = lora({ rank: 2, alpha: 4 });
    const { error } = await refusal({ optimizerInBackward: true }, { adapter, weights: 'pretrained' });
    expect(error?.message).toBe(
      'step.optimizerInBackward: expected full fine-tuning, whose gradients are as large as the model, received an adapter, whose gradients take next to nothing; leave one of the two out',
    );
  });

  it('a part that the model lacks is refused', async () => {
    const { error } = await refusal({ checkpointing: ['text', 'audio'] });
    expect(error?.message).toBe(
      'step.checkpointing: expected parts of this model: text, vision, received audio; leave them out, or say true for all that there are',
    );
  });
});

test.each<[string, Spec, RegExp]>([
  [
    'global clipping',
    { optimizerInBackward: true, clipNorm: 1 },
    /step\.clipNorm: expected none: it needs the gradients of all/,
  ],
  [
    'clipping by group',
    { optimizerInBackward: true, clip: { perGroup: { '*': 1 } } },
    /step\.clip: expected \{ adaptive \}/,
  ],
  [
    'micro-batches',
    { optimizerInBackward: true, accumulate: 2 },
    /step\.accumulate: expected 1 with optimizerInBackward/,
  ],
  ['nothing to offload', { offload: true }, /step\.offload: expected checkpointing with it/],
  ['no parts', { checkpointing: [] }, /step\.checkpointing: .*expected a part or more/],
  ['a part twice', { checkpointing: ['text', 'text'] }, /step\.checkpointing: .*expected each part once/],
  ['an unknown part', { checkpointing: ['head'] }, /step\.checkpointing/],
  ['a rate of 0', { optimizer: { ...adamw({ lr: 0 }) } }, /step\.optimizer\.lr: .*received 0/],
  ['no rate', { optimizer: { ...adamw({ lr: Number.NaN }) } }, /step\.optimizer\.lr: .*received NaN/],
  ['an unknown key', { optimizer: { ...adamw({ lr: 1 }), momentum: 1 } }, /step\.optimizer.*momentum/],
  [
    'a run that its warm-up outlasts',
    { schedule: linear({ warmup: 3 }) },
    /step\.schedule\.warmup: expected a warm-up shorter than the run's 2 steps, received 3/,
  ],
  ['an average of a decay of 1', { ema: { decay: 1 } }, /step\.ema\.decay: /],
  ['an average of a decay of 0', { ema: { decay: 0 } }, /step\.ema\.decay: /],
  ['an average with another key', { ema: { decay: 0.9, power: 1 } }, /step\.ema.*power/],
])('a file with %s is refused, with the path', async (_, step, message) => {
  const spec = withStep(step)((await jobSpec()) as unknown as Spec);
  expect(() => decodePipeline(spec, [], 'job.ts')).toThrow(message);
});
