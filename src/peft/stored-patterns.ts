// Patterns of an adapter's configuration, which comes from anywhere: expressions in Python's spelling, of which those are
// taken that JavaScript reads alike and that cannot take long.

import { CheckpointError } from '../errors.js';

const MOST_CHARACTERS = 400;
/** Of repetitions without a bound: each multiplies the time by a name's length. */
const MOST_REPETITIONS = 4;

/** Whether a pattern is a name, or the end of one. */
export function isLiteral(pattern: string): boolean {
  return /^[\w.-]*$/.test(pattern);
}

/** @returns whether a module's name ends as the expression says
 *  @throws {CheckpointError} for one that is too long, repeats what repeats, or uses more than the usual signs */
export function safeExpression(pattern: string, where: string): (name: string) => boolean {
  const repetitions = pattern.match(/[*+]/g)?.length ?? 0;
  const isUsual =
    /^(?:[\w.\-|^$*+()[\]]|\\[d.w])*$/.test(pattern) && !/\)[*+?]|\(\?|[*+?][*+?]/.test(pattern);
  if (isUsual && pattern.length <= MOST_CHARACTERS && repetitions <= MOST_REPETITIONS) {
    try {
      const expression = new RegExp(`^(?:.*\\.)?(?:${pattern})$`);
      return (name) => expression.test(name);
    } catch {
      // told below
    }
  }
  const shown = pattern.length > 80 ? `${pattern.slice(0, 77)}...` : pattern;
  throw new CheckpointError({
    where,
    expected: `module names, or expressions of at most ${MOST_CHARACTERS} usual signs and ${MOST_REPETITIONS} repetitions`,
    received: JSON.stringify(shown),
    remedy: 'write the names of the modules out',
  });
}
