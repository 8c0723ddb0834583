// Where the lines of a JSON-lines file lie: found by one scan, kept in memory while the process lives.

import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { DataError } from '../errors.js';
import { foreignFormat } from './foreign-format.js';
import { compressionOf, textBytes, type Compression } from './jsonl-bytes.js';
import { OpenFile, type Stamp } from './open-file.js';
import { isRemote } from './remote-url.js';

/** Lines that lie together. */
export interface Stretch {
  /** Bytes [start, end) of the text. */
  readonly start: number;
  readonly end: number;
  /** Number of its first line in the file, from 0. */
  readonly firstLine: number;
  /** Lines that are not empty. */
  readonly numRows: number;
  /** Set where it is a single line that is too long to be read. */
  readonly tooLong?: boolean;
}

export interface LineIndex {
  /** What it is opened by. */
  readonly source: string;
  /** For messages and origins. */
  readonly path: string;
  readonly stamp: Stamp;
  readonly compression: Compression;
  readonly stretches: readonly Stretch[];
  /** sha256 of the text. */
  readonly digest: string;
}

export interface IndexOptions {
  readonly chunkLines: number;
  readonly maxLineBytes: number;
}

/** A stretch ends behind the line with which it reaches so many bytes. */
const STRETCH_BYTES = 2 ** 20;
const MAX_KEPT = 10_000;
const kept = new Map<string, LineIndex>();

/** Reads the file through, unless this process has already.
 *  @throws {DataError} when the file is missing, unreadable or by its beginning no text of a line an object */
export async function lineIndex(
  path: string,
  options: IndexOptions,
  signal: AbortSignal,
  afresh = false,
): Promise<LineIndex> {
  await using file = await OpenFile.open(path, 'file of JSON lines', { signal, afresh });
  const place = isRemote(path) ? path : resolve(path);
  const key = JSON.stringify([place, file.stamp, options.chunkLines, options.maxLineBytes]);
  const known = kept.get(key);
  if (known) return { ...known, source: path, path: file.path };
  const index = await scan(path, file, options, signal);
  // What a writer has changed meanwhile is told by the stamp when lines are read.
  if (kept.size >= MAX_KEPT) kept.delete(kept.keys().next().value!);
  kept.set(key, index);
  return index;
}

async function scan(
  source: string,
  file: OpenFile,
  { chunkLines, maxLineBytes }: IndexOptions,
  signal: AbortSignal,
): Promise<LineIndex> {
  const { path, stamp } = file;
  const compression = await compressionOf(file);
  const hash = createHash('sha256');
  const stretches: Stretch[] = [];
  let open = { start: 0, firstLine: 0, numRows: 0 };
  let line = 0;
  let lineStart = 0;
  let at = 0; // of the piece, in the text
  let last = 0;

  function endStretch(end: number, nextLine: number): void {
    if (open.numRows > 0) stretches.push({ ...open, end });
    open = { start: end, firstLine: nextLine, numRows: 0 };
  }

  /** A line of `length` bytes, its end excluded, which the next follows at `next`. */
  function endLine(length: number, blank: boolean, next: number): void {
    if (length > maxLineBytes) {
      endStretch(lineStart, line);
      stretches.push({ start: lineStart, end: next, firstLine: line, numRows: 1, tooLong: true });
      open = { start: next, firstLine: line + 1, numRows: 0 };
    } else if (!blank) {
      open.numRows++;
    }
    line++;
    lineStart = next;
    if (line - open.firstLine >= chunkLines || next - open.start >= STRETCH_BYTES) endStretch(next, line);
  }

  for await (const piece of textBytes(source, compression, signal)) {
    if (at === 0) assertJsonLines(path, piece);
    hash.update(piece);
    for (let from = 0; ;) {
      const found = piece.indexOf(0x0a, from);
      if (found < 0) break;
      const length = at + found - lineStart;
      const before = found > 0 ? piece[found - 1] : last;
      endLine(length, length === 0 || (length === 1 && before === 0x0d), at + found + 1);
      from = found + 1;
    }
    at += piece.length;
    last = piece.at(-1) ?? last;
  }
  if (at > lineStart) endLine(at - lineStart, at - lineStart === 1 && last === 0x0d, at);
  endStretch(at, line);
  return { source, path, stamp, compression, stretches, digest: hash.digest('hex') };
}

/** Whole files that are something else are refused: a fault a line would say less. */
function assertJsonLines(path: string, piece: Uint8Array): void {
  const head = Buffer.from(piece.subarray(0, 4096));
  const foreign = foreignFormat(head, /^$/);
  const text = head.toString('utf8').replace(/^\ufeff/, '');
  const received =
    foreign?.name ??
    (head.includes(0)
      ? 'bytes that are no text'
      : /^\s*\[/.test(text)
        ? 'a JSON array'
        : /^\s*\{\s*\r?\n/.test(text)
          ? 'a JSON object over several lines'
          : undefined);
  if (received === undefined) return;
  throw new DataError({
    where: path,
    expected: 'text with a JSON object on each line',
    received,
    remedy: foreign?.remedy ?? 'write it again, a line an object (jq -c)',
  });
}
