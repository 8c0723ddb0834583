// The cells of a quarantined row as a line of JSON can hold them and a Parquet column can be made of them: plain values as
// they are, the rest as JSON text, and nothing that is larger than a bound.

import { bytesOf, BadCell } from '../data/cells.js';

/** A value with its kind: text, a double, a truth value, a whole number of 64 bits, milliseconds of a date, bytes in
 *  base64, JSON text of anything else. */
export type Cell =
  | readonly ['text', string]
  | readonly ['double', number | string]
  | readonly ['bool', boolean]
  | readonly ['int', string]
  | readonly ['date', number]
  | readonly ['bytes', string]
  | readonly ['json', string];

/** The columns of a row. */
export interface Cells {
  readonly cells: Readonly<Record<string, Cell | null>>;
  /** Columns that are not among them, each with why. */
  readonly leftOut: readonly string[];
}

/** The most that one cell may weigh to be kept, and all cells of a row together. */
export const CELL_BYTES = 2 ** 20;
const ROW_BYTES = 2 ** 21;
/** More columns than a table for people has. */
const MAX_COLUMNS = 256;

/** @param row as its source gave it; what is no object of columns becomes one column `value` */
export function cellsOf(row: unknown): Cells {
  const cells: Record<string, Cell | null> = {};
  const leftOut: string[] = [];
  let room = ROW_BYTES;
  for (const [i, [name, value]] of columnsOf(row).entries()) {
    if (i >= MAX_COLUMNS) {
      leftOut.push(`${name} and what follows it: more than ${MAX_COLUMNS} columns`);
      break;
    }
    try {
      const bytes = bytesOf(value);
      if (bytes > Math.min(CELL_BYTES, room)) {
        leftOut.push(`${name}: ${bytes} bytes`);
        continue;
      }
      room -= bytes;
      Object.defineProperty(cells, name, { value: cellOf(value), enumerable: true });
    } catch (error) {
      leftOut.push(`${name}: ${error instanceof Error ? error.message.slice(0, 100) : 'unreadable'}`);
    }
  }
  return { cells, leftOut };
}

function columnsOf(row: unknown): [string, unknown][] {
  const isTable = typeof row === 'object' && row !== null && !Array.isArray(row) && !ArrayBuffer.isView(row);
  return isTable && !(row instanceof Date) ? Object.entries(row) : [['value', row]];
}

function cellOf(value: unknown): Cell | null {
  if (value === null || value === undefined || value instanceof BadCell) return null;
  if (typeof value === 'string') return ['text', value];
  if (typeof value === 'number') return ['double', Number.isFinite(value) ? value : String(value)];
  if (typeof value === 'boolean') return ['bool', value];
  if (typeof value === 'bigint') return ['int', String(value)];
  if (value instanceof Uint8Array) return ['bytes', base64(value)];
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : ['date', value.getTime()];
  return ['json', JSON.stringify(value, plain) ?? `a ${typeof value}`];
}

/** What JSON has no word for. Buffers are seen here as they were before their own `toJSON`. */
function plain(this: unknown, key: string, given: unknown): unknown {
  const value = (this as Record<string, unknown>)[key];
  if (value instanceof Uint8Array) return { base64: base64(value) };
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    return Array.from(value as unknown as ArrayLike<number | bigint>, (each) =>
      typeof each === 'bigint' ? String(each) : each,
    );
  }
  if (value instanceof BadCell) return null;
  return typeof given === 'bigint' ? String(given) : given;
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}
