// metadata.jsonl and metadata.csv: columns beside media, each row bound to its file by `file_name`, a path from the folder
// that the metadata lie in. As Hugging Face's imagefolder and audiofolder have them.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DataError } from '../errors.js';
import { setField } from './cells.js';
import { pathBeside, type Listed } from './folder-list.js';
import { parseLine } from './jsonl-rows.js';

/** A row of a metadata file. */
export interface MetadataRow {
  /** The metadata file's path in the folder. */
  readonly file: string;
  /** Number in it, from 0. */
  readonly row: number;
  /** Of the media that it is about; the metadata file's own where that cannot be told. */
  readonly path: string;
  readonly cells: Readonly<Record<string, unknown>>;
  readonly error?: Error;
}

const MAX_BYTES = 2 ** 28;

/** @throws {DataError} when the file is too large to be held, is no UTF-8, or has no `file_name` */
export async function readMetadata(dir: string, { path, stamp }: Listed): Promise<MetadataRow[]> {
  const where = join(dir, path);
  if (path.endsWith('.parquet') || stamp.size > MAX_BYTES) {
    throw new DataError({
      where,
      expected: `metadata.jsonl or metadata.csv of at most ${MAX_BYTES} bytes`,
      received: path.endsWith('.parquet') ? 'metadata.parquet' : `${stamp.size} bytes`,
      remedy: 'write the media into Parquet files with it, and read those with parquet(...)',
    });
  }
  const bytes = await readFile(where);
  return path.endsWith('.csv') ? csvRows(bytes, path, where) : jsonRows(bytes, path, where);
}

function jsonRows(bytes: Buffer, file: string, where: string): MetadataRow[] {
  const rows: MetadataRow[] = [];
  const start = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  for (let from = start, row = 0; from < bytes.length; row++) {
    const found = bytes.indexOf(0x0a, from);
    const end = found < 0 ? bytes.length : found;
    const line = bytes.subarray(from, end);
    from = end + 1;
    if (line.length === 0 || (line.length === 1 && line[0] === 0x0d)) continue;
    const at = `${where}, line ${row + 1}`;
    try {
      rows.push(boundRow(parseLine(line, at), file, row, at));
    } catch (error) {
      rows.push({ file, row, path: file, cells: {}, error: error as Error });
    }
  }
  return rows;
}

function csvRows(bytes: Buffer, file: string, where: string): MetadataRow[] {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    const fault = {
      where,
      expected: 'UTF-8 text',
      received: 'bytes that are none',
      remedy: 'write it as UTF-8',
    };
    throw new DataError(fault, { cause });
  }
  const [names, ...records] = parseCsv(text, where);
  if (!names?.cells.includes('file_name')) {
    throw new DataError({
      where,
      expected: 'a column file_name',
      received: names ? `columns ${names.cells.join(', ')}` : 'an empty file',
      remedy: 'name the columns in the first line, file_name among them',
    });
  }
  return records.map(({ cells, line }, row) => {
    const at = `${where}, line ${line}`;
    try {
      if (cells.length !== names.cells.length) {
        throw new DataError({
          where: at,
          expected: `${names.cells.length} cells, as the first line has`,
          received: `${cells.length}`,
          remedy: 'the row is left out; put cells that hold commas in quotes',
        });
      }
      const object: Record<string, unknown> = {};
      names.cells.forEach((name, i) => setField(object, name, cells[i]));
      return boundRow(object, file, row, at);
    } catch (error) {
      return { file, row, path: file, cells: {}, error: error as Error };
    }
  });
}

/** @throws {DataError} when the row names no file in the folder, or a column that is the media's own */
function boundRow(row: Record<string, unknown>, file: string, number: number, where: string): MetadataRow {
  const { file_name: name, ...cells } = row;
  const path = typeof name === 'string' && name !== '' ? pathBeside(file, name) : undefined;
  const own = ['image', 'audio'].find((column) => Object.hasOwn(cells, column));
  if (path !== undefined && own === undefined) return { file, row: number, path, cells };
  throw new DataError({
    where,
    expected: own ? 'no column of the name that the media have' : 'a file_name in the folder',
    received: own ? `a column ${own}` : JSON.stringify(name ?? null).slice(0, 80),
    remedy: 'the row is left out; mend it to have it',
  });
}

interface CsvRecord {
  readonly cells: readonly string[];
  /** That it begins on, from 1. */
  readonly line: number;
}

/** RFC 4180: commas, quotes that are doubled inside quotes, line breaks inside quotes. Empty lines are passed over. */
export function parseCsv(text: string, where: string): CsvRecord[] {
  const records: CsvRecord[] = [];
  const cell = /"((?:[^"]|"")*)"|([^",\r\n]*)/y;
  let line = 1;
  for (let at = 0; at < text.length;) {
    const begins = line;
    const cells: string[] = [];
    for (;;) {
      cell.lastIndex = at;
      const found = cell.exec(text)!;
      at = cell.lastIndex;
      cells.push(found[1]?.replaceAll('""', '"') ?? found[2]!);
      line += found[0].split('\n').length - 1;
      if (text[at] !== ',') break;
      at++;
    }
    const end = /\r?\n|$/y;
    end.lastIndex = at;
    if (!end.test(text)) {
      throw new DataError({
        where: `${where}, line ${line}`,
        expected: 'a comma or the end of the line after a cell',
        received: JSON.stringify(text.slice(at, at + 20)),
        remedy: 'put cells that hold quotes in quotes, and double those inside',
      });
    }
    at = Math.max(end.lastIndex, at);
    line++;
    if (cells.length > 1 || cells[0] !== '') records.push({ cells, line: begins });
  }
  return records;
}
