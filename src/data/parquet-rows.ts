// The reading behind `parquet`: footers first, then row groups, each a chunk of a window.

import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { DataError } from '../errors.js';
import type { Cursor } from '../flow/types.js';
import { setField } from './cells.js';
import { assertSameColumns, columnNames, type ColumnChoice } from './column-choice.js';
import { expandGlobs } from './glob.js';
import { ParquetFile, RowGroupError, type ColumnData, type RowGroupInfo } from './parquet-file.js';
import { OpenFile, type OpenOptions } from './open-file.js';
import { footerBytes } from './parquet-footer.js';
import { isRemote } from './remote-url.js';
import {
  heldBytes,
  readWindows,
  type Chunk,
  type Item,
  type LoadedChunk,
  type WindowOptions,
} from './windows.js';
import type { Origin } from './types.js';
import { satisfiesWhere } from './where.js';

/** The options of `parquet`, decoded. */
export interface ReadOptions extends Omit<WindowOptions, 'maxItemBytes'> {
  readonly files: string | readonly string[];
  readonly columns?: ColumnChoice | undefined;
  readonly maxRowGroupBytes: number;
  readonly maxItemBytes?: number | undefined;
}

/** What reading takes, known from the footers. */
export interface ParquetPlan {
  readonly files: readonly string[];
  /** Those that are read: where `where` is given, without those of which no row can satisfy it. */
  readonly numRowGroups: number;
  readonly numRowGroupsSkipped: number;
  /** Of the row groups that are read. Under `where` there are that many rows at most. */
  readonly numRows: number;
  /** Of the chosen columns, decoded. */
  readonly bytes: number;
  /** The most decoded bytes that the source holds at once, beside the flow's pool. */
  readonly heldBytes: number;
}

/** Reads the footers and checks all that can be checked before a run. */
export async function planRows(options: ReadOptions): Promise<ParquetPlan> {
  const files = await openFiles(options, { afresh: true });
  const groups = groupsOf(files);
  return {
    files: files.map(({ path }) => path),
    numRowGroups: groups.length,
    numRowGroupsSkipped: sum(files.map(({ rowGroups }) => rowGroups.filter((info) => !info.mayMatch).length)),
    numRows: sum(groups.map(({ info }) => info.numRows)),
    bytes: sum(groups.map(({ info }) => info.bytes)),
    heldBytes: heldBytes(groups, options),
  };
}

/** Tells files apart by what their footers say: names without folders, sizes, and the places of all pages; those of
 *  a server also by its ETag. */
export async function fingerprintRows(options: ReadOptions): Promise<string> {
  const hash = createHash('sha256');
  for (const path of await expandGlobs(options.files)) {
    await using file = await OpenFile.open(path);
    const { size } = file.stamp;
    const name = basename(file.path);
    if (isRemote(path)) {
      hash.update(`${name} ${size} ${file.stamp.etag ?? ''}\n`).update(await footerBytes(file));
      continue;
    }
    const end = Math.min(size, FINGERPRINT_BYTES);
    hash.update(`${name} ${size}\n`).update(await file.read(size - end, end));
  }
  return hash.digest('hex');
}

/** Of a file's end: the footer, or most of it. */
const FINGERPRINT_BYTES = 2 ** 20;

/** A row group of one of the files. */
interface Group extends Chunk {
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
  const groups = groupsOf(await openFiles(options, { signal }));
  const limits = {
    ...options,
    where: undefined,
    maxItemBytes: options.maxItemBytes ?? options.maxRowGroupBytes,
  };
  const load = (group: Group, stopped: AbortSignal) => loadGroup(group, options, stopped);
  yield* readWindows('parquet', groups, limits, { load }, signal, from);
}

async function openFiles(
  { files, columns, where, maxRowGroupBytes }: ReadOptions,
  how: OpenOptions,
): Promise<ParquetFile[]> {
  const opened: ParquetFile[] = [];
  for (const path of await expandGlobs(files)) {
    how.signal?.throwIfAborted();
    const file = await ParquetFile.open(path, columns, { ...how, where });
    assertSameColumns(opened[0] ?? file, file);
    for (const [index, { bytes }] of file.rowGroups.entries()) {
      if (bytes <= maxRowGroupBytes || !file.rowGroups[index]!.mayMatch) continue;
      throw new DataError({
        where: `${file.path}, row group ${index}`,
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
  if (opened.some(({ rowGroups }) => rowGroups.some((info) => info.mayMatch && info.numRows > 0)))
    return opened;
  throw new DataError({
    where: opened.map(({ path }) => path).join(', '),
    expected: 'rows that may satisfy where',
    received: 'statistics that say there are none',
    remedy: 'correct where, or name other files',
  });
}

function groupsOf(files: readonly ParquetFile[]): Group[] {
  return files.flatMap((file) =>
    file.rowGroups
      .map((info, index) => ({ file, index, info, numRows: info.numRows, bytes: info.bytes }))
      .filter(({ numRows, info }) => numRows > 0 && info.mayMatch),
  );
}

async function loadGroup(group: Group, options: ReadOptions, signal: AbortSignal): Promise<LoadedChunk> {
  const { file, index, info } = group;
  const originOf = (row: number): Origin => ({ file: file.path, rowGroup: index, row: info.firstRow + row });
  const describe = (row: number): string => `${file.path}, row ${info.firstRow + row}`;
  try {
    // Twice what the footer announces is generous to writers that count otherwise, and a bound on those that lie.
    const maxBytes = Math.min(options.maxRowGroupBytes, 2 * info.bytes + 2 ** 20);
    const columns = await file.readRowGroup(index, maxBytes, signal);
    const kept = new Set(columnNames(options.columns) ?? columns.map(({ name }) => name));
    const chosen = columns.filter(({ name }) => kept.has(name));
    const rowAt = (row: number): unknown => rowOf(chosen, row);
    const { where } = options;
    if (!where) return { rowAt, originOf, describe };
    const byName = new Map(columns.map(({ name, values }) => [name, values]));
    const matches = (row: number): boolean => satisfiesWhere(where, (name) => byName.get(name)?.[row]);
    return { rowAt, matches, originOf, describe };
  } catch (error) {
    if (!(error instanceof RowGroupError)) throw error;
    const rowAt = (): never => {
      throw error;
    };
    return { rowAt, ...(options.where && { matches: rowAt }), originOf, describe };
  }
}

function rowOf(columns: readonly ColumnData[], row: number): Record<string, unknown> {
  const cells: Record<string, unknown> = {};
  for (const { name, values } of columns) setField(cells, name, values[row]);
  return cells;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
