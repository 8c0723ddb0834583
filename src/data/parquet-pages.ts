// From the bytes of a column chunk to its values, page by page. hyparquet decodes; this side decompresses, and checks
// first what hyparquet would believe: sizes, counts, runs, dictionary indices, checksums. Whatever a file claims, no more
// is allocated than the budget of its row group allows.

import { setImmediate as yieldToEvents } from 'node:timers/promises';
import * as zlib from 'node:zlib';
import type {
  CompressionCodec,
  DataReader,
  DecodedArray,
  PageHeader,
  ParquetType,
  SchemaTree,
} from 'hyparquet';
import { parquetHeader, readPage } from 'hyparquet/src/column.js';
import { convert, DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { deltaBinaryUnpack } from 'hyparquet/src/delta.js';
import { getMaxDefinitionLevel, getMaxRepetitionLevel } from 'hyparquet/src/schema.js';
import { flatten } from 'hyparquet/src/utils.js';
import { BadCell } from './cells.js';
import { decompress } from './parquet-codecs.js';
import { scanRuns } from './parquet-runs.js';
import { skipStruct } from './parquet-thrift.js';

type ColumnDecoder = Parameters<typeof readPage>[2];

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
/** The event loop gets a turn after so many decoded bytes. */
const YIELD_BYTES = 4 * 2 ** 20;

/** Decodes all pages of a chunk.
 *  @param bytes the chunk, `size` bytes
 *  @returns one entry a row, lists nested as hyparquet's `assembleNested` takes them
 *  @throws {Error} saying which page is wrong, and how */
export async function decodeChunk(
  bytes: Uint8Array,
  chunk: ColumnChunk,
  budget: Budget,
  signal: AbortSignal,
): Promise<DecodedArray> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = columnDecoder(chunk);
  const pieces: DecodedArray[] = [];
  let dictionary: DecodedArray | undefined;
  let last: DecodedArray | undefined;
  let numValues = 0;
  let offset = 0;
  let sinceYield = 0;

  for (let page = 0; numValues < chunk.numValues; page++) {
    try {
      if (offset >= bytes.length) {
        throw new RangeError(`the chunk ends after ${numValues} of ${chunk.numValues} values`);
      }
      const reader = { view, offset };
      const dataOffset = skipStruct(view, offset);
      const header = parquetHeader(reader);
      const stored = storedBytes(bytes, dataOffset, header);
      offset = dataOffset + stored.length;
      if (header.type === 'INDEX_PAGE') continue;

      const { reader: pageReader, header: pageHeader } = openPage(stored, header, chunk, budget);
      sinceYield += pageHeader.uncompressed_page_size;
      if (header.type === 'DICTIONARY_PAGE') {
        checkDictionary(pageReader, pageHeader, chunk);
        const { data } = readPage(pageReader, pageHeader, decoder, undefined, undefined, 0);
        dictionary = convert(data ?? [], decoder);
      } else {
        numValues += checkData(pageReader, pageHeader, chunk, dictionary, budget);
        const { data } = readPage(pageReader, pageHeader, decoder, dictionary, last, 0);
        // A page that continues a list, or nulls, are appended to the piece before.
        if (data && data !== last && data.length > 0) {
          pieces.push(data);
          last = data;
        }
      }
    } catch (cause) {
      throw new Error(`page ${page}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
    if (sinceYield > YIELD_BYTES) {
      sinceYield = 0;
      await yieldToEvents();
      signal.throwIfAborted();
    }
  }
  return flatten(pieces);
}

function columnDecoder({ schemaPath, type }: ColumnChunk): ColumnDecoder {
  const leaf = schemaPath.at(-1)!;
  return {
    pathInSchema: leaf.path,
    type,
    element: leaf.element,
    schemaPath: [...schemaPath],
    codec: 'UNCOMPRESSED', // pages are decompressed before hyparquet gets them
    parsers: { ...DEFAULT_PARSERS, stringFromBytes, jsonFromBytes: stringFromBytes },
    utf8: false,
  };
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

function stringFromBytes(bytes: Uint8Array | undefined): unknown {
  try {
    return bytes && utf8.decode(bytes);
  } catch {
    return new BadCell('a string that is not UTF-8');
  }
}

function storedBytes(
  bytes: Uint8Array,
  offset: number,
  { compressed_page_size, crc }: PageHeader,
): Uint8Array {
  if (!(compressed_page_size >= 0 && compressed_page_size <= bytes.length - offset)) {
    throw new RangeError(`${compressed_page_size} bytes where its chunk has ${bytes.length - offset} left`);
  }
  const stored = bytes.subarray(offset, offset + compressed_page_size);
  // Node has crc32 since 20.15.
  if (crc !== undefined && 'crc32' in zlib && zlib.crc32(stored) !== crc >>> 0) {
    throw new Error('its checksum is wrong: the bytes have changed since they were written');
  }
  return stored;
}

interface OpenPage {
  readonly reader: DataReader;
  /** Describes the decompressed page. */
  readonly header: PageHeader;
}

function openPage(stored: Uint8Array, header: PageHeader, { codec }: ColumnChunk, budget: Budget): OpenPage {
  budget.charge(header.uncompressed_page_size, 'a page');
  const v2 = header.data_page_header_v2;
  if (header.type === 'DATA_PAGE_V2' && v2) {
    // Levels come first and are never compressed.
    const levels = v2.repetition_levels_byte_length + v2.definition_levels_byte_length;
    if (!(v2.repetition_levels_byte_length >= 0 && v2.definition_levels_byte_length >= 0)) {
      throw new RangeError('levels of less than 0 bytes');
    }
    if (levels > stored.length || levels > header.uncompressed_page_size) {
      throw new RangeError(`levels of ${levels} bytes in a page of ${stored.length}`);
    }
    const values = decompress(
      v2.is_compressed === false ? 'UNCOMPRESSED' : codec,
      stored.subarray(levels),
      header.uncompressed_page_size - levels,
    );
    const page = new Uint8Array(levels + values.length);
    page.set(stored.subarray(0, levels));
    page.set(values, levels);
    return plainPage(page, { ...header, data_page_header_v2: { ...v2, is_compressed: false } });
  }
  return plainPage(decompress(codec, stored, header.uncompressed_page_size), header);
}

function plainPage(page: Uint8Array, header: PageHeader): OpenPage {
  return {
    reader: { view: new DataView(page.buffer, page.byteOffset, page.byteLength), offset: 0 },
    header: { ...header, compressed_page_size: page.length, uncompressed_page_size: page.length },
  };
}

function checkDictionary(
  { view }: DataReader,
  { dictionary_page_header }: PageHeader,
  chunk: ColumnChunk,
): void {
  if (!dictionary_page_header) throw new Error('a dictionary page without its header');
  checkPlain(chunk, dictionary_page_header.num_values, view.byteLength);
}

/** @returns how many values the page holds */
function checkData(
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
    if (top === 0) return count;
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
