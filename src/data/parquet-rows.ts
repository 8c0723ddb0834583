// The reading behind `parquet`: footers first, then row groups, one window held and the next one loading.

import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { DataError } from '../errors.js';
import type { Cursor, SourceFault, SourceItem } from '../flow/types.js';
import { decode, z } from '../schema.js';
import { bytesOf, cleanCells, setField } from './cells.js';
import { expandGlobs } from './glob.js';
import {
  ParquetFile,
  RowGroupError,
  type ColumnChoice,
  type ColumnData,
  type RowGroupInfo,
} from './parquet-file.js';
import { OpenFile } from './open-file.js';
import { permutation, random } from './random.js';
import type { Origin } from './types.js';

/** The options of `parquet`, decoded. */
export interface ReadOptions {
  readonly files: string | readonly string[];
  readonly columns?: ColumnChoice | undefined;
  readonly shuffle?: { readonly seed: number; readonly windowBytes: number } | undefined;
  readonly epochs: number;
  readonly shardIndex: number;
  readonly numShards: number;
  readonly readAhead: boolean;
  readonly maxRowGroupBytes: number;
  readonly maxItemBytes?: number | undefined;
  readonly explode?: ((row: unknown, origin: Origin) => Iterable<unknown>) | undefined;
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

/** Reads the footers and checks all that can be checked before a run. */
export async function planRows(options: ReadOptions): Promise<ParquetPlan> {
  const files = await openFiles(options, new AbortController().signal);
  const groups = groupsOf(files);
  return {
    files: files.map(({ path }) => path),
    numRowGroups: groups.length,
    numRows: sum(groups.map(({ info }) => info.numRows)),
    bytes: sum(groups.map(({ info }) => info.bytes)),
    heldBytes: heldBytes(groups, options),
  };
}

/** Tells files apart by what their footers say: names without folders, sizes, and the places of all pages. */
export async function fingerprintRows(options: ReadOptions): Promise<string> {
  const hash = createHash('sha256');
  for (const path of await expandGlobs(options.files)) {
    await using file = await OpenFile.open(path);
    const { size } = file.stamp;
    const end = Math.min(size, FINGERPRINT_BYTES);
    hash.update(`${basename(path)} ${size}\n`).update(await file.read(size - end, end));
  }
  return hash.digest('hex');
}

/** Of a file's end: the footer, or most of it. */
const FINGERPRINT_BYTES = 2 ** 20;

type Item = SourceItem<unknown> | SourceFault;

/** Where an item is: the epoch, the window in it, and the item's number in that window's order. */
interface ParquetCursor {
  readonly epoch: number;
  readonly window: number;
  readonly index: number;
  /** Items of the epoch in the windows before, of all shards. */
  readonly before: number;
}

const CURSOR = z.strictObject({
  epoch: z.int().min(0),
  window: z.int().min(0),
  index: z.int().min(0),
  before: z.int().min(0),
});

/** A row group of one of the files. */
interface Group {
  readonly file: ParquetFile;
  readonly index: number;
  readonly info: RowGroupInfo;
}

/** Opens the source; see `parquet`. */
export async function* readRows(
  options: ReadOptions,
  signal: AbortSignal,
  from?: Cursor,
): AsyncGenerator<Item, void, undefined> {
  const start = from === undefined ? undefined : decode(CURSOR, from, 'parquet: cursor');
  const groups = groupsOf(await openFiles(options, signal));
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  const windows = windowsOf(groups, options, start);
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
      for (const item of window.items()) {
        signal.throwIfAborted();
        yield item;
      }
      if (!options.readAhead) next = advance();
    }
  } finally {
    stop.abort();
    await next.catch(() => {}); // its descriptor is closed then
  }
}

async function openFiles(
  { files, columns, maxRowGroupBytes }: ReadOptions,
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
  readonly epoch: number;
  readonly number: number;
  /** Items of this epoch in the windows before this one are counted on. */
  readonly position: { count: number };
  /** The first item that is wanted. */
  readonly firstIndex: number;
  readonly keys?: readonly number[];
}

function* windowsOf(
  groups: readonly Group[],
  { shuffle, epochs }: ReadOptions,
  start?: ParquetCursor,
): Generator<Window, undefined> {
  for (let epoch = start?.epoch ?? 0; epoch < epochs; epoch++) {
    const here = epoch === start?.epoch ? start : undefined;
    const position = { count: here?.before ?? 0 };
    const windows = shuffle
      ? pack(
          [...permutation(groups.length, random(shuffle.seed, epoch))].map((i) => groups[i]!),
          shuffle.windowBytes,
        )
      : groups.map((group) => [group]);
    for (const [number, window] of windows.entries()) {
      if (number < (here?.window ?? 0)) continue;
      const firstIndex = number === here?.window ? here.index : 0;
      const keys = shuffle ? { keys: [shuffle.seed, epoch, number] } : {};
      yield { groups: window, epoch, number, position, firstIndex, ...keys };
    }
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

function heldBytes(groups: readonly Group[], { shuffle, readAhead }: ReadOptions): number {
  const largest = Math.max(...groups.map(({ info }) => info.bytes));
  const all = sum(groups.map(({ info }) => info.bytes));
  const window = shuffle ? Math.min(all, Math.max(largest, shuffle.windowBytes)) : largest;
  return (readAhead ? 2 : 1) * window;
}

/** A loaded window's items, in order. */
interface LoadedWindow {
  readonly items: () => Iterable<Item>;
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

async function loadWindow(window: Window, options: ReadOptions, signal: AbortSignal): Promise<LoadedWindow> {
  const entries: Entry[] = [];
  for (const group of window.groups) {
    const loaded = await loadGroup(group, options, signal);
    for (let row = 0; row < group.info.numRows; row++) entries.push(...entriesOf(loaded, row, options));
  }
  const order = window.keys && permutation(entries.length, random(...window.keys, 1));
  const { shardIndex, numShards, maxItemBytes = options.maxRowGroupBytes } = options;
  const { epoch, number, position, firstIndex } = window;
  return {
    *items() {
      const before = position.count;
      position.count += entries.length;
      for (let index = firstIndex; index < entries.length; index++) {
        if ((before + index) % numShards !== shardIndex) continue;
        const item = itemOf(entries[order ? order[index]! : index]!, maxItemBytes);
        yield { ...item, cursor: { epoch, window: number, index, before } };
      }
    },
  };
}

async function loadGroup(group: Group, options: ReadOptions, signal: AbortSignal): Promise<LoadedGroup> {
  try {
    // Twice what the footer announces is generous to writers that count otherwise, and a bound on those that lie.
    const maxBytes = Math.min(options.maxRowGroupBytes, 2 * group.info.bytes + 2 ** 20);
    return { ...group, columns: await group.file.readRowGroup(group.index, maxBytes, signal) };
  } catch (error) {
    if (!(error instanceof RowGroupError)) throw error;
    return { ...group, columns: [], error };
  }
}

function entriesOf(group: LoadedGroup, row: number, { explode }: ReadOptions): Entry[] {
  if (group.error) return [{ group, row, error: group.error }];
  if (!explode) return [{ group, row }];
  try {
    const where = () => describeRow(group, row);
    const values = [...explode(cleanCells(rowOf(group, row), 'view', where), originOf(group, row))];
    if (values.length > 0) return values.map((value) => ({ group, row, value }));
    throw new DataError({
      where: where(),
      expected: 'at least one item from explode',
      received: 'none',
      remedy: 'make one of each row, and leave items out by a filter in the flow, which counts them',
    });
  } catch (thrown) {
    return [{ group, row, error: thrown instanceof Error ? thrown : new Error(String(thrown)) }];
  }
}

function itemOf({ group, row, value = rowOf(group, row), error }: Entry, maxItemBytes: number): Item {
  const origin = originOf(group, row);
  if (error) return { error, bytes: 0, origin };
  const where = () => describeRow(group, row);
  const bytes = bytesOf(value);
  try {
    if (bytes > maxItemBytes) {
      throw new DataError({
        where: where(),
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
  const cells: Record<string, unknown> = {};
  for (const { name, values } of columns) setField(cells, name, values[row]);
  return cells;
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
