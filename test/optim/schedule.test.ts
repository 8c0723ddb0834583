// Values of fixtures/reference/optim.json come from transformers: test/reference/optim.py.

import { describe, expect, test } from 'vitest';
import {
  adamw,
  constant,
  cosine,
  inverseSqrt,
  linear,
  scheduleFactor,
  scheduleFault,
  wsd,
} from '../../src/optim/index.js';
import { sft } from '../../src/train/options.js';
import { part, withLeaf } from '../../src/parts.js';
import { decode, z } from '../../src/schema.js';
import { reference } from './reference.js';

describe('a schedule', () => {
  test.each(reference.schedules)(
    'equals that of transformers: $kind, warm-up $warmup, end $minLrRate',
    ({ kind, warmup, minLrRate, factors }) => {
      const schedule =
        kind === 'cosine' ? cosine({ warmup, minLrRate }) : { constant, linear }[kind]({ warmup });
      for (const [step, factor] of factors.entries()) {
        if (step > reference.maxSteps && kind === 'cosine') continue; // the cosine comes up again
        expect(Math.abs(schedule(step, reference.maxSteps) - factor)).toBeLessThan(1e-12);
      }
    },
  );

  test('stays at its end when a run is longer than it', () => {
    expect(cosine({ minLrRate: 0.1 })(30, 20)).toBeCloseTo(0.1, 12);
    expect(cosine()(21, 20)).toBe(0);
    expect(linear()(21, 20)).toBe(0);
  });

  test('takes a warm-up below 1 as a share of all steps, rounded up', () => {
    const schedule = linear({ warmup: 0.05 });
    expect(schedule(0, 90)).toBe(0);
    expect(schedule(4, 90)).toBe(4 / 5);
    expect(schedule(5, 90)).toBe(1);
    expect(linear({ warmup: 1 })(0, 90)).toBe(0);
  });

  test('is a part of a pipeline file: plain values that any thread can follow', () => {
    const schema = z.strictObject({ schedule: part('schedule') });
    const spec = { schedule: cosine({ warmup: 3 }) };
    const { schedule } = decode(schema, spec, 'file');
    expect(schedule).toMatchObject({ kind: 'cosine', warmup: 3, minLrRate: 0 });
    expect(scheduleFactor(structuredClone({ kind: 'cosine', warmup: 3 }), 7, 20)).toBe(spec.schedule(7, 20));
    expect(() => decode(schema, withLeaf(spec, 'schedule.warmup', 1.5), 'file')).toThrow(
      /^file: schedule\.warmup: expected a share below 1 or a whole number of steps, received 1\.5/,
    );
    expect(() => decode(schema, withLeaf(spec, 'schedule.warmup', -1), 'file')).toThrow(/schedule\.warmup/);
    expect(() => decode(schema, withLeaf(spec, 'schedule.minLr', 0.1), 'file')).toThrow(
      /minLr.*unknown|unknown.*minLr/,
    );
  });

  test('out of range is refused when it is asked', () => {
    expect(() => linear({ warmup: Number.NaN })(0, 10)).toThrow(/linear: warmup: /);
    expect(() => cosine({ minLrRate: 2 })(0, 10)).toThrow(/cosine: minLrRate: .*received 2/);
  });
});

/** transformers' formulas: get_inverse_sqrt_schedule and get_wsd_schedule. */
describe('the closed forms', () => {
  const steps = Array.from({ length: 41 }, (_, i) => i);

  test('of the inverse square root', () => {
    const factor = (step: number, timescale: number) =>
      step < 5 ? step / 5 : 1 / Math.sqrt((step + (timescale - 5)) / timescale);
    for (const step of steps) {
      expect(inverseSqrt({ warmup: 5, timescale: 7 })(step, 40)).toBeCloseTo(factor(step, 7), 12);
      expect(inverseSqrt({ warmup: 5 })(step, 40)).toBeCloseTo(factor(step, 5), 12);
    }
  });

  test.each(['linear', 'cosine', '1-sqrt'] as const)('of warm-up, stable, decay: %s', (shape) => {
    const decay = (done: number) =>
      ({ linear: 1 - done, cosine: 0.5 * (1 + Math.cos(Math.PI * done)), '1-sqrt': 1 - Math.sqrt(done) })[
        shape
      ];
    const schedule = wsd({ warmup: 4, decay: 0.25, shape, minLrRate: 0.1 });
    for (const step of steps) {
      const wanted = step < 4 ? step / 4 : step < 30 ? 1 : 0.1 + 0.9 * decay((step - 30) / 10);
      expect(schedule(step, 40)).toBeCloseTo(wanted, 12);
    }
    expect(schedule(50, 40)).toBeCloseTo(0.1, 12);
  });

  test('of a straight line that ends above 0', () => {
    expect(linear({ minLrRate: 0.2 })(30, 40)).toBeCloseTo(0.4, 12);
    expect(linear({ minLrRate: 0.2 })(45, 40)).toBeCloseTo(0.2, 12);
  });
});

describe('a run that is shorter than its schedule', () => {
  test('is told with the key', () => {
    expect(scheduleFault({ kind: 'linear', warmup: 10 }, 10)).toEqual({
      key: 'warmup',
      value: 10,
      message: "expected a warm-up shorter than the run's 10 steps",
    });
    expect(scheduleFault({ kind: 'wsd', warmup: 5, decay: 6 }, 10)).toMatchObject({ key: 'decay', value: 6 });
    expect(scheduleFault({ kind: 'wsd', warmup: 4, decay: 6 }, 10)).toBeUndefined();
    expect(scheduleFault({ kind: 'cosine', warmup: 0.5 }, 10)).toBeUndefined();
    expect(scheduleFault({ kind: 'constant' }, 1)).toBeUndefined();
  });

  test('is refused with the pipeline file, before it begins', () => {
    const schema = z.strictObject({ step: part('step') });
    const step = sft({ optimizer: adamw({ lr: 1 }), schedule: cosine({ warmup: 20 }), maxSteps: 10 });
    expect(() => decode(schema, { step }, 'file')).toThrow(
      "file: step.schedule.warmup: expected a warm-up shorter than the run's 10 steps, received 20; correct this value",
    );
  });
});
