// The reading behind `arrow`: the headers of all messages first, then record batches, each a chunk of a window.

import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { DataError } from '../errors.js';
import type { Cursor } from '../flow/types.js';
import { ArrowFile, BatchError, type BatchInfo } from './arrow-file.js';
import { assertSameColumns, columnNames, type ColumnChoice } from './column-choice.js';
import { expandGlobs } from './glob.js';
import { OpenFile, type OpenOptions } from './open-file.js';
import type { Origin } from './types.js';
import {
  heldBytes,
  readWindows,
  type Chunk,
  type Item,
  type LoadedChunk,
  type WindowOptions,
} from './windows.js';
import { satisfiesWhere } from './where.js';

/** The options of `arrow`, decoded. */
export interface ArrowReadOptions extends Omit<WindowOptions, 'maxItemBytes'> {
  readonly files: string | readonly string[];
  readonly columns?: ColumnChoice | undefined;
  readonly maxBatchBytes: number;
  readonly maxItemBytes?: number | undefined;
}

/** What reading takes, known from the messages' headers. */
export interface ArrowPlan {
  readonly files: readonly string[];
  readonly numBatches: number;
  readonly numRows: number;
  /** Of all record batches, decoded. */
  readonly bytes: number;
  /** The most decoded bytes that the source holds at once, beside the flow's pool. */
  readonly heldBytes: number;
}

export async function planArrow(options: ArrowReadOptions): Promise<ArrowPlan> {
  const files = await openFiles(options, { afresh: true });
  const chunks = chunksOf(files);
  const dictionaries = Math.max(...files.map(({ dictionaryBytes }) => dictionaryBytes));
  return {
    files: files.map(({ path }) => path),
    numBatches: chunks.length,
    numRows: chunks.reduce((sum, { numRows }) => sum + numRows, 0),
    bytes: chunks.reduce((sum, { bytes }) => sum + bytes, 0),
    // Batches of a window keep their files' dictionaries.
    heldBytes: heldBytes(chunks, options) + (options.shuffle ? files.length : 2) * dictionaries,
  };
}

/** Tells files apart by names without folders, sizes, the places of batches, and the bytes that each begins and ends with:
 *  the header, and some of the last column. */
export async function fingerprintArrow(options: ArrowReadOptions): Promise<string> {
  const hash = createHash('sha256');
  for (const path of await expandGlobs(options.files)) {
    const { batches, columns } = await ArrowFile.open(path);
    await using file = await OpenFile.open(path, 'Arrow file');
    hash.update(`${basename(file.path)} ${file.stamp.size} ${JSON.stringify(columns)}\n`);
    for (const { block } of batches) {
      const length = Math.min(block.length, SAMPLE_BYTES);
      hash.update(`${block.start} ${block.length}\n`).update(await file.read(block.start, length));
      if (block.length > SAMPLE_BYTES)
        hash.update(await file.read(block.start + block.length - length, length));
    }
  }
  return hash.digest('hex');
}

const SAMPLE_BYTES = 2 ** 14;

interface BatchChunk extends Chunk {
  readonly file: ArrowFile;
  readonly index: number;
  readonly info: BatchInfo;
}

/** Opens the source; see `arrow`. */
export async function* readArrow(
  options: ArrowReadOptions,
  signal: AbortSignal,
  from?: Cursor,
): AsyncGenerator<Item, void, undefined> {
  const chunks = chunksOf(await openFiles(options, { signal }));
  const limits = {
    ...options,
    where: undefined,
    maxItemBytes: options.maxItemBytes ?? options.maxBatchBytes,
  };
  yield* readWindows('arrow', chunks, limits, loader(options), signal, from);
}

function loader({ columns, where }: ArrowReadOptions): {
  load: (chunk: BatchChunk, signal: AbortSignal) => Promise<LoadedChunk>;
} {
  // Chunks of a window come in the order of files: one reader at a time is enough to decode a dictionary once.
  let current: { file: ArrowFile; read: ReturnType<ArrowFile['batchReader']> } | undefined;
  return {
    load: async ({ file, index, info }, signal) => {
      if (current?.file !== file) current = { file, read: file.batchReader() };
      const originOf = (row: number): Origin => ({
        file: file.path,
        rowGroup: index,
        row: info.firstRow + row,
      });
      const describe = (row: number): string => `${file.path}, row ${info.firstRow + row}`;
      try {
        const read = await current.read(index, signal);
        if (!where) return { rowAt: read, originOf, describe };
        const matches = (row: number): boolean => {
          const cells = read(row);
          return satisfiesWhere(where, (name) => cells[name]);
        };
        return { rowAt: (row) => chosenOf(read(row), columns), matches, originOf, describe };
      } catch (error) {
        if (!(error instanceof BatchError)) throw error;
        const rowAt = (): never => {
          throw error;
        };
        return { rowAt, ...(where && { matches: rowAt }), originOf, describe };
      }
    },
  };
}

/** A row without the columns that were read for `where` alone. */
function chosenOf(cells: Record<string, unknown>, choice: ColumnChoice | undefined): Record<string, unknown> {
  const names = columnNames(choice);
  if (!names) return cells;
  const kept = new Set(names);
  return Object.fromEntries(Object.entries(cells).filter(([name]) => kept.has(name)));
}

async function openFiles(
  { files, columns, where, maxBatchBytes }: ArrowReadOptions,
  how: OpenOptions,
): Promise<ArrowFile[]> {
  const opened: ArrowFile[] = [];
  for (const path of await expandGlobs(files)) {
    how.signal?.throwIfAborted();
    const file = await ArrowFile.open(path, columns, { ...how, where });
    assertSameColumns(opened[0] ?? file, file);
    const index = file.batches.findIndex(({ bytes }) => bytes + file.dictionaryBytes > maxBatchBytes);
    if (index >= 0) {
      throw new DataError({
        where: `${file.path}, record batch ${index}`,
        expected: `at most ${maxBatchBytes} bytes with its dictionaries, when decoded (maxBatchBytes)`,
        received: `${file.batches[index]!.bytes + file.dictionaryBytes}`,
        remedy: 'raise the limit, or write the file with smaller batches',
      });
    }
    opened.push(file);
  }
  if (opened.every(({ batches }) => batches.every(({ numRows }) => numRows === 0))) {
    throw new DataError({
      where: opened.map(({ path }) => path).join(', '),
      expected: 'at least one row',
      received: 'none',
      remedy: 'name files that hold data',
    });
  }
  return opened;
}

function chunksOf(files: readonly ArrowFile[]): BatchChunk[] {
  return files.flatMap((file) =>
    file.batches
      .map((info, index) => ({ file, index, info, numRows: info.numRows, bytes: info.bytes }))
      .filter(({ numRows }) => numRows > 0),
  );
}
