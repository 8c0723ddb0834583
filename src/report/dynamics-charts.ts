// Charts of how training goes: gradients and updates by part, clipping, speed, memory; and the first steps closely.

import type { StepEvent } from '../train/events.js';
import { GRADIENT_PARTS } from '../train/gradient-norms.js';
import type { Chart } from './chart.js';
import { FIRST_STEPS, PART_NAMES } from './first-steps.js';

/** Steps of which a share is shown. */
const RECENT = 100;

export function dynamicsCharts(steps: readonly StepEvent[]): Chart[] {
  const series = (
    title: string,
    unit: string,
    value: (step: StepEvent) => number | undefined,
    extra: Partial<Chart> = {},
  ): Chart => ({ title, unit, labels: [title], data: [numbersOf(steps), pick(steps, value)], ...extra });

  const charts = [
    byPart('Gradient norm by part', 'before clipping', steps, ({ gradNorms }) => gradNorms, { log: true }),
    byPart('Update over weights', 'norms, by part', steps, ({ updateRatios }) => updateRatios, { log: true }),
    series('Clipped steps', `of the last ${RECENT}`, clippedShares(steps), { share: true }),
    series('MFU', "of the machine's measured peak", ({ mfu }) => mfu, { share: true }),
    series('Speed', 'tokens a second', ({ tokensPerSecond }) => tokensPerSecond),
    memory(steps),
  ];
  return charts.filter(hasData);
}

/** Charts of the first hundred steps alone. */
export function firstStepsCharts(steps: readonly StepEvent[]): Chart[] {
  const first = steps.filter(({ step }) => step <= FIRST_STEPS);
  const place = 'first';
  const x = numbersOf(first);
  const losses = {
    title: 'Loss',
    unit: 'nats a token',
    labels: ['Loss'],
    data: [x, pick(first, ({ loss }) => loss)],
  };
  const charts: Chart[] = [
    { ...losses, place },
    byPart('Gradient norm by part', 'before clipping', first, ({ gradNorms }) => gradNorms, {
      log: true,
      place,
    }),
    byPart('Who carries it', "share of the gradient norm's square", first, sharesOf, { share: true, place }),
  ];
  const hasParts = first.some(({ gradNorms }) => gradNorms !== undefined);
  return hasParts ? charts.filter(hasData) : [];
}

function sharesOf({ gradNorms = {} }: StepEvent): Record<string, number> {
  const all = Object.values(gradNorms).reduce((sum, norm) => sum + norm ** 2, 0);
  return Object.fromEntries(
    Object.entries(gradNorms).map(([part, norm]) => [part, all > 0 ? norm ** 2 / all : 0]),
  );
}

/** A series for each part that has a value anywhere. */
function byPart(
  title: string,
  unit: string,
  steps: readonly StepEvent[],
  of: (step: StepEvent) => Readonly<Record<string, number>> | undefined,
  extra: Partial<Chart>,
): Chart {
  const measured = steps.filter((step) => of(step) !== undefined);
  const parts = GRADIENT_PARTS.filter((part) => measured.some((step) => of(step)?.[part] !== undefined));
  const shown = (value: number | undefined) => (extra.log && value === 0 ? undefined : value);
  return {
    title,
    unit,
    labels: parts.map((part) => PART_NAMES[part]),
    data: [numbersOf(measured), ...parts.map((part) => pick(measured, (step) => shown(of(step)?.[part])))],
    ...extra,
  };
}

/** Of records that do not have the share, it is counted. */
function clippedShares(steps: readonly StepEvent[]): (step: StepEvent) => number | undefined {
  const counted = new Map<StepEvent, number>();
  let clipped = 0;
  for (const [i, step] of steps.entries()) {
    clipped += Number(step.clipped) - Number(steps[i - RECENT]?.clipped ?? false);
    counted.set(step, clipped / Math.min(i + 1, RECENT));
  }
  return (step) => step.clippedShare ?? counted.get(step);
}

function memory(steps: readonly StepEvent[]): Chart {
  return {
    title: 'Memory',
    unit: "GB of tensors in the host's memory",
    labels: ['between steps', 'at most'],
    data: [
      numbersOf(steps),
      pick(steps, (step) => step.memory && step.memory.used / 1e9),
      pick(steps, (step) => step.memory && step.memory.most / 1e9),
    ],
  };
}

function numbersOf(steps: readonly StepEvent[]): number[] {
  return steps.map(({ step }) => step);
}

function pick(
  steps: readonly StepEvent[],
  value: (step: StepEvent) => number | undefined,
): (number | null)[] {
  return steps.map((step) => value(step) ?? null);
}

function hasData({ data }: Chart): boolean {
  return data.slice(1).some((values) => values.some((value) => value !== null));
}
