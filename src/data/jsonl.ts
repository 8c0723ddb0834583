// Files of JSON lines as a source of rows, a line an object; also compressed, by gzip or Zstandard.
//
// A scan before the first row finds the lines, and the process keeps where they lie: an uncompressed file is then read
// at any place. A compressed one is read on from where the reading stands; shuffled, it is read through once a window, so
// that it should fit one, or be unpacked.
//
// Memory. One stretch of lines (or one shuffle window) as text, and the next. Under `explode` the values that are made of
// them come on top.
//
// Values. Those that JSON has. Numbers are doubles: write whole numbers beyond 2^53 as strings.

import { z } from '../schema.js';
import { fingerprintJsonl, planJsonl, readJsonl, type JsonlPlan } from './jsonl-rows.js';
import {
  checkShard,
  defineSource,
  READING,
  type Explode,
  type ReadingOptions,
  type RowSource,
} from './source-part.js';
import type { Row } from './types.js';

export type { JsonlPlan } from './jsonl-rows.js';

export interface JsonlOptions extends ReadingOptions {
  /** The fields to keep, all by default. One that a line lacks is null. */
  readonly columns?: readonly string[];
  /** Read the next stretch of lines while rows of one are taken; true by default. */
  readonly readAhead?: boolean;
  /** Lines are read, and shuffled, in stretches of so many, or of 1 MiB where that is less; 1000 by default. */
  readonly chunkLines?: number;
  /** A longer line is quarantined unread; 64 MiB by default. */
  readonly maxLineBytes?: number;
}

export type JsonlSource<T> = RowSource<T, JsonlPlan>;

const OPTIONS = z
  .strictObject({
    files: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]),
    columns: z.array(z.string()).min(1).optional(),
    readAhead: z.boolean().default(true),
    chunkLines: z.int().positive().default(1000),
    maxLineBytes: z
      .int()
      .positive()
      .max(2 ** 29 - 1)
      .default(64 * 2 ** 20),
    ...READING,
  })
  .superRefine(checkShard);

const build = defineSource('jsonl', OPTIONS, {
  read: readJsonl,
  plan: planJsonl,
  fingerprint: fingerprintJsonl,
});

/** A source of the objects of JSON lines.
 *  @param files paths and patterns (`data/*.jsonl.gz`), read in the order that `expandGlobs` gives, and addresses as
 *    `parquet` takes them: the scan fetches the whole file, and reading fetches it again
 *  Opening throws {ConfigError} on wrong options, all at once, and {DataError} on a file that is missing, damaged or of
 *  another kind, and when there is no row. A line that is no object, no UTF-8 or too long does not stop the reading: it comes
 *  as a fault with file, line and reason. Empty lines are passed over. An origin's row is the line's number from 0.
 *  @example jsonl('chats.jsonl', { columns: ['messages'], shuffle: { seed: 42 } }) */
export function jsonl<T, R = Row>(
  files: string | readonly string[],
  options: JsonlOptions & Explode<R, T>,
): JsonlSource<T>;
export function jsonl<R = Row>(files: string | readonly string[], options?: JsonlOptions): JsonlSource<R>;
export function jsonl(
  files: string | readonly string[],
  options: JsonlOptions & Partial<Explode<never, unknown>> = {},
): JsonlSource<unknown> {
  return build({ files, ...options });
}
