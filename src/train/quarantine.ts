// What a run does with rows that it cannot use: each is written to quarantine.jsonl before it is told, and the table
// quarantine.parquet is made of that at checkpoints, and when the run ends or is continued.
//
// A row's own columns are taken from where the source holds them when it is quarantined; nothing is kept for it before.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { UNREADABLE, rowAgain } from '../data/row-again.js';
import { TrainError, messageOf } from '../errors.js';
import type { Origin } from '../flow/index.js';
import type { QuarantineEvent, RunEvent } from './events.js';
import { type QuarantineBook, TRAIN_STREAM, isBehind } from './quarantine-book.js';
import { cellsOf } from './quarantine-cells.js';
import { Journal, type JournalEntry } from './quarantine-journal.js';
import { type LostRow, QuarantineLimit, type QuarantineOptions } from './quarantine-limit.js';
import { writeTable } from './quarantine-table.js';
import type { RunContext, Sink } from './sink.js';

const JOURNAL = 'quarantine.jsonl';
const TABLE = 'quarantine.parquet';
/** Columns are kept up to here in all; the rows beyond have none. */
const MAX_JOURNAL_BYTES = 2 ** 28;
/** A table that takes longer to write is written at the end alone. */
const MAX_BYTES_AT_CHECKPOINTS = 2 ** 24;

/** Rows that are read anew at most, where the source had let go of them, and the time for it. */
const MAX_REREAD = 256;
const MAX_REREAD_MS = 30_000;

export class Quarantine implements Sink, QuarantineBook {
  readonly name = 'quarantine';
  readonly #limit: QuarantineLimit;
  #journal: Journal | undefined;
  #outDir = '';
  #log: (line: string) => void = () => {};
  /** Bytes of the journal that are in the table. */
  #tableBytes = 0;
  /** Columns that are being read. */
  readonly #reading = new Set<Promise<void>>();
  /** Rows whose columns are to be read anew, by number. */
  readonly #toReread = new Map<number, () => Promise<unknown>>();
  readonly #told = new Map<string, Told>();

  constructor(options?: QuarantineOptions) {
    this.#limit = new QuarantineLimit(options);
  }

  leftovers(): string[] {
    return [JOURNAL, TABLE];
  }

  start(context: RunContext): void {
    const { outDir, resumedAt, resumedFrom } = context;
    this.#outDir = outDir;
    this.#log = (line) => context.log(line);
    const journal = (this.#journal = new Journal(join(outDir, JOURNAL)));
    if (resumedAt === undefined) return;
    this.#writing(() => {
      const resumed = { step: resumedAt, position: resumedFrom };
      for (const entry of journal.restore((kept) => isBehind(kept, resumed))) {
        if (entry.stream === TRAIN_STREAM) this.#limit.count(lostOf(entry));
        else this.#isNew(entry, entry);
      }
      if (journal.bytes > 0) this.#writeTable();
      else fs.rmSync(join(outDir, TABLE), { force: true });
    });
  }

  take(event: QuarantineEvent, origin: Origin, reread?: () => Promise<unknown>): void {
    const journal = this.#journal;
    if (!journal || !this.#isNew(event, origin)) return;
    const { stream, item, part, step, stage, error } = event;
    const { file, rowGroup, row } = origin;
    const isFull = journal.bytes >= MAX_JOURNAL_BYTES;
    const found = isFull ? undefined : rowAgain(origin);
    const isLate = found === undefined || found instanceof Promise;
    const place = { stream, item, part, ...(step !== undefined && { step }), file, rowGroup, row };
    const columns = isLate || found === UNREADABLE ? {} : cellsOf(found);
    this.#writing(() => {
      const leftOut = isFull && { leftOut: ['all columns: too many rows'] };
      const number = journal.add({ ...place, stage, error, ...columns, ...leftOut });
      if (!isLate || isFull) return;
      if (found) this.#readLater(number, found, reread);
      else if (reread) this.#rereadLater(number, reread);
    });
  }

  judge(event: QuarantineEvent): void {
    this.#limit.take(event);
  }

  onEvent(event: RunEvent): void {
    const bytes = this.#journal?.bytes ?? 0;
    if (event.event !== 'checkpoint' || bytes > MAX_BYTES_AT_CHECKPOINTS) return;
    // Rows that were there are written anew: not for every few that come.
    if (bytes < this.#tableBytes * 1.1 || bytes === this.#tableBytes) return;
    try {
      this.#writeTable();
    } catch (error) {
      this.#log(`${TABLE} could not be written, ${JOURNAL} holds its rows: ${messageOf(error)}`);
    }
  }

  async end(): Promise<void> {
    await this.#finish();
  }

  async close(): Promise<void> {
    await this.#finish();
    this.#journal?.close();
    this.#journal = undefined;
  }

  /** After the last row: what evaluations at the end lose comes later, and is written when all is closed. */
  async #finish(): Promise<void> {
    await Promise.all(this.#reading);
    await this.#reread();
    if (this.#journal && this.#journal.bytes !== this.#tableBytes) this.#writing(() => this.#writeTable());
  }

  #writeTable(): void {
    const journal = this.#journal!;
    writeTable(join(this.#outDir, TABLE), () => journal.entries());
    this.#tableBytes = journal.bytes;
  }

  #readLater(number: number, row: Promise<unknown>, reread: (() => Promise<unknown>) | undefined): void {
    const reading = row
      .then((value) => this.#addLate(number, value))
      .catch(() => reread && this.#rereadLater(number, reread)) // its source may have been closed meanwhile
      .then(() => void this.#reading.delete(reading));
    this.#reading.add(reading);
  }

  #rereadLater(number: number, reread: () => Promise<unknown>): void {
    if (this.#toReread.size < MAX_REREAD) this.#toReread.set(number, reread);
    else this.#journal?.addLate({ number, leftOut: ['all columns: too many rows to read again'] });
  }

  /** One row after the other: each may take a row group. */
  async #reread(): Promise<void> {
    const begun = performance.now();
    for (const [number, reread] of this.#toReread) {
      this.#toReread.delete(number);
      const late = performance.now() - begun > MAX_REREAD_MS;
      if (late) this.#journal?.addLate({ number, leftOut: ['all columns: too long to read again'] });
      else this.#addLate(number, await reread().catch(() => undefined)); // the row's error says it better
    }
  }

  #addLate(number: number, row: unknown): void {
    if (row !== undefined) this.#journal?.addLate({ number, ...cellsOf(row) });
  }

  /** An evaluation comes to the same rows each time; they are written once. */
  #isNew(
    event: Pick<QuarantineEvent, 'stream' | 'item' | 'part' | 'step' | 'stage'>,
    { row }: Pick<Origin, 'row'>,
  ): boolean {
    if (event.stream === TRAIN_STREAM) return true;
    const key = JSON.stringify([event.stream, event.item, event.part, event.stage, row]);
    const told = this.#told.get(key) ?? { step: undefined, times: 0, written: 0 };
    if (told.step !== event.step) Object.assign(told, { step: event.step, times: 0 });
    told.times += 1;
    this.#told.set(key, told);
    if (told.times <= told.written) return false;
    told.written = told.times;
    return true;
  }

  #writing(work: () => void): void {
    try {
      work();
    } catch (cause) {
      throw new TrainError(
        {
          where: join(this.#outDir, JOURNAL),
          expected: 'room to write',
          received: messageOf(cause),
          remedy: 'free space or choose another --out',
        },
        { cause },
      );
    }
  }
}

/** How often an evaluation came to a sample, at its last step, and how often it was written: several samples of one row may
 *  be alike. */
interface Told {
  step: number | undefined;
  times: number;
  written: number;
}

function lostOf({ file, rowGroup, row, stage, error, item }: JournalEntry): LostRow {
  return { row: `${file} row group ${rowGroup} row ${row}`, stage, error, item };
}
