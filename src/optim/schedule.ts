// Learning-rate schedules: pure functions from the number of updates made to a factor of the peak rate, with the values
// of transformers' get_*_schedule_with_warmup.

import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';

/** Factor of the peak learning rate for the next update.
 *  @param step updates made before it, from 0: with warm-up the very first has factor 0
 *  @param maxSteps updates of the whole run */
export type Schedule = (step: number, maxSteps: number) => number;

const warmup = z
  .number()
  .min(0)
  .refine(
    (value) => value < 1 || Number.isInteger(value),
    'expected a share below 1 or a whole number of steps',
  )
  .default(0);

const constantSchema = z.strictObject({
  /** Updates over which the rate rises from 0: a share of all of them when below 1, else their number. */
  warmup,
});
const linearSchema = constantSchema;
const cosineSchema = z.strictObject({
  warmup,
  /** Where the cosine ends, as a share of the peak. */
  minLrRate: z.number().min(0).max(1).default(0),
});

const schemas = { constant: constantSchema, linear: linearSchema, cosine: cosineSchema } as const;

/** A schedule as plain values; see `constant`, `linear`, `cosine`. */
export type ScheduleOptions =
  | ({ readonly kind: 'constant' } & z.input<typeof constantSchema>)
  | ({ readonly kind: 'linear' } & z.input<typeof linearSchema>)
  | ({ readonly kind: 'cosine' } & z.input<typeof cosineSchema>);

type SchedulePart<S extends z.ZodObject> = Part<'schedule', undefined, Schedule> & z.input<S> & Schedule;

/** The peak rate throughout, after the warm-up. */
export const constant = builder('constant', constantSchema);

/** Down to 0 at the end in a straight line. */
export const linear = builder('linear', linearSchema);

/** Down to `minLrRate` at the end along half a cosine. */
export const cosine = builder('cosine', cosineSchema);

/** The factor of a schedule given as plain values.
 *  @throws {ConfigError} when they are out of range, a line each */
export function scheduleFactor(options: ScheduleOptions, step: number, maxSteps: number): number {
  const { kind, ...rest } = options;
  const { warmup, minLrRate = 0 } = decode(schemas[kind], rest, kind) as z.output<typeof cosineSchema>;
  const warmupSteps = warmup < 1 ? Math.ceil(warmup * maxSteps) : warmup;
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);

  const decaySteps = Math.max(1, maxSteps - warmupSteps);
  switch (kind) {
    case 'constant':
      return 1;
    case 'linear':
      return Math.max(0, (maxSteps - step) / decaySteps);
    case 'cosine': {
      // past the end it stays there, where the reference's comes up again
      const progress = Math.min(1, (step - warmupSteps) / decaySteps);
      const cosine = 0.5 * (1 + Math.cos(Math.PI * progress));
      return Math.max(0, cosine * (1 - minLrRate) + minLrRate);
    }
  }
}

/** A part of the pipeline file that can be called as the schedule that it describes. */
function builder<S extends z.ZodObject>(kind: ScheduleOptions['kind'], schema: S) {
  const define = definePart({
    role: 'schedule',
    kind,
    schema,
    create: (options): Schedule => scheduleOf({ kind, ...options }),
  });
  return (options?: z.input<S>): SchedulePart<S> => {
    const part = define(options);
    return Object.assign(scheduleOf(part as ScheduleOptions), part);
  };
}

function scheduleOf({ ...options }: ScheduleOptions): Schedule {
  return (step, maxSteps) => scheduleFactor(options, step, maxSteps);
}
