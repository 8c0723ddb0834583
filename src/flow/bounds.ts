// What a graph may hold at most, against what its pool has.

import { FlowError } from '../errors.js';
import type { AnyStage } from './types.js';

/** What a sample may come to weigh in this stage and those after it: `reserves[i]` is asked before stage i; one more
 *  entry (0) stands for the consumer. A stage that splits samples multiplies what the later ones need. */
export function reservesOf(stages: readonly AnyStage[]): number[] {
  const reserves = [0];
  for (const stage of [...stages].reverse()) {
    const later = reserves[0] ?? 0;
    reserves.unshift(Math.max(stage.itemBytes ?? 0, later) * (stage.splits ?? 1));
  }
  return reserves;
}

/** Refuses a graph that its pool could stall: one whose stages wait for more samples than the pool lets in.
 *
 *  Of n stages that keep up to M_i inputs while they wait for more, each input gathering S_i samples of at most K bytes,
 *  all may be one short of full when the next sample comes: (1 + sum of (M_i - 1) S_i) K bytes.
 *  K is the source's `maxItemBytes` or what the stages make of a sample, if either is declared. Otherwise a pool that is
 *  too small shows during the run, and is then an error with the same numbers.
 *  @throws {FlowError} with the numbers */
export function checkBounds(
  source: { readonly maxItemBytes?: number },
  stages: readonly AnyStage[],
  poolBytes: number,
): void {
  const { reserve, needed, holders } = heldAtMost(source, stages);
  const heldTooMuch = holders.length > 0 && needed > poolBytes;
  if (!heldTooMuch && reserve <= poolBytes) return;
  throw new FlowError({
    where: `pool of ${poolBytes} bytes`,
    expected: heldTooMuch
      ? `at least ${needed} bytes, since ${holders.join(' and ')}`
      : `at least ${reserve} bytes, which one sample may come to weigh`,
    received: `${poolBytes} bytes`,
    remedy: 'raise poolBytes, or let the stage hold less',
  });
}

/** What stages hold at most while they wait for more, as far as is known before a run. */
export interface HeldAtMost {
  /** What one sample may come to weigh, bytes. */
  readonly reserve: number;
  /** The least that a pool must have for it, bytes. */
  readonly needed: number;
  /** "batch holds up to 32 items of up to 49152 bytes" */
  readonly holders: readonly string[];
}

/** The reckoning of `checkBounds`. */
export function heldAtMost(
  source: { readonly maxItemBytes?: number },
  stages: readonly AnyStage[],
): HeldAtMost {
  const reserve = reservesOf(stages)[0] ?? 0;
  const itemBytes = Math.max(source.maxItemBytes ?? 0, reserve);
  let needed = itemBytes;
  let gathered = 1;
  const holders: string[] = [];
  for (const { name, holdsItems, holdsBytes = Infinity, gathers = 1 } of stages) {
    const ofItems = holdsItems === undefined ? Infinity : (holdsItems - 1) * gathered * itemBytes;
    if (holdsBytes < ofItems) {
      needed += holdsBytes;
      holders.push(`${name} holds up to ${holdsBytes} bytes`);
    } else if (holdsItems !== undefined && holdsItems > 1) {
      needed += ofItems;
      holders.push(`${name} holds up to ${holdsItems * gathered} items of up to ${itemBytes} bytes`);
    }
    gathered *= gathers;
  }
  return { reserve, needed, holders };
}
