// What a page claims, held against what it has: before hyparquet decodes it, and allocates what is claimed.

import type {
  CompressionCodec,
  DataReader,
  DecodedArray,
  PageHeader,
  ParquetType,
  SchemaTree,
} from 'hyparquet';
import { deltaBinaryUnpack } from 'hyparquet/src/delta.js';
import { getMaxDefinitionLevel, getMaxRepetitionLevel } from 'hyparquet/src/schema.js';
import { messageOf } from '../errors.js';
import { scanRuns } from './parquet-runs.js';

/** Where a leaf column of one row group lies, and how it is written. */
export interface ColumnChunk {
  /** From the root to the leaf. */
  readonly schemaPath: readonly SchemaTree[];
  readonly type: ParquetType;
  readonly codec: CompressionCodec;
  /** First byte of its pages in the file. */
  readonly start: number;
  /** Bytes of its pages. */
  readonly size: number;
  /** Values, nulls and levels of empty lists included. */
  readonly numValues: number;
}

/** Bytes that decoding may still take. */
export class Budget {
  readonly #limit: number;
  #left: number;

  constructor(limit: number) {
    this.#limit = limit;
    this.#left = limit;
  }

  /** @throws {RangeError} when `bytes` more are too many */
  charge(bytes: number, what: string): void {
    if (!(bytes >= 0)) throw new RangeError(`${what} of ${bytes} bytes`);
    if (bytes > this.#left) {
      throw new RangeError(
        `${what} of ${bytes} bytes with ${this.#left} of ${this.#limit} left for its row group`,
      );
    }
    this.#left -= bytes;
  }
}

/** What a decoded value takes beside its bytes: two levels, a slot, a list around it. */
export const BYTES_A_VALUE = 32;
/** @throws {RangeError} when the page cannot hold the dictionary that its header announces */
export function checkDictionary(
  { view }: DataReader,
  { dictionary_page_header }: PageHeader,
  chunk: ColumnChunk,
): void {
  if (!dictionary_page_header) throw new Error('a dictionary page without its header');
  checkPlain(chunk, dictionary_page_header.num_values, view.byteLength);
}

/** What a decoder's error says of the file; its own slips over fields of the wrong kind say nothing. */
export function decodingReason(cause: unknown): string {
  return cause instanceof TypeError ? 'fields that contradict each other' : messageOf(cause);
}

/** Checks a decompressed data page: its levels, and what its values claim.
 *  @returns how many values it holds, nulls and empty lists included
 *  @throws {Error} saying what does not fit */
export function checkData(
  { view }: DataReader,
  header: PageHeader,
  chunk: ColumnChunk,
  dictionary: DecodedArray | undefined,
  budget: Budget,
): number {
  const page = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const v1 = header.type === 'DATA_PAGE' ? header.data_page_header : undefined;
  const v2 = header.type === 'DATA_PAGE_V2' ? header.data_page_header_v2 : undefined;
  const described = v1 ?? v2;
  if (!described) throw new Error(`a page of type ${header.type} without its header`);
  const count = described.num_values;
  if (!(count >= 0)) throw new RangeError(`${count} values`);
  budget.charge(count * BYTES_A_VALUE, `${count} values`);

  const repetition = getMaxRepetitionLevel([...chunk.schemaPath]);
  const definition = getMaxDefinitionLevel([...chunk.schemaPath]);
  let offset = 0;
  function levels(top: number, length: number | undefined): number {
    if (top === 0) {
      offset += length ?? 0; // some writers put levels there all the same
      return count;
    }
    const size = length ?? runsLength(view, offset);
    const start = offset + (length === undefined ? 4 : 0);
    offset = start + size;
    const { max, numTop } = scanRuns(page, start, offset, 32 - Math.clz32(top), count, top);
    if (max > top) throw new RangeError(`a level of ${max} where ${top} is the deepest`);
    return numTop;
  }
  levels(repetition, v2?.repetition_levels_byte_length);
  const numPresent = levels(definition, v2?.definition_levels_byte_length);
  if (v2) {
    offset = v2.repetition_levels_byte_length + v2.definition_levels_byte_length;
    if (v2.num_values - v2.num_nulls !== numPresent) {
      throw new RangeError(`${numPresent} values where its header says ${v2.num_values - v2.num_nulls}`);
    }
  }
  checkValues(page, offset, described.encoding, chunk, numPresent, v1 !== undefined, dictionary, budget);
  return count;
}

function checkValues(
  page: Uint8Array,
  start: number,
  encoding: string,
  chunk: ColumnChunk,
  count: number,
  isV1: boolean,
  dictionary: DecodedArray | undefined,
  budget: Budget,
): void {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  switch (encoding) {
    case 'PLAIN':
    case 'BYTE_STREAM_SPLIT':
      return checkPlain(chunk, count, page.length - start);
    case 'RLE':
      if (chunk.type !== 'BOOLEAN') throw new Error(`values of type ${chunk.type} in runs`);
      scanRuns(page, start + 4, start + 4 + runsLength(view, start), 1, count, -1);
      return;
    case 'PLAIN_DICTIONARY':
    case 'RLE_DICTIONARY': {
      if (!dictionary) throw new Error('values from a dictionary, and there is none');
      if (count === 0) return;
      const width = view.getUint8(start);
      // Of no bits, all are entry 0; version 1 pages then have no runs, or none that hyparquet reads.
      const max = isV1 && width === 0 ? 0 : scanRuns(page, start + 1, page.length, width, count, -1).max;
      if (max >= dictionary.length) {
        throw new RangeError(`entry ${max} of a dictionary of ${dictionary.length}`);
      }
      return;
    }
    case 'DELTA_BYTE_ARRAY': {
      // Each value repeats the beginning of the one before: a few bytes can stand for very many.
      const reader = { view, offset: start };
      const lengths = new Int32Array(count);
      let total = 0;
      for (let part = 0; part < 2; part++) {
        deltaBinaryUnpack(reader, count, lengths);
        for (const length of lengths) total += length;
      }
      return budget.charge(total, 'values');
    }
    default:
      return; // other encodings hold no more values than are announced, and hyparquet names those it does not know
  }
}

function runsLength(view: DataView, offset: number): number {
  if (offset + 4 > view.byteLength) throw new RangeError('it ends before its levels');
  return view.getUint32(offset, true);
}

/** @throws {RangeError} when `count` plain values cannot lie in so few bytes */
function checkPlain({ type, schemaPath }: ColumnChunk, count: number, bytes: number): void {
  const width =
    type === 'FIXED_LEN_BYTE_ARRAY' ? (schemaPath.at(-1)!.element.type_length ?? 0) : PLAIN_BYTES[type];
  if (!(count >= 0 && count * width <= bytes)) {
    throw new RangeError(`${count} values of at least ${width} bytes in ${bytes}`);
  }
}

/** The fewest bytes that a value takes. */
const PLAIN_BYTES: Readonly<Record<Exclude<ParquetType, 'FIXED_LEN_BYTE_ARRAY'>, number>> = {
  BOOLEAN: 1 / 8,
  INT32: 4,
  INT64: 8,
  INT96: 12,
  FLOAT: 4,
  DOUBLE: 8,
  BYTE_ARRAY: 4,
};
