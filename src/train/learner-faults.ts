// What a learner refuses, in words.

import { ConfigError, TrainError } from '../errors.js';
import { kindsOf } from './dynamics-warnings.js';
import type { GradientFault } from './gradient-search.js';
import type { NotFinite } from './nan-search.js';

/** Rows that a message names; the rest are counted. */
const SHOWN_ROWS = 8;

/** @param what is not finite: 'loss', 'gradient norm'
 *  @param place where it began, as far as is known
 *  @param isUpdated whether layers were updated before it was met, in the backward pass */
export function notFinite(
  step: number,
  what: string,
  value: number,
  rows: readonly string[],
  place = '',
  isUpdated = false,
): TrainError {
  const more = rows.length > SHOWN_ROWS ? ` and ${rows.length - SHOWN_ROWS} more` : '';
  return new TrainError({
    where: `step ${step}, ${what}`,
    expected: 'a finite number',
    received: String(value),
    remedy:
      `${isUpdated ? 'some layers were updated already; go on from the last checkpoint, which' : 'the model was not updated and the last checkpoint'} ` +
      'is intact; lower the learning rate or look at the rows of ' +
      `this step: ${rows.slice(0, SHOWN_ROWS).join(', ')}${more}${place && `; ${place}`}`,
  });
}

/** What a search for the first value that is not finite has found, in words. */
export function placeOf(found: NotFinite): string {
  switch (found.kind) {
    case 'weights':
      return `not finite are the weights ${kindsOf(found.names)}`;
    case 'input':
      return `the batch's ${found.name} is not finite already`;
    case 'module': {
      const inputs =
        found.largestInput === undefined ? '' : `, of inputs up to ${number(found.largestInput)}`;
      return (
        `the first module whose result is not finite is ${found.name} (${found.type})${inputs}; ` +
        (found.weights.length > 0
          ? `its weights are not finite: ${kindsOf(found.weights)}`
          : 'its weights are finite')
      );
    }
    case 'loss':
      return 'every module is finite: it is the logits, or the loss of them';
    case 'nothing':
      return 'computed again, the same batch gives a finite loss';
  }
}

/** @param names of parameters whose gradient is not finite, in the model's order */
export function gradientPlace(names: readonly string[]): string {
  const shown = kindsOf(names);
  const last = names.at(-1);
  const first = names.length > 1 && last ? ` (a backward pass goes from the last to the first)` : '';
  return `not finite are the gradients of ${shown}${first}`;
}

/** The module that a search in the backward pass has found, in words. */
export function moduleOfGradient({ name, type, largest }: GradientFault): string {
  return (
    `the first module of the backward pass that hands on such a gradient is ${name} (${type}), of gradients up to ` +
    number(largest)
  );
}

function number(value: number): string {
  return String(Number(value.toPrecision(3)));
}

export function nothingLearns(patterns: readonly string[]): ConfigError {
  return new ConfigError({
    where: 'model.freeze',
    expected: 'some parameters left to learn',
    received: `all of them frozen by ${patterns.join(', ')}`,
    remedy: 'freeze fewer parts, or leave out step to evaluate only',
  });
}

/** @param parts whose layers are to be computed again @param present those of the model */
export function refuseMissingParts(
  parts: boolean | readonly string[] | undefined,
  present: readonly string[],
): void {
  if (parts === undefined || typeof parts === 'boolean') return;
  const missing = parts.filter((part) => !present.includes(part));
  if (missing.length === 0) return;
  throw new ConfigError({
    where: 'step.checkpointing',
    expected: `parts of this model: ${present.join(', ')}`,
    received: missing.join(', '),
    remedy: 'leave them out, or say true for all that there are',
  });
}
