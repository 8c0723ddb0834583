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
import type { Cursor, Source } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';
import type { ColumnChoice } from './parquet-file.js';
import { fingerprintRows, planRows, readRows, type ParquetPlan, type ReadOptions } from './parquet-rows.js';
import { parseType } from './parquet-schema.js';
import type { Origin, Row } from './types.js';

export type { ColumnChoice } from './parquet-file.js';
export type { ParquetPlan } from './parquet-rows.js';

export interface ShuffleOptions {
  /** The order is a function of seed, epoch, files and windowBytes, on any machine and any number of shards. */
  readonly seed: number;
  /** Row groups are permuted over all files, then taken in windows of about so many decoded bytes (one group at least),
   *  and the rows of a window are permuted together. A data set that fits one window is permuted uniformly. 128 MiB. */
  readonly windowBytes?: number;
}

export interface ParquetOptions {
  /** Columns to read, all by default. A record also says their types, checked before the run:
   *  `{ images: 'list<struct<bytes: binary>>', label: 'int' }`; a struct may have more fields than are named. */
  readonly columns?: ColumnChoice;
  /** Without it rows come in the order of files and rows. */
  readonly shuffle?: ShuffleOptions;
  /** How often every row comes, 1 by default; may be Infinity. An epoch ends before the next begins. */
  readonly epochs?: number;
  /** This reader's number among `numShards`: it gets the items whose position in the epoch's order is
   *  `shardIndex` modulo `numShards`. Every shard reads all row groups. 0 of 1 by default. */
  readonly shardIndex?: number;
  readonly numShards?: number;
  /** Read the next row group while rows of one are taken; true by default. False halves what is held. */
  readonly readAhead?: boolean;
  /** The most that one row group may take when decoded; 1 GiB by default. A file with a larger one is refused. */
  readonly maxRowGroupBytes?: number;
  /** The most that one item may weigh: heavier ones are quarantined, and the flow can check its pool before the run. */
  readonly maxItemBytes?: number;
}

export interface Explode<R, T> {
  /** Makes items of each row, such as one of each turn. They are shuffled apart from each other, so that an image does
   *  not come ten times in a row, and each gets its own copy of the bytes that it uses. Where it throws, or makes none,
   *  the row is quarantined. Return plain data: bytes inside objects of classes are not copied. */
  readonly explode: (row: R, origin: Origin) => Iterable<T>;
}

/** A part of a pipeline file, and a source as it is: the options are checked when it is decoded or opened. */
export type ParquetSource<T> = Part<'source', undefined, Source<T>> &
  Source<T> & {
    /** Reads the footers and checks all that can be checked before a run.
     *  @throws {ConfigError | DataError} as `open` does */
    readonly plan: () => Promise<ParquetPlan>;
    /** Changes with the files' content, and not with their folder. */
    readonly fingerprint: () => Promise<string>;
  };

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
    shuffle: z
      .strictObject({
        seed: z.int().min(0),
        windowBytes: z
          .int()
          .positive()
          .default(128 * MIB),
      })
      .optional(),
    epochs: z.union([z.int().positive(), z.literal(Infinity)]).default(1),
    shardIndex: z.int().min(0).default(0),
    numShards: z.int().positive().default(1),
    readAhead: z.boolean().default(true),
    maxRowGroupBytes: z
      .int()
      .positive()
      .default(1024 * MIB),
    maxItemBytes: z.int().positive().optional(),
    explode: z
      .custom<NonNullable<ReadOptions['explode']>>(
        (value) => typeof value === 'function',
        'expected a function',
      )
      .optional(),
  })
  .superRefine(({ shardIndex, numShards }, context) => {
    if (shardIndex < numShards) return;
    const message = `expected less than numShards, ${numShards}`;
    context.addIssue({ code: 'custom', path: ['shardIndex'], message, input: shardIndex });
  });

const definition = definePart({
  role: 'source',
  kind: 'parquet',
  schema: OPTIONS,
  create: (
    options,
    _context: undefined,
  ): Source<unknown> & Pick<ParquetSource<unknown>, 'fingerprint' | 'plan'> => ({
    name: 'parquet',
    ...(options.maxItemBytes === undefined ? {} : { maxItemBytes: options.maxItemBytes }),
    open: (signal, from) => readRows(options, signal, from),
    plan: async () => planRows(options),
    fingerprint: async () => fingerprintRows(options),
  }),
});

/** A source of the rows of Parquet files.
 *  @param files paths and patterns (`data/train-*.parquet`), read in the order that `expandGlobs` gives
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
  const given = { files, ...options } as z.input<typeof OPTIONS>;
  const decoded = (): ReadOptions => decode(OPTIONS, given, 'parquet');
  // Not enumerable: a part is its options, and copies with other options are made of those.
  return Object.defineProperties(definition(given), {
    name: { value: 'parquet' },
    maxItemBytes: { value: options.maxItemBytes },
    open: { value: (signal: AbortSignal, from?: Cursor) => readRows(decoded(), signal, from) },
    plan: { value: async () => planRows(decoded()) },
    fingerprint: { value: async () => fingerprintRows(decoded()) },
  }) as unknown as ParquetSource<unknown>;
}
