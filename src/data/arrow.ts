// Arrow files and streams as a source of rows: record batches are read one at a time and one ahead. Files of the IPC
// format and streams are told apart by content, and both are read at any place, compressed (LZ4, Zstandard) or not.
//
// Memory. As `parquet`: one batch or one shuffle window, and the next. Columns that are not chosen are read with the
// rest of their batch, and leave no further than that.
//
// Values. Those that `parquet` gives: strings, numbers, booleans, null, `Date` for dates and timestamps (milliseconds),
// `bigint` for 64-bit integers, times and durations, numbers for decimals, `Uint8Array` for binary, arrays for lists of
// any kind, objects for structs and maps; a dictionary's values, and a union's, as what they are.

import { messageOf } from '../errors.js';
import { z } from '../schema.js';
import { fingerprintArrow, planArrow, readArrow, type ArrowPlan } from './arrow-rows.js';
import type { ColumnChoice } from './column-choice.js';
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

export type { ArrowPlan } from './arrow-rows.js';

export interface ArrowOptions extends ReadingOptions {
  /** Columns to read, all by default. A record also says their types, checked before the run:
   *  `{ images: 'list<struct<bytes: binary>>', label: 'int' }`; a struct may have more fields than are named. */
  readonly columns?: ColumnChoice;
  /** Read the next record batch while rows of one are taken; true by default. False halves what is held. */
  readonly readAhead?: boolean;
  /** The most that one record batch may take when decoded, with its dictionaries; 1 GiB by default. */
  readonly maxBatchBytes?: number;
}

export type ArrowSource<T> = RowSource<T, ArrowPlan>;

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
    maxBatchBytes: z
      .int()
      .positive()
      .default(2 ** 30),
    ...READING,
  })
  .superRefine(checkShard);

const build = defineSource('arrow', OPTIONS, {
  read: readArrow,
  plan: planArrow,
  fingerprint: fingerprintArrow,
});

/** A source of the rows of Arrow files, such as those that `datasets` keeps in its cache.
 *  @param files paths and patterns (`data/*.arrow`), read in the order that `expandGlobs` gives, and addresses as
 *    `parquet` takes them
 *  Opening throws {ConfigError} on wrong options, all at once, and {DataError} on a file that is missing, not Arrow or
 *  truncated, on columns that are missing or of another type, and when there is no row. A batch that cannot be decoded does
 *  not stop the reading: its rows come as faults with file, row and reason.
 *  @example arrow('data-*.arrow', { columns: ['image', 'text'], shuffle: { seed: 42 } }) */
export function arrow<T, R = Row>(
  files: string | readonly string[],
  options: ArrowOptions & Explode<R, T>,
): ArrowSource<T>;
export function arrow<R = Row>(files: string | readonly string[], options?: ArrowOptions): ArrowSource<R>;
export function arrow(
  files: string | readonly string[],
  options: ArrowOptions & Partial<Explode<never, unknown>> = {},
): ArrowSource<unknown> {
  return build({ files, ...options });
}
