// The watch over a run's waits: a hang is never silent.

import type { Blame } from './blame.js';
import type { WaitShare } from './types.js';

/** How often it looks, at most, in milliseconds. */
const LOOK_MS = 1000;

/** Tells of a wait that lasts longer than `limitMs` while it lasts, and again each time that it has doubled.
 *  @param blame knows what is waited for
 *  @param tell gets stage, row and the wait's length by now
 *  @returns how to end it */
export function watchStalls(blame: Blame, limitMs: number, tell: (stall: WaitShare) => void): () => void {
  if (limitMs === Infinity) return () => {};
  let next = limitMs;
  const timer = setInterval(
    () => {
      const wait = blame.present();
      if (wait === undefined || wait.ms < limitMs) next = limitMs;
      if (wait === undefined || wait.ms < next) return;
      next = 2 * wait.ms;
      tell(wait);
    },
    Math.max(1, Math.min(LOOK_MS, limitMs / 4)),
  );
  timer.unref();
  return () => clearInterval(timer);
}
