// Marble diagrams, as RxJS writes them in its run mode: a column a millisecond, '-' nothing, a letter a value, '(ab)' several
// at once (it takes its columns of time), '|' the end, '#' an error, '12ms ' that much time, spaces nothing.

import { TestScheduler } from 'rxjs/testing';

/** What a diagram shows at a time. */
export interface Mark {
  readonly ms: number;
  /** A value's letter, '|' or '#'. */
  readonly key: string;
}

/** @throws what RxJS throws at a diagram that is none */
export function parseMarbles(marbles: string): Mark[] {
  return inMilliseconds(() => TestScheduler.parseMarbles(marbles, undefined, undefined, false, true)).map(
    ({ frame, notification }) => ({
      ms: frame,
      key: notification.kind === 'N' ? String(notification.value) : notification.kind === 'C' ? '|' : '#',
    }),
  );
}

/** When a diagram such as '---!' ends a subscription, in milliseconds. */
export function parseEnd(marbles: string): number {
  return inMilliseconds(() => TestScheduler.parseMarblesAsSubscriptions(marbles, true)).unsubscribedFrame;
}

/** RxJS counts ten frames a column outside of its own run. */
function inMilliseconds<T>(fn: () => T): T {
  const before = TestScheduler.frameTimeFactor;
  TestScheduler.frameTimeFactor = 1;
  try {
    return fn();
  } finally {
    TestScheduler.frameTimeFactor = before;
  }
}

/** The longest silence that is drawn column by column. */
const LONG_MS = 40;

/** Draws what happened. What the columns cannot show, since a group takes more of them than there is time, is listed:
 *  "0 ms: a b; 1 ms: c". */
export function drawMarbles(marks: readonly Mark[]): string {
  let drawn = '';
  let ms = 0;
  for (const [at, keys] of byTime(marks)) {
    if (at < ms || keys.some((key) => key.length !== 1)) return list(marks);
    drawn += silence(at - ms);
    const group = keys.length === 1 ? keys.join('') : `(${keys.join('')})`;
    drawn += group;
    ms = at + group.length;
  }
  return drawn;
}

/** What a diagram shows, as one line a time, for comparing. */
export function list(marks: readonly Mark[]): string {
  return [...byTime(marks)].map(([ms, keys]) => `${ms} ms: ${keys.join(' ')}`).join('; ') || 'nothing';
}

function byTime(marks: readonly Mark[]): Map<number, string[]> {
  const times = new Map<number, string[]>();
  for (const { ms, key } of marks) times.set(ms, [...(times.get(ms) ?? []), key]);
  return times;
}

function silence(ms: number): string {
  return ms > LONG_MS ? ` ${ms}ms ` : '-'.repeat(ms);
}

const DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz';

/** Draws levels, one a millisecond, as digits of `unit` bytes (a to z are 10 to 35, '+' more, '?' between two); '.' where it
 *  stays as it was. */
export function drawLevels(levels: readonly number[], unit: number): string {
  const digits = levels.map((level) => {
    if (level % unit !== 0) return '?';
    return DIGITS[level / unit] ?? '+';
  });
  return digits.map((digit, ms) => (ms > 0 && levels[ms] === levels[ms - 1] ? '.' : digit)).join('');
}

/** The levels that a line says, up to its end. '.' and '-' are as before, from 0. */
export function parseLevels(line: string, unit: number): number[] {
  let level = 0;
  return [...line.replaceAll(' ', '')].map((digit) => {
    if (digit === '.' || digit === '-') return level;
    const value = DIGITS.indexOf(digit);
    if (value < 0)
      throw new Error(`pool line: expected digits, letters and '.', received '${digit}' in '${line}'`);
    return (level = value * unit);
  });
}
