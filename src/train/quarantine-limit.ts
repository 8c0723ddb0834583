// How many rows of the training stream a run may lose before it stops: a share of them, and a number.

import { QuarantineError } from '../errors.js';
import { z } from '../schema.js';

/** Stops a run that loses too many rows. Rows that evaluations cannot use do not count. */
export interface QuarantineOptions {
  /** The most, as a share of the rows that the source has given; 0.1 by default. 1 for no limit. */
  readonly maxShare?: number;
  /** The rows that must have come before the share counts: of few rows one is a large share. By default 100, and where
   *  `maxShare` is given so many that one row is within it. */
  readonly minRows?: number;
  /** The most rows; without end by default. A row that comes again in another epoch counts once. */
  readonly maxRows?: number;
}

export const QUARANTINE = z
  .strictObject({
    maxShare: z.number().min(0).max(1).optional(),
    minRows: z.int().positive().optional(),
    maxRows: z.int().min(0).optional(),
  })
  .default({});

const DEFAULT_SHARE = 0.1;
const DEFAULT_ROWS = 100;
/** A share of less would let nothing be judged for long. */
const MOST_ROWS = 1000;
/** Rows and reasons that the error shows. */
const SHOWN = 3;
/** Items are taken for done with when so many came after them. */
const RECENT = 4096;

/** A row, as far as it counts. */
export interface LostRow {
  /** Its name. */
  readonly row: string;
  readonly stage: string;
  readonly error: string;
  /** The number of its item in the stream, from 0. */
  readonly item: number;
}

export class QuarantineLimit {
  readonly #maxShare: number;
  readonly #minRows: number;
  readonly #maxRows: number;
  readonly #first: LostRow[] = [];
  /** Rows by name, as far as their number is limited. */
  readonly #rows = new Set<string>();
  /** Items of late, of which one may become several samples. */
  readonly #items = new Set<number>();
  #numItems = 0;
  #numSeen = 0;

  constructor({ maxShare, minRows, maxRows = Infinity }: QuarantineOptions = {}) {
    this.#maxShare = maxShare ?? DEFAULT_SHARE;
    this.#maxRows = maxRows;
    const few = maxShare ? Math.min(MOST_ROWS, Math.ceil(1 / maxShare)) : 1;
    this.#minRows = minRows ?? (maxShare === undefined ? DEFAULT_ROWS : few);
  }

  /** Counts a row, without judging: of the run that this one continues. */
  count(lost: LostRow): void {
    const { row, item } = lost;
    if (this.#first.length < SHOWN) this.#first.push(lost);
    if (this.#rows.size <= this.#maxRows && this.#maxRows !== Infinity) this.#rows.add(row);
    this.#numSeen = Math.max(this.#numSeen, item + 1);
    if (this.#items.has(item)) return;
    this.#items.add(item);
    this.#numItems += 1;
    if (this.#items.size <= RECENT) return;
    for (const known of this.#items) if (known < this.#numSeen - RECENT) this.#items.delete(known);
  }

  /** Counts a row of this run.
   *  @throws {QuarantineError} when it is one too many, with the numbers, the first rows and their reasons */
  take(lost: LostRow): void {
    this.count(lost);
    if (this.#rows.size > this.#maxRows) {
      throw this.#exceeded(
        `at most ${this.#maxRows} rows (quarantine.maxRows)`,
        `${this.#rows.size} of the ${this.#numSeen} that came`,
        'quarantine.maxRows',
      );
    }
    if (this.#numSeen < this.#minRows || this.#numItems <= this.#maxShare * this.#numSeen) return;
    throw this.#exceeded(
      `at most ${percent(this.#maxShare)} of the rows (quarantine.maxShare)`,
      `${this.#numItems} of the ${this.#numSeen} that came, ${percent(this.#numItems / this.#numSeen)}`,
      'quarantine.maxShare',
    );
  }

  #exceeded(expected: string, received: string, key: string): QuarantineError {
    const shown = this.#first.map(({ row, stage, error }) => `${row}, in ${stage}: ${error}`);
    return new QuarantineError({
      where: 'quarantine',
      expected,
      received,
      remedy: `mend the rows (quarantine.parquet has all of them) or the flow, or raise ${key} and continue with --resume; the first ${
        shown.length === 1 ? 'is' : 'are'
      } ${shown.join('; ')}`,
    });
  }
}

function percent(share: number): string {
  return `${Number((share * 100).toPrecision(3))} %`;
}
