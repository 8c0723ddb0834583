// Learning-rate schedules: pure functions from the number of updates made to a factor of the peak rate, with the values
// of transformers' get_*_schedule.

import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';

/** Factor of the peak learning rate for the next update.
 *  @param step updates made before it, from 0: with warm-up the very first has factor 0
 *  @param maxSteps updates of the whole run */
export type Schedule = (step: number, maxSteps: number) => number;

const stretch = z
  .number()
  .min(0)
  .refine(
    (value) => value < 1 || Number.isInteger(value),
    'expected a share below 1 or a whole number of steps',
  );
/** Updates over which the rate rises from 0: a share of all of them when below 1, else their number. */
const warmup = stretch.default(0);
/** Where the decay ends, as a share of the peak. */
const minLrRate = z.number().min(0).max(1).default(0);

const schemas = {
  constant: z.strictObject({ warmup }),
  linear: z.strictObject({ warmup, minLrRate }),
  cosine: z.strictObject({ warmup, minLrRate }),
  inverseSqrt: z.strictObject({
    warmup,
    /** Updates over which the rate falls by sqrt(2) at first; as many as the warm-up when left out, or 10,000. */
    timescale: z.number().positive().optional(),
    minLrRate,
  }),
  wsd: z.strictObject({
    warmup,
    /** Updates of the decay at the end: a share of all when below 1, else their number. */
    decay: stretch.refine((value) => value > 0, 'expected a decay above 0').default(0.2),
    /** Down to the end in a straight line, along half a cosine, or as 1 - sqrt(progress) (Hägele et al., 2405.18392). */
    shape: z.enum(['linear', 'cosine', '1-sqrt']).default('linear'),
    minLrRate,
  }),
} as const;

type Schemas = typeof schemas;
type Kind = keyof Schemas;

/** A schedule as plain values; see `constant`, `linear`, `cosine`, `inverseSqrt`, `wsd`. */
export type ScheduleOptions = { [K in Kind]: { readonly kind: K } & z.input<Schemas[K]> }[Kind];

type SchedulePart<S extends z.ZodObject> = Part<'schedule', undefined, Schedule> & z.input<S> & Schedule;

/** The peak rate throughout, after the warm-up. */
export const constant = builder('constant', schemas.constant);

/** Down to `minLrRate` at the end in a straight line. */
export const linear = builder('linear', schemas.linear);

/** Down to `minLrRate` at the end along half a cosine. */
export const cosine = builder('cosine', schemas.cosine);

/** sqrt(timescale / (updates since the warm-up + timescale)): falls without an end. */
export const inverseSqrt = builder('inverseSqrt', schemas.inverseSqrt);

/** Warm-up, stable, decay (Hu et al., arXiv 2404.06395): the peak rate, then down to `minLrRate` over the last steps. */
export const wsd = builder('wsd', schemas.wsd);

/** The factor of a schedule given as plain values.
 *  @throws {ConfigError} when they are out of range, a line each */
export function scheduleFactor(options: ScheduleOptions, step: number, maxSteps: number): number {
  const { kind, ...rest } = options;
  const decoded = { kind, ...decode(schemas[kind], rest, kind) } as DecodedSchedule;
  const warmupSteps = stepsOf(decoded.warmup, maxSteps);
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  if (decoded.kind === 'constant') return 1;
  const factor = decayed(decoded, step, warmupSteps, maxSteps);
  return decoded.minLrRate + (1 - decoded.minLrRate) * factor;
}

/** What of a schedule does not fit into a run. */
export function scheduleFault(
  options: ScheduleOptions,
  maxSteps: number,
): { readonly key: string; readonly value: number; readonly message: string } | undefined {
  const { kind, ...rest } = options;
  const decoded = { kind, ...decode(schemas[kind], rest, kind) } as DecodedSchedule;
  const warmupSteps = stepsOf(decoded.warmup, maxSteps);
  if (warmupSteps > 0 && warmupSteps >= maxSteps) {
    const message = `expected a warm-up shorter than the run's ${maxSteps} steps`;
    return { key: 'warmup', value: decoded.warmup, message };
  }
  if (decoded.kind !== 'wsd' || warmupSteps + stepsOf(decoded.decay, maxSteps) <= maxSteps) return undefined;
  const message = `expected a decay that fits behind ${warmupSteps} of ${maxSteps} steps`;
  return { key: 'decay', value: decoded.decay, message };
}

type DecodedSchedule = { [K in Kind]: { readonly kind: K } & z.output<Schemas[K]> }[Kind];

/** From 1 at the end of the warm-up to 0. Past the end of the run it stays there, where the reference's cosine comes up. */
function decayed(
  options: Exclude<DecodedSchedule, { readonly kind: 'constant' }>,
  step: number,
  warmupSteps: number,
  maxSteps: number,
): number {
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, maxSteps - warmupSteps));
  switch (options.kind) {
    case 'linear':
      return 1 - progress;
    case 'cosine':
      return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
    case 'inverseSqrt': {
      const timescale = options.timescale ?? (warmupSteps || 10_000);
      return Math.sqrt(timescale / (step - warmupSteps + timescale));
    }
    case 'wsd': {
      const decaySteps = stepsOf(options.decay, maxSteps);
      const done = Math.min(1, Math.max(0, (step - (maxSteps - decaySteps)) / decaySteps));
      if (options.shape === '1-sqrt') return 1 - Math.sqrt(done);
      return options.shape === 'linear' ? 1 - done : 0.5 * (1 + Math.cos(Math.PI * done));
    }
  }
}

function stepsOf(stretch: number, maxSteps: number): number {
  return stretch < 1 ? Math.ceil(stretch * maxSteps) : stretch;
}

/** A part of the pipeline file that can be called as the schedule that it describes. */
function builder<S extends z.ZodObject>(kind: Kind, schema: S) {
  const define = definePart({
    role: 'schedule',
    kind,
    schema,
    create: (options): Schedule => scheduleOf({ kind, ...options }),
  });
  return (options?: z.input<S>): SchedulePart<S> => {
    const part = define(options);
    return Object.assign(scheduleOf(part as unknown as ScheduleOptions), part);
  };
}

function scheduleOf({ ...options }: ScheduleOptions): Schedule {
  return (step, maxSteps) => scheduleFactor(options, step, maxSteps);
}
