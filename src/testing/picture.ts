// The picture of a flow: its lines below each other, and where they are not what was expected.

import { isDeepStrictEqual } from 'node:util';
import type { FlowEvent, FlowSummary } from '../flow/index.js';
import { type Mark, drawLevels, drawMarbles, list, parseLevels, parseMarbles } from './marbles.js';

/** What is expected of a flow; what is left out is not looked at. */
export interface FlowExpectation {
  /** When each item of the source was asked for, and its end ('|'). */
  readonly pulls?: string;
  /** What left the last stage. */
  readonly values?: string;
  /** What the consumer was handed, and when all was done ('|') or failed ('#'). */
  readonly taken?: string;
  /** Bytes of all samples that are not settled, at the end of each millisecond: a digit for so many `unit`, a letter from
   *  ten on, '.' as before. After its end the level stays. */
  readonly pool?: string;
  /** The same of what the consumer has. */
  readonly device?: string;
  /** What became of items of the source, by letter: 'trained', 'dropped in STAGE', 'quarantined in STAGE: MESSAGE', and for an
   *  item that became several, '2 trained, 1 dropped in STAGE'. A letter that comes twice is called 'a#0', 'a#3', by its row. */
  readonly tickets?: Readonly<Record<string, string | RegExp>>;
  /** Milliseconds that the consumer waited, by the stage to blame. */
  readonly waits?: Readonly<Record<string, number>>;
  /** 'complete' by default, or 'failed' where an error is expected. */
  readonly ended?: FlowSummary['ended'];
  /** What the run fails with: its message, or a part of it. */
  readonly error?: string | RegExp;
  readonly peakBytes?: number;
  readonly peakDeviceBytes?: number;
}

/** A flow as it was. Its lines are drawn as `FlowExpectation` says them. */
export interface FlowPicture {
  readonly source: string;
  readonly pulls: string;
  readonly values: string;
  readonly taken: string;
  readonly pool: string;
  readonly device: string;
  readonly tickets: Readonly<Record<string, string>>;
  readonly summary: FlowSummary;
  readonly events: readonly FlowEvent[];
  /** What the run failed with. */
  readonly error: unknown;
  /** Timers that were still there when the run had ended: a stage did not take them away. */
  readonly numTimers: number;
  /** All of it, as a message shows it. */
  toString(): string;
}

/** What a picture is drawn from. */
export interface Drawing {
  readonly source: string;
  readonly marks: Readonly<Record<'pulls' | 'values' | 'taken', readonly Mark[]>>;
  readonly levels: Readonly<Record<'pool' | 'device', readonly number[]>>;
  readonly unit: number;
  readonly poolBytes: number;
  readonly ticketLines: readonly string[];
  /** What letters that are in no `values` stand for. */
  readonly unknown: readonly string[];
  readonly waits: Readonly<Record<string, number>>;
  readonly ended: string;
}

/** A line that is not as expected. */
export interface Difference {
  readonly name: string;
  readonly expected: unknown;
  readonly received: unknown;
  /** Where a line first differs, in words. */
  readonly at?: string;
}

const MARBLES = ['pulls', 'values', 'taken'] as const;
const LEVELS = ['pool', 'device'] as const;

/** The lines of an expectation that a drawing does not meet. */
export function differences(
  expected: FlowExpectation,
  drawing: Drawing,
  { tickets, summary, error }: Pick<FlowPicture, 'tickets' | 'summary' | 'error'>,
): Difference[] {
  const found: Difference[] = [];
  for (const name of MARBLES) {
    const line = expected[name];
    if (line === undefined) continue;
    const wanted = parseMarbles(line);
    const got = drawing.marks[name];
    if (isDeepStrictEqual(sorted(wanted), sorted(got))) continue;
    found.push({ name, expected: line.trim(), received: drawMarbles(got), at: firstMark(wanted, got) });
  }
  for (const name of LEVELS) {
    const line = expected[name];
    if (line === undefined) continue;
    const at = firstLevel(parseLevels(line, drawing.unit), drawing.levels[name]);
    if (at === undefined) continue;
    const received = drawLevels(drawing.levels[name], drawing.unit);
    found.push({ name, expected: line.replaceAll(' ', ''), received, at });
  }
  for (const [key, fate] of Object.entries(expected.tickets ?? {})) {
    const received = tickets[key] ?? 'not in the source, or not admitted';
    if (!matches(fate, received)) found.push({ name: `ticket ${key}`, expected: fate, received });
  }
  for (const name of ['waits', 'peakBytes', 'peakDeviceBytes'] as const) {
    const [wanted, received] = [expected[name], summary[name]];
    if (wanted !== undefined && !isDeepStrictEqual(wanted, nonZero(received)))
      found.push({ name, expected: wanted, received });
  }
  const ended = expected.ended ?? (expected.error === undefined ? 'complete' : 'failed');
  if (summary.ended !== ended) found.push({ name: 'ended', expected: ended, received: drawing.ended });
  const message = error instanceof Error ? error.message : String(error);
  if (expected.error !== undefined && error !== undefined && !holds(expected.error, message)) {
    found.push({ name: 'error', expected: expected.error, received: message });
  }
  return found;
}

/** The picture, with what was expected below each line that differs. */
export function draw(drawing: Drawing, differing: readonly Difference[] = []): string {
  const lines: string[] = [];
  const of = (name: string): Difference | undefined => differing.find((each) => each.name === name);
  const line = (name: string, text: string, note = ''): void => {
    lines.push(`  ${name.padEnd(10)}${text}${note}`.trimEnd());
    const difference = of(name);
    if (difference === undefined) return;
    const { expected, at } = difference;
    const said = typeof expected === 'string' ? expected : JSON.stringify(expected);
    lines.push(`   expected ${said}`.padEnd(12));
    if (at !== undefined) lines.push(`            ${at}`);
  };
  const width = Math.max(drawing.source.length, drawing.levels.pool.length);
  line('ms', ruler(Math.min(width, 150)));
  line('source', drawing.source);
  for (const name of MARBLES) line(name, drawMarbles(drawing.marks[name]));
  const { unit, poolBytes, levels } = drawing;
  const units = unit === 1 ? '' : `   (${unit} bytes a digit)`;
  const drawn = (values: readonly number[]): string =>
    values.length > 150 ? `at most ${Math.max(...values)} bytes` : drawLevels(values, unit);
  line('pool', drawn(levels.pool), `${units || '   (bytes)'}, of ${poolBytes} bytes`);
  line('device', drawn(levels.device), units);
  drawing.ticketLines.forEach((text, i) => line(i === 0 ? 'tickets' : '', text));
  drawing.unknown.forEach((text, i) => line(i === 0 ? 'letters' : '', text));
  const waits = Object.entries(drawing.waits).map(([stage, ms]) => `${stage} ${ms} ms`);
  line('waits', waits.join(', ') || 'none');
  line('ended', drawing.ended);
  const shown = new Set<string>(['pulls', 'values', 'taken', 'pool', 'device', 'waits', 'ended']);
  for (const { name, expected, received } of differing) {
    if (shown.has(name)) continue;
    lines.push(`  ${name}: expected ${String(expected)}, received ${String(received)}`);
  }
  return lines.join('\n');
}

/** "0    5    10   15". */
function ruler(columns: number): string {
  let text = '';
  for (let ms = 0; ms < columns; ms += 5) text += String(ms).padEnd(5);
  return text;
}

/** Marks of one time in any order, but values in theirs. */
function sorted(marks: readonly Mark[]): Mark[] {
  return [...marks].sort((a, b) => a.ms - b.ms);
}

function firstMark(wanted: readonly Mark[], got: readonly Mark[]): string {
  const [a, b] = [sorted(wanted), sorted(got)];
  const i = a.findIndex((mark, j) => !isDeepStrictEqual(mark, b[j]));
  const at = i < 0 ? a.length : i;
  const said = (mark: Mark | undefined): string => (mark ? `${mark.key} at ${mark.ms} ms` : 'nothing more');
  const more = a.length + b.length > 24 ? '' : ` (all: ${list(b)})`;
  return `first: expected ${said(a[at])}, received ${said(b[at])}${more}`;
}

function firstLevel(wanted: readonly number[], got: readonly number[]): string | undefined {
  const last = (levels: readonly number[]): number => levels.at(-1) ?? 0;
  for (let ms = 0; ms < Math.max(wanted.length, got.length); ms += 1) {
    const [a, b] = [wanted[ms] ?? last(wanted), got[ms] ?? last(got)];
    if (a !== b) return `first: at ${ms} ms expected ${a} bytes, received ${b}`;
  }
  return undefined;
}

function matches(expected: string | RegExp, received: string): boolean {
  return typeof expected === 'string' ? expected === received : expected.test(received);
}

function holds(expected: string | RegExp, message: string): boolean {
  return typeof expected === 'string' ? message.includes(expected) : expected.test(message);
}

function nonZero(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).filter(([, ms]) => ms !== 0));
}
