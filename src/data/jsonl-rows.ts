// The reading behind `jsonl`: an index of the lines first, then stretches of them, each a chunk of a window.

import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { DataError, messageOf } from '../errors.js';
import type { Cursor } from '../flow/types.js';
import { setField } from './cells.js';
import { expandGlobs } from './glob.js';
import { TextReader } from './jsonl-bytes.js';
import { lineIndex, type IndexOptions, type LineIndex, type Stretch } from './jsonl-index.js';
import { OpenFile } from './open-file.js';
import {
  heldBytes,
  readWindows,
  type Chunk,
  type ChunkLoader,
  type Item,
  type LoadedChunk,
  type WindowOptions,
} from './windows.js';
import { satisfiesWhere } from './where.js';

/** The options of `jsonl`, decoded. */
export interface JsonlReadOptions extends Omit<WindowOptions, 'maxItemBytes'>, IndexOptions {
  readonly files: string | readonly string[];
  readonly columns?: readonly string[] | undefined;
  readonly maxItemBytes?: number | undefined;
}

/** What reading takes, known from one scan. */
export interface JsonlPlan {
  readonly files: readonly string[];
  /** Lines that are not empty. */
  readonly numRows: number;
  /** Of the text, decompressed. */
  readonly bytes: number;
  /** The most bytes that the source holds at once, beside the flow's pool. */
  readonly heldBytes: number;
}

export async function planJsonl(options: JsonlReadOptions): Promise<JsonlPlan> {
  const files = await openFiles(options, new AbortController().signal, true);
  const chunks = chunksOf(files);
  return {
    files: files.map(({ path }) => path),
    numRows: chunks.reduce((sum, { numRows }) => sum + numRows, 0),
    bytes: files.reduce((sum, { stretches }) => sum + (stretches.at(-1)?.end ?? 0), 0),
    heldBytes: heldBytes(chunks, options),
  };
}

/** Tells files apart by names without folders, and all of their text. */
export async function fingerprintJsonl(options: JsonlReadOptions): Promise<string> {
  const hash = createHash('sha256');
  for (const { path, digest } of await openFiles(options, new AbortController().signal)) {
    hash.update(`${basename(path)} ${digest}\n`);
  }
  return hash.digest('hex');
}

interface StretchChunk extends Chunk {
  readonly file: LineIndex;
  readonly index: number;
  readonly stretch: Stretch;
}

/** Opens the source; see `jsonl`. */
export async function* readJsonl(
  options: JsonlReadOptions,
  signal: AbortSignal,
  from?: Cursor,
): AsyncGenerator<Item, void, undefined> {
  const chunks = chunksOf(await openFiles(options, signal));
  const limits = { ...options, where: undefined, maxItemBytes: options.maxItemBytes ?? Infinity };
  yield* readWindows('jsonl', chunks, limits, loader(options), signal, from);
}

function loader({ columns, where, maxLineBytes }: JsonlReadOptions): ChunkLoader<StretchChunk> {
  let current: { readonly file: LineIndex; readonly reader: TextReader } | undefined;
  return {
    load: async ({ file, index, stretch }, signal): Promise<LoadedChunk> => {
      if (current?.file !== file) {
        await current?.reader.close();
        current = { file, reader: new TextReader(file.source, file.compression) };
      }
      const { source, path, stamp } = file;
      await using opened = await OpenFile.open(source, 'file of JSON lines', { signal });
      opened.assertUnchanged(stamp);
      const { start, end, firstLine, tooLong } = stretch;
      const bytes = tooLong ? new Uint8Array() : await current.reader.read(opened, start, end, signal);
      const lines = tooLong ? [{ line: firstLine, bytes }] : linesOf(bytes, stretch, path);
      const describe = (row: number): string => `${path}, line ${lines[row]!.line + 1}`;
      const rowAt = (row: number, chosen = columns): Record<string, unknown> => {
        if (!tooLong) return parseLine(lines[row]!.bytes, describe(row), chosen);
        throw badLine(describe(row), `at most ${maxLineBytes} bytes (maxLineBytes)`, `about ${end - start}`);
      };
      const matches = (row: number): boolean => {
        const cells = rowAt(row, Object.keys(where!));
        return satisfiesWhere(where!, (name) => cells[name]);
      };
      return {
        rowAt: (row) => rowAt(row),
        ...(where && { matches }),
        originOf: (row) => ({ file: path, rowGroup: index, row: lines[row]!.line }),
        describe,
      };
    },
    close: async () => current?.reader.close(),
  };
}

interface Line {
  /** Number in the file, from 0. */
  readonly line: number;
  readonly bytes: Uint8Array;
}

/** The lines that are not empty. */
function linesOf(bytes: Uint8Array, { firstLine, numRows, start }: Stretch, path: string): Line[] {
  const lines: Line[] = [];
  const first = start === 0 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0; // a BOM
  for (let from = first, line = firstLine; from < bytes.length || line === firstLine; line++) {
    const found = bytes.indexOf(0x0a, from);
    const end = found < 0 ? bytes.length : found;
    const content = bytes.subarray(from, bytes[end - 1] === 0x0d && end > from ? end - 1 : end);
    // A BOM that stands alone has been counted as a line.
    if (content.length > 0 || (first > 0 && line === firstLine)) lines.push({ line, bytes: content });
    from = end + 1;
  }
  if (lines.length === numRows) return lines;
  throw new DataError({
    where: path,
    expected: `the ${numRows} lines that were counted from line ${firstLine + 1} on`,
    received: `${lines.length}`,
    remedy: 'leave data files alone while a run reads them, and start it again',
  });
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A line's object.
 *  @param columns the fields that it keeps; those that it lacks are null
 *  @throws {DataError} when it is none */
export function parseLine(
  bytes: Uint8Array,
  where: string,
  columns?: readonly string[],
): Record<string, unknown> {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw badLine(where, 'UTF-8 text', 'bytes that are none');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw badLine(where, 'a JSON object', messageOf(cause), cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badLine(
      where,
      'a JSON object',
      Array.isArray(value) ? 'an array' : JSON.stringify(value).slice(0, 80),
    );
  }
  const object = value as Record<string, unknown>;
  if (!columns) return object;
  const chosen: Record<string, unknown> = {};
  for (const name of columns) setField(chosen, name, Object.hasOwn(object, name) ? object[name] : null);
  return chosen;
}

function badLine(where: string, expected: string, received: string, cause?: unknown): DataError {
  const remedy = 'the row is left out; mend the line to have it';
  return new DataError({ where, expected, received, remedy }, { cause });
}

async function openFiles(
  options: JsonlReadOptions,
  signal: AbortSignal,
  afresh = false,
): Promise<LineIndex[]> {
  const files: LineIndex[] = [];
  for (const path of await expandGlobs(options.files))
    files.push(await lineIndex(path, options, signal, afresh));
  if (files.some(({ stretches }) => stretches.length > 0)) return files;
  throw new DataError({
    where: files.map(({ path }) => path).join(', '),
    expected: 'at least one row',
    received: 'none',
    remedy: 'name files that hold data',
  });
}

/** What a line takes beside its bytes. */
const BYTES_A_LINE = 128;

function chunksOf(files: readonly LineIndex[]): StretchChunk[] {
  return files.flatMap((file) =>
    file.stretches.map((stretch, index) => {
      const { start, end, numRows, tooLong } = stretch;
      const bytes = (tooLong ? 0 : end - start) + BYTES_A_LINE * numRows;
      return { file, index, stretch, numRows, bytes };
    }),
  );
}
