// What a learner refuses, in words.

import { ConfigError, TrainError } from '../errors.js';

/** Rows that a message names; the rest are counted. */
const SHOWN_ROWS = 8;

/** @param what is not finite: 'loss', 'gradient norm' */
export function notFinite(step: number, what: string, value: number, rows: readonly string[]): TrainError {
  const more = rows.length > SHOWN_ROWS ? ` and ${rows.length - SHOWN_ROWS} more` : '';
  return new TrainError({
    where: `step ${step}, ${what}`,
    expected: 'a finite number',
    received: String(value),
    remedy:
      'the model was not updated and the last checkpoint is intact; lower the learning rate or look at the rows of ' +
      `this step: ${rows.slice(0, SHOWN_ROWS).join(', ')}${more}`,
  });
}

export function nothingLearns(patterns: readonly string[]): ConfigError {
  return new ConfigError({
    where: 'model.freeze',
    expected: 'some parameters left to learn',
    received: `all of them frozen by ${patterns.join(', ')}`,
    remedy: 'freeze fewer parts, or leave out step to evaluate only',
  });
}
