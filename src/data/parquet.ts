// Parquet files as a source of rows: row groups are read one at a time and one ahead, rows come in a deterministic order.
//
// Memory. The source itself holds the row groups that it reads from, decoded: one (or one shuffle window) that rows
// are taken from and the next, read ahead. `plan()` tells how many bytes that is; they come on top of the flow's pool.
// A row that leaves owns its bytes, so what it weighs in the pool is what it keeps alive.
//
// Values. Strings, numbers, booleans, null, `Date` for dates and timestamps (milliseconds), `bigint` for 64-bit integers
// (exact, and the type does not change with the value: write `Number(row.id)`), `Uint8Array` for binary, arrays for
// lists, objects for structs and maps, text for JSON columns.

import { messageOf } from '../errors.js';
import { z } from '../schema.js';
import type { ColumnChoice } from './column-choice.js';
import { fingerprintRows, planRows, readRows, type ParquetPlan } from './parquet-rows.js';
import { parseType } from './parquet-schema.js';
import {
  checkShard,
  defineSource,
  READING,
  type Explode,
  type ReadingOptions,
  type RowSource,
} from './source-part.js';
import type { Row } from './types.js';

export type { ColumnChoice } from './column-choice.js';
export type { ParquetPlan } from './parquet-rows.js';
export type { Explode, ShuffleOptions } from './source-part.js';

export interface ParquetOptions extends ReadingOptions {
  /** Columns to read, all by default. A record also says their types, checked before the run:
   *  `{ images: 'list<struct<bytes: binary>>', label: 'int' }`; a struct may have more fields than are named. */
  readonly columns?: ColumnChoice;
  /** Read the next row group while rows of one are taken; true by default. False halves what is held. */
  readonly readAhead?: boolean;
  /** The most that one row group may take when decoded; 1 GiB by default. A file with a larger one is refused. */
  readonly maxRowGroupBytes?: number;
}

export type ParquetSource<T> = RowSource<T, ParquetPlan>;

const MIB = 2 ** 20;

const typeName = z.string().superRefine((text, context) => {
  try {
    parseType(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: messageOf(error), input: text });
  }
});

const OPTIONS = z
  .strictObject({
    files: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]),
    columns: z.union([z.array(z.string()).min(1), z.record(z.string(), typeName)]).optional(),
    readAhead: z.boolean().default(true),
    maxRowGroupBytes: z
      .int()
      .positive()
      .default(1024 * MIB),
    ...READING,
  })
  .superRefine(checkShard);

const build = defineSource('parquet', OPTIONS, {
  read: readRows,
  plan: planRows,
  fingerprint: fingerprintRows,
});

/** A source of the rows of Parquet files.
 *  @param files paths and patterns (`data/train-*.parquet`), read in the order that `expandGlobs` gives, and addresses:
 *    `https://host/a.parquet`, `hf://datasets/owner/name[@revision]/a.parquet`. Of a server's file the footer and the wanted
 *    row groups' chosen columns are fetched, by range requests; one that changes while it is read is an error. Items and
 *    messages name it without user and query, and its fingerprint is made of its name, length, ETag and footer.
 *  Opening throws {ConfigError} on wrong options, all at once, and {DataError} on a file that is missing, not Parquet or
 *  truncated, on columns that are missing or of another type, and when there is no row. A row group that cannot be decoded
 *  does not stop the reading: its rows come as faults with file, row and reason.
 *  @example parquet('train.parquet', { shuffle: { seed: 42 }, explode: ({ images, texts }: Vqa) =>
 *             texts.map((turn) => ({ image: images[0].bytes, ...turn })) }) */
export function parquet<T, R = Row>(
  files: string | readonly string[],
  options: ParquetOptions & Explode<R, T>,
): ParquetSource<T>;
export function parquet<R = Row>(
  files: string | readonly string[],
  options?: ParquetOptions,
): ParquetSource<R>;
export function parquet(
  files: string | readonly string[],
  options: ParquetOptions & Partial<Explode<never, unknown>> = {},
): ParquetSource<unknown> {
  return build({ files, ...options });
}
