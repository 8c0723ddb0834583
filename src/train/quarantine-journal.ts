// quarantine.jsonl: a line a quarantined row, on disk before anyone is told of it, and a further line where the row's own
// columns come later. A run that is killed leaves at most its last line cut off.

import * as fs from 'node:fs';
import { z } from '../schema.js';
import type { Cell } from './quarantine-cells.js';

const count = z.int().min(0);

/** A line. `number` joins a row to the columns that came later. */
const LINE = z.looseObject({
  number: count,
  stream: z.string().optional(),
  item: count.optional(),
  part: count.optional(),
  step: count.optional(),
  file: z.string().optional(),
  rowGroup: count.optional(),
  row: count.optional(),
  stage: z.string().optional(),
  error: z.string().optional(),
  cells: z.record(z.string(), z.unknown()).optional(),
  leftOut: z.array(z.string()).optional(),
});

type Line = z.output<typeof LINE>;

/** Of a line in the file, in bytes. */
interface Place {
  readonly start: number;
  readonly length: number;
}

/** A quarantined row. */
export interface JournalEntry {
  readonly number: number;
  /** 'train', or the evaluation's name. */
  readonly stream: string;
  readonly item: number;
  readonly part: number;
  /** The step that an evaluation followed. */
  readonly step?: number;
  readonly file: string;
  readonly rowGroup: number;
  readonly row: number;
  readonly stage: string;
  readonly error: string;
  readonly cells?: Readonly<Record<string, Cell | null>>;
  readonly leftOut?: readonly string[];
  /** What its lines weigh. */
  readonly bytes: number;
}

/** Columns that come after their row's line. */
export type LateCells = Pick<JournalEntry, 'number' | 'cells' | 'leftOut'>;

export class Journal {
  readonly path: string;
  #descriptor: number | undefined;
  #bytes = 0;
  #number = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** What the file weighs, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Goes on with what an earlier run wrote: only the rows that `keeps` says yes to stay.
   *  @returns those rows, without their columns */
  restore(keeps: (entry: JournalEntry) => boolean): JournalEntry[] {
    if (!fs.existsSync(this.path)) return [];
    const kept: JournalEntry[] = [];
    const partial = `${this.path}.partial`;
    const to = fs.openSync(partial, 'w');
    try {
      for (const entry of this.entries()) {
        this.#number = Math.max(this.#number, entry.number + 1);
        if (!keeps(entry)) continue;
        const { bytes: _bytes, ...line } = entry;
        fs.writeSync(to, `${JSON.stringify(line)}\n`);
        const { cells: _cells, ...rest } = entry;
        kept.push(rest);
      }
      fs.fsyncSync(to);
    } finally {
      fs.closeSync(to);
    }
    fs.renameSync(partial, this.path);
    this.#bytes = fs.statSync(this.path).size;
    return kept;
  }

  /** @returns its number */
  add(entry: Omit<JournalEntry, 'number' | 'bytes'>): number {
    const number = this.#number++;
    this.#append({ number, ...entry });
    return number;
  }

  addLate(late: LateCells): void {
    this.#append(late);
  }

  close(): void {
    if (this.#descriptor !== undefined) fs.closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** The rows, with columns that came later, in order. One row is in memory at a time. */
  *entries(): Generator<JournalEntry, void, undefined> {
    if (!fs.existsSync(this.path)) return;
    const late = new Map<number, Place>();
    for (const { line, place } of this.#lines()) if (line.stage === undefined) late.set(line.number, place);
    for (const { line, place } of this.#lines()) {
      if (line.stage === undefined) continue;
      const later = late.get(line.number);
      const added = later && { ...this.#lineAt(later), bytes: place.length + later.length };
      yield { ...line, bytes: place.length, ...added } as unknown as JournalEntry;
    }
  }

  #append(line: object): void {
    this.#descriptor ??= fs.openSync(this.path, 'a');
    const text = `${JSON.stringify(line)}\n`;
    fs.appendFileSync(this.#descriptor, text);
    this.#bytes += Buffer.byteLength(text);
  }

  #lineAt({ start, length }: Place): Line | undefined {
    const descriptor = fs.openSync(this.path, 'r');
    try {
      const text = Buffer.alloc(length);
      fs.readSync(descriptor, text, 0, length, start);
      return parsed(text);
    } finally {
      fs.closeSync(descriptor);
    }
  }

  /** Lines that are whole; what was cut off is none. */
  *#lines(): Generator<{ line: Line; place: Place }, void, undefined> {
    const descriptor = fs.openSync(this.path, 'r');
    try {
      const piece = Buffer.allocUnsafe(2 ** 16);
      let begun: Buffer[] = [];
      let start = 0;
      for (;;) {
        const length = fs.readSync(descriptor, piece, 0, piece.length, null);
        if (length === 0) return;
        let from = 0;
        for (let end = piece.indexOf(10); end >= 0 && end < length; end = piece.indexOf(10, from)) {
          const whole = Buffer.concat([...begun, piece.subarray(from, end)]);
          begun = [];
          from = end + 1;
          const line = parsed(whole);
          if (line) yield { line, place: { start, length: whole.length } };
          start += whole.length + 1;
        }
        if (from < length) begun.push(Buffer.from(piece.subarray(from, length)));
      }
    } finally {
      fs.closeSync(descriptor);
    }
  }
}

function parsed(text: Buffer): Line | undefined {
  try {
    return LINE.parse(JSON.parse(text.toString('utf8')));
  } catch {
    return undefined;
  }
}
