// The account of a run's time, in lines: wall time = setup + compute + wait + sinks + other, the wait by stage, the rows
// that were waited for longest, and how near the feed came to one that is never waited for.

import type { EndEvent, FeedPace } from '../train/events.js';

/** A wait shorter than this is no news, in milliseconds. */
const SHOWN_MS = 1;

/** @returns lines for people; none of a run that did not train */
export function timeTable({ time, waits, slowest, tuned, seconds, feed }: EndEvent): string[] {
  if (!feed) return [];
  const { setup, compute, wait, sinks, other } = time;
  const lines = [
    `time    ${inSeconds(seconds * 1000)} = setup ${inSeconds(setup)} + compute ${inSeconds(compute)} + ` +
      `wait ${inSeconds(wait)} + sinks ${inSeconds(sinks)} + other ${inSeconds(other)}`,
  ];
  const stages = Object.entries(waits).filter(([, ms]) => ms >= SHOWN_MS);
  if (stages.length > 0) {
    const shown = stages.toSorted(([, a], [, b]) => b - a).map(([stage, ms]) => `${stage} ${inSeconds(ms)}`);
    lines.push(`wait    ${shown.join(', ')}`);
  }
  const rows = slowest.filter(({ ms }) => ms >= SHOWN_MS);
  for (const [i, { row, stage, ms }] of rows.entries()) {
    const where = row === undefined ? `${stage}, before a row was there` : `${row}, in ${stage}`;
    lines.push(`${i === 0 ? 'slowest' : '       '} ${inSeconds(ms)}  ${where}`);
  }
  const found = Object.entries(tuned).map(([name, value]) =>
    name === 'poolBytes' ? `a pool of ${(value / 1e6).toFixed(0)} MB` : `${name} ${value} at once`,
  );
  if (found.length > 0) lines.push(`tuned   ${found.join(', ')}`);
  lines.push(`feed    ${reached(feed)}`);
  return lines;
}

/** Against the ceiling if there is one, else against the run's own steps. */
function reached({ tokensPerSecond: pace, withoutWaits, ceiling }: FeedPace): string {
  const own = `${Math.round(pace)} tokens/s, ${percent(pace / withoutWaits)} of what its steps take without a wait`;
  if (ceiling === undefined) return `${own} (pipe run --ceiling measures a feed that is never waited for)`;
  return `${own}, ${percent(pace / ceiling)} of the ${Math.round(ceiling)} that --ceiling measured`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

/** '0.45 s', '12.3 s', '754 s' */
function inSeconds(ms: number): string {
  const seconds = Math.max(0, ms / 1000);
  return `${seconds.toFixed(seconds < 9.995 ? 2 : seconds < 99.95 ? 1 : 0)} s`;
}
