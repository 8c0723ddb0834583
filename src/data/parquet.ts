// Parquet files as a source of rows: row groups are read one at a time and one ahead, rows come in a deterministic order.
//
// Memory. The source itself holds the row groups that it reads from, decoded: one (or one shuffle window) that rows
// are taken from and the next, read ahead. `plan()` tells how many bytes that is; they come on top of the flow's pool.
// A row that leaves owns its bytes, so what it weighs in the pool is what it keeps alive.
//
// Values. Strings, numbers, booleans, null, `Date` for dates and timestamps (milliseconds), `bigint` for 64-bit integers
// (exact, and the type does not change with the value: write `Number(row.id)`), `Uint8Array` for binary, arrays for
// lists, objects for structs and maps, text for JSON columns.

import { ConfigError, DataError } from '../errors.js';
import type { Source, SourceFault, SourceItem } from '../flow/types.js';
import { decode, z } from '../schema.js';
import { bytesOf, cleanCells } from './cells.js';
import { expandGlobs } from './glob.js';
import {
  ParquetFile,
  RowGroupError,
  type ColumnChoice,
  type ColumnData,
  type RowGroupInfo,
} from './parquet-file.js';
import { parseType } from './parquet-schema.js';
import { permutation, random } from './random.js';
import type { Origin, Row } from './types.js';

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

/** What reading takes, known from the footers. */
export interface ParquetPlan {
  readonly files: readonly string[];
  readonly numRowGroups: number;
  readonly numRows: number;
  /** Of the chosen columns, decoded. */
  readonly bytes: number;
  /** The most decoded bytes that the source holds at once, beside the flow's pool. */
  readonly heldBytes: number;
}

export interface ParquetSource<T> extends Source<T> {
  /** Reads the footers and checks all that can be checked before a run.
   *  @throws {DataError} as `open` does */
  readonly plan: () => Promise<ParquetPlan>;
}

/** The options' schema, for pipeline files. */
export const parquetOptions = z.strictObject({
  columns: z.union([z.array(z.string()).min(1), z.record(z.string(), z.string())]).optional(),
  shuffle: z
    .strictObject({
      seed: z.int().nonnegative(),
      windowBytes: z
        .int()
        .positive()
        .default(128 * 2 ** 20),
    })
    .optional(),
  epochs: z.union([z.int().positive(), z.literal(Infinity)]).default(1),
  shardIndex: z.int().nonnegative().default(0),
  numShards: z.int().positive().default(1),
  readAhead: z.boolean().default(true),
  maxRowGroupBytes: z
    .int()
    .positive()
    .default(2 ** 30),
  maxItemBytes: z.int().positive().optional(),
  explode: z
    .custom<(row: unknown, origin: Origin) => Iterable<unknown>>(
      (value) => typeof value === 'function',
      'expected a function',
    )
    .optional(),
});

type Options = z.output<typeof parquetOptions>;

/** A source of the rows of Parquet files.
 *  @param files paths and patterns (`data/train-*.parquet`), read in the order that `expandGlobs` gives
 *  @throws {ConfigError} on wrong options, all at once. Files are opened when the source is: then
 *  {DataError} says what is wrong with one. A row group that cannot be decoded does not stop the reading: its rows come
 *  as faults with file, row and reason. */
export function parquet<T, R = Row>(
  files: string | readonly string[],
  options: ParquetOptions & Explode<R, T>,
): ParquetSource<T>;
export function parquet<R = Row>(
  files: string | readonly string[],
  options?: ParquetOptions,
): ParquetSource<R>;
export function parquet(files: string | readonly string[], options: object = {}): ParquetSource<unknown> {
  const decoded = decode(parquetOptions, options, 'parquet');
  if (decoded.shardIndex >= decoded.numShards) {
    throw new ConfigError({
      where: 'parquet: shardIndex',
      expected: `less than numShards, ${decoded.numShards}`,
      received: String(decoded.shardIndex),
      remedy: 'number the shards from 0',
    });
  }
  if (decoded.columns && !Array.isArray(decoded.columns)) Object.values(decoded.columns).forEach(parseType);
  return {
    name: 'parquet',
    ...(decoded.maxItemBytes === undefined ? {} : { maxItemBytes: decoded.maxItemBytes }),
    open: (signal) => readRows(files, decoded, signal),
    plan: async () => {
      const opened = await openFiles(files, decoded, new AbortController().signal);
      const groups = groupsOf(opened);
      return {
        files: opened.map(({ path }) => path),
        numRowGroups: groups.length,
        numRows: sum(groups.map(({ info }) => info.numRows)),
        bytes: sum(groups.map(({ info }) => info.bytes)),
        heldBytes: heldBytes(groups, decoded),
      };
    },
  };
}

type Item = SourceItem<unknown> | SourceFault;

/** A row group of one of the files. */
interface Group {
  readonly file: ParquetFile;
  readonly index: number;
  readonly info: RowGroupInfo;
}

async function* readRows(
  files: string | readonly string[],
  options: Options,
  signal: AbortSignal,
): AsyncGenerator<Item, void, undefined> {
  const groups = groupsOf(await openFiles(files, options, signal));
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  const windows = windowsOf(groups, options);
  const advance = (): Promise<LoadedWindow | undefined> => {
    const { value } = windows.next();
    const loading = value ? loadWindow(value, options, stopped) : Promise.resolve(undefined);
    loading.catch(() => {}); // whoever awaits it hears of it
    return loading;
  };

  let next = advance();
  try {
    for (;;) {
      const window = await next;
      if (!window) return;
      if (options.readAhead) next = advance();
      for (const entry of window.entries()) {
        signal.throwIfAborted();
        yield window.item(entry);
      }
      if (!options.readAhead) next = advance();
    }
  } finally {
    stop.abort();
    await next.catch(() => {}); // its descriptor is closed then
  }
}

async function openFiles(
  files: string | readonly string[],
  { columns, maxRowGroupBytes }: Options,
  signal: AbortSignal,
): Promise<ParquetFile[]> {
  const opened: ParquetFile[] = [];
  for (const path of await expandGlobs(files)) {
    signal.throwIfAborted();
    const file = await ParquetFile.open(path, columns);
    assertSameColumns(opened[0] ?? file, file);
    for (const [index, { bytes }] of file.rowGroups.entries()) {
      if (bytes <= maxRowGroupBytes) continue;
      throw new DataError({
        where: `${path}, row group ${index}`,
        expected: `at most ${maxRowGroupBytes} bytes when decoded (maxRowGroupBytes)`,
        received: `${bytes}`,
        remedy: 'choose fewer columns, raise the limit, or write the file with smaller row groups',
      });
    }
    opened.push(file);
  }
  if (opened.every(({ rowGroups }) => rowGroups.every(({ numRows }) => numRows === 0))) {
    throw new DataError({
      where: opened.map(({ path }) => path).join(', '),
      expected: 'at least one row',
      received: 'none',
      remedy: 'name files that hold data',
    });
  }
  return opened;
}

function assertSameColumns(first: ParquetFile, other: ParquetFile): void {
  for (const name of new Set([...Object.keys(first.columns), ...Object.keys(other.columns)])) {
    const [expected, received] = [first.columns[name], other.columns[name]];
    if (expected === received) continue;
    throw new DataError({
      where: `${other.path}, column ${name}`,
      expected: `${expected ?? 'no such column'}, as in ${first.path}`,
      received: received ?? 'no such column',
      remedy: 'read files of one kind, or choose the columns that all of them have',
    });
  }
}

function groupsOf(files: readonly ParquetFile[]): Group[] {
  return files.flatMap((file) =>
    file.rowGroups.map((info, index) => ({ file, index, info })).filter(({ info }) => info.numRows > 0),
  );
}

/** Row groups that are held together, and the generator that mixes their rows. */
interface Window {
  readonly groups: readonly Group[];
  /** Items of this epoch in the windows before this one are counted on. */
  readonly position: { count: number };
  readonly keys?: readonly number[];
}

function* windowsOf(groups: readonly Group[], { shuffle, epochs }: Options): Generator<Window, undefined> {
  for (let epoch = 0; epoch < epochs; epoch++) {
    const position = { count: 0 };
    if (!shuffle) {
      for (const group of groups) yield { groups: [group], position };
      continue;
    }
    const { seed, windowBytes } = shuffle;
    const order = permutation(groups.length, random(seed, epoch));
    const packed = pack(
      [...order].map((i) => groups[i]!),
      windowBytes,
    );
    for (const [i, window] of packed.entries()) yield { groups: window, position, keys: [seed, epoch, i] };
  }
  return undefined;
}

function pack(groups: readonly Group[], windowBytes: number): Group[][] {
  const windows: Group[][] = [];
  let room = 0;
  for (const group of groups) {
    const last = windows.at(-1);
    if (last && group.info.bytes <= room) last.push(group);
    else {
      windows.push([group]);
      room = windowBytes;
    }
    room -= group.info.bytes;
  }
  return windows;
}

function heldBytes(groups: readonly Group[], { shuffle, readAhead }: Options): number {
  const largest = Math.max(...groups.map(({ info }) => info.bytes));
  const all = sum(groups.map(({ info }) => info.bytes));
  const window = shuffle ? Math.min(all, Math.max(largest, shuffle.windowBytes)) : largest;
  return (readAhead ? 2 : 1) * window;
}

/** A loaded window's items, in order. */
interface LoadedWindow {
  readonly entries: () => Iterable<Entry>;
  readonly item: (entry: Entry) => Item;
}

/** An item before its bytes are copied: a row, one of the values that it was exploded into, or a fault. */
interface Entry {
  readonly group: LoadedGroup;
  readonly row: number;
  readonly value?: unknown;
  readonly error?: Error;
}

interface LoadedGroup extends Group {
  readonly columns: readonly ColumnData[];
  /** Why there are none. */
  readonly error?: Error;
}

async function loadWindow(window: Window, options: Options, signal: AbortSignal): Promise<LoadedWindow> {
  const entries: Entry[] = [];
  for (const group of window.groups) {
    const loaded = await loadGroup(group, options, signal);
    for (let row = 0; row < group.info.numRows; row++) entries.push(...entriesOf(loaded, row, options));
  }
  const order = window.keys && permutation(entries.length, random(...window.keys, 1));
  const { shardIndex, numShards, maxItemBytes = options.maxRowGroupBytes } = options;
  return {
    *entries() {
      for (let i = 0; i < entries.length; i++) {
        if (window.position.count++ % numShards === shardIndex) yield entries[order ? order[i]! : i]!;
      }
    },
    item: (entry) => itemOf(entry, maxItemBytes),
  };
}

async function loadGroup(group: Group, options: Options, signal: AbortSignal): Promise<LoadedGroup> {
  try {
    // Twice what the footer announces is generous to writers that count otherwise, and a bound on those that lie.
    const maxBytes = Math.min(options.maxRowGroupBytes, 2 * group.info.bytes + 2 ** 20);
    return { ...group, columns: await group.file.readRowGroup(group.index, maxBytes, signal) };
  } catch (error) {
    if (!(error instanceof RowGroupError)) throw error;
    return { ...group, columns: [], error };
  }
}

function entriesOf(group: LoadedGroup, row: number, { explode }: Options): Entry[] {
  if (group.error) return [{ group, row, error: group.error }];
  if (!explode) return [{ group, row }];
  try {
    const where = describeRow(group, row);
    const values = [...explode(cleanCells(rowOf(group, row), 'view', where), originOf(group, row))];
    if (values.length > 0) return values.map((value) => ({ group, row, value }));
    throw new DataError({
      where,
      expected: 'at least one item from explode',
      received: 'none',
      remedy: 'the row is left out; nothing is wrong where that is meant',
    });
  } catch (thrown) {
    return [{ group, row, error: thrown instanceof Error ? thrown : new Error(String(thrown)) }];
  }
}

function itemOf({ group, row, value = rowOf(group, row), error }: Entry, maxItemBytes: number): Item {
  const origin = originOf(group, row);
  if (error) return { error, bytes: 0, origin };
  const where = describeRow(group, row);
  const bytes = bytesOf(value);
  try {
    if (bytes > maxItemBytes) {
      throw new DataError({
        where,
        expected: `at most ${maxItemBytes} bytes (maxItemBytes)`,
        received: `${bytes}`,
        remedy: 'the row is left out; raise the limit to have it',
      });
    }
    return { value: cleanCells(value, 'copy', where), bytes, origin };
  } catch (fault) {
    return { error: fault, bytes: 0, origin };
  }
}

function rowOf({ columns }: LoadedGroup, row: number): Record<string, unknown> {
  return Object.fromEntries(columns.map(({ name, values }) => [name, values[row]]));
}

function originOf({ file, index, info }: Group, row: number): Origin {
  return { file: file.path, rowGroup: index, row: info.firstRow + row };
}

function describeRow({ file, info }: Group, row: number): string {
  return `${file.path}, row ${info.firstRow + row}`;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
