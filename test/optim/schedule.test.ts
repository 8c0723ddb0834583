// Values of fixtures/reference/optim.json come from transformers: test/reference/optim.py.

import { describe, expect, test } from 'vitest';
import { constant, cosine, linear, scheduleFactor } from '../../src/optim/index.js';
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
