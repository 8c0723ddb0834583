// What the sources of rows share as parts of a pipeline file: options that mean the same in each, and a value that is
// both the part, with its options in plain sight, and the source, ready to be opened.

import type { Cursor, Source } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';
import type { BucketOptions } from './bucket.js';
import type { Item, WindowOptions } from './windows.js';
import type { Origin } from './types.js';
import { WHERE, type Where } from './where.js';

export interface ShuffleOptions {
  /** The order is a function of seed, epoch, files and windowBytes, on any machine and any number of shards. */
  readonly seed: number;
  /** Chunks (row groups, record batches, stretches of lines) are permuted over all files, then taken in windows of about
   *  so many bytes (one chunk at least), and the rows of a window are permuted together. A data set that fits one window
   *  is permuted uniformly. 128 MiB. */
  readonly windowBytes?: number;
}

/** What every source of rows takes. */
export interface ReadingOptions {
  /** Without it rows come in the order of files and rows. */
  readonly shuffle?: ShuffleOptions;
  /** How often every row comes, 1 by default; may be Infinity. An epoch ends before the next begins. */
  readonly epochs?: number;
  /** This reader's number among `numShards`: it gets the items whose position in the order of all epochs is `shardIndex`
   *  modulo `numShards`, so that the shards' batches of one step are the same items, whatever their number. Every shard
   *  reads all chunks. A mix is sharded as a whole: `shard(mix(...), ...)`. 0 of 1 by default. */
  readonly shardIndex?: number;
  readonly numShards?: number;
  /** Rows to read: `{ split: 'train', score: { gte: 0.5 }, kind: { in: ['a', 'b'] }, text: { notNull: true } }`. Others are no
   *  items, and are counted nowhere. Row groups of Parquet whose statistics say that no row is wanted are not read. */
  readonly where?: Where;
  /** Brings items of similar length together, so that batches are padded little: within a shuffle window (without shuffle,
   *  within a row group, record batch or stretch of lines) the permuted rows are sorted by length in stretches of at most
   *  50 runs of `size`, and the runs are permuted by the seed. As HF's grouping by length, and as exactly resumed and
   *  sharded as any order. Larger windows make better buckets.
   *  @example bucket: { by: (row: Row) => row.text.length, size: 16 } */
  readonly bucket?: BucketOptions;
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
export type RowSource<T, Plan> = Part<'source', undefined, Source<T>> &
  Source<T> & {
    /** Checks all that can be checked before a run.
     *  @throws {ConfigError | DataError} as `open` does */
    readonly plan: () => Promise<Plan>;
    /** Changes with the content, and not with the folder that it lies in. */
    readonly fingerprint: () => Promise<string>;
  };

const MIB = 2 ** 20;

/** Schemas of `ReadingOptions` and `Explode`. */
export const READING = {
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
  where: WHERE,
  bucket: z
    .strictObject({
      by: z.custom<(item: never) => number>((value) => typeof value === 'function', 'expected a function'),
      size: z.int().positive(),
    })
    .optional(),
  maxItemBytes: z.int().positive().optional(),
  explode: z
    .custom<NonNullable<WindowOptions['explode']>>(
      (value) => typeof value === 'function',
      'expected a function',
    )
    .optional(),
};

/** A check of the whole: the shard is one of them. */
export function checkShard(
  { shardIndex, numShards }: { readonly shardIndex: number; readonly numShards: number },
  context: z.RefinementCtx,
): void {
  if (shardIndex < numShards) return;
  const message = `expected less than numShards, ${numShards}`;
  context.addIssue({ code: 'custom', path: ['shardIndex'], message, input: shardIndex });
}

/** What stands behind a source of rows, given its decoded options. */
export interface Reading<O, Plan> {
  readonly read: (options: O, signal: AbortSignal, from?: Cursor) => AsyncIterable<Item>;
  readonly plan: (options: O) => Promise<Plan>;
  readonly fingerprint: (options: O) => Promise<string>;
}

/** Defines a kind of source.
 *  @returns its builder: from options as they are given to a value that is part and source */
export function defineSource<S extends z.ZodObject, Plan>(
  kind: string,
  schema: S,
  { read, plan, fingerprint }: Reading<z.output<S>, Plan>,
): (given: unknown) => RowSource<unknown, Plan> {
  type Made = Source<unknown> & Pick<RowSource<unknown, Plan>, 'fingerprint' | 'plan'>;
  const nameOf = (options: unknown): string => (options as { name?: string }).name ?? kind;
  const limitOf = (options: unknown) => (options as { maxItemBytes?: number }).maxItemBytes;
  const definition = definePart({
    role: 'source',
    kind,
    schema,
    create: (options: z.output<S>, _context: undefined): Made => ({
      name: nameOf(options),
      ...(limitOf(options) === undefined ? {} : { maxItemBytes: limitOf(options)! }),
      open: (signal, from) => read(options, signal, from),
      plan: async () => plan(options),
      fingerprint: async () => fingerprint(options),
    }),
  });
  return (given) => {
    const decoded = (): z.output<S> => decode(schema, given, kind);
    // Not enumerable: a part is its options, and copies with other options are made of those.
    return Object.defineProperties(definition(given as z.input<S>), {
      name: { value: nameOf(given) },
      maxItemBytes: { value: limitOf(given) },
      open: { value: (signal: AbortSignal, from?: Cursor) => read(decoded(), signal, from) },
      plan: { value: async () => plan(decoded()) },
      fingerprint: { value: async () => fingerprint(decoded()) },
    }) as unknown as RowSource<unknown, Plan>;
  };
}
