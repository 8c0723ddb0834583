import { describe, expect, it } from 'vitest';
import { definePart, isPart, make, part, withLeaf } from '../src/parts.js';
import { decode, z } from '../src/schema.js';

const schedule = definePart({
  role: 'schedule',
  kind: 'ramp',
  schema: z.strictObject({ warmup: z.number().min(0).default(0.1) }),
  create: ({ warmup }, scale: number) => warmup * scale,
});
const step = definePart({
  role: 'step',
  kind: 'step',
  schema: z.strictObject({ lr: z.number().positive(), schedule: part('schedule') }),
  create: (options) => options,
});
const JOB = z.strictObject({
  name: z.string(),
  step: part('step'),
  sinks: z.array(part('sink')).default([]),
});

describe('parts', () => {
  it('are plain values that survive a spread', () => {
    const base = schedule({ warmup: 0.5 });
    expect(JSON.parse(JSON.stringify(base))).toEqual({ kind: 'ramp', warmup: 0.5 });
    const copy = { ...base, warmup: 0.2 };
    expect(isPart(copy, 'schedule')).toBe(true);
    expect(make(copy, 10)).toBe(2);
  });

  it('are decoded by their own schema, defaults filled, nested ones too', () => {
    const job = decode(JOB, { name: 'a', step: step({ lr: 1, schedule: schedule() }) }, 'job.ts');
    expect(JSON.parse(JSON.stringify(job.step))).toEqual({
      kind: 'step',
      lr: 1,
      schedule: { kind: 'ramp', warmup: 0.1 },
    });
  });

  it('report every fault at once, each with the path of its key', () => {
    const wrong = {
      name: 3,
      step: { ...step({ lr: -1, schedule: schedule({ warmup: -2 }) }), speed: 1 },
      sinks: ['x', schedule()],
      extra: 1,
    };
    let message = '';
    try {
      decode(JOB, wrong, 'job.ts');
    } catch (error) {
      message = (error as Error).message;
    }
    const lines = message.split('\n');
    expect(lines).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^job\.ts: name: .*expected string, received number/),
        expect.stringMatching(/^job\.ts: step\.lr: .*>0/),
        expect.stringMatching(/^job\.ts: step\.schedule\.warmup: .*>=0/),
        expect.stringMatching(/^job\.ts: step\.speed: expected a known key/),
        expect.stringMatching(
          /^job\.ts: sinks\.0: expected a sink made by one of its builders, received "x"/,
        ),
        expect.stringMatching(/^job\.ts: sinks\.1: expected a sink made by one of its builders/),
        expect.stringMatching(/^job\.ts: extra: expected a known key/),
      ]),
    );
    expect(lines).toHaveLength(7);
  });
});

describe('withLeaf', () => {
  const root = { step: step({ lr: 1, schedule: schedule() }), sinks: [schedule()] };

  it('changes one leaf and leaves the original alone', () => {
    const changed = withLeaf(root, 'step.schedule.warmup', 0.3) as typeof root;
    expect(changed.step.schedule).toMatchObject({ warmup: 0.3 });
    expect(isPart(changed.step.schedule, 'schedule')).toBe(true);
    expect(root.step.schedule).not.toHaveProperty('warmup');
    expect(withLeaf(root, 'sinks.0.warmup', 1)).toMatchObject({ sinks: [{ kind: 'ramp', warmup: 1 }] });
  });

  it('refuses a path that leads nowhere', () => {
    expect(() => withLeaf(root, 'sinks.3.warmup', 1)).toThrow(
      '--set sinks.3.warmup: expected an index from 0 to 0, received 3; correct the path',
    );
    expect(() => withLeaf(root, 'step.lr.x', 1)).toThrow(
      "--set step.lr.x: expected an object or list before 'x'",
    );
  });

  it('creates what an optional key lacks', () => {
    expect(withLeaf({}, 'a.b', 1)).toEqual({ a: { b: 1 } });
  });
});
