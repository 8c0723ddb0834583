// From the bytes of a column chunk to its values, page by page. hyparquet decodes; this side decompresses, and checks
// first what hyparquet would believe: sizes, counts, runs, dictionary indices, checksums. Whatever a file claims, no more
// is allocated than the budget of its row group allows.

import { setImmediate as yieldToEvents } from 'node:timers/promises';
import * as zlib from 'node:zlib';
import type { DataReader, DecodedArray, PageHeader } from 'hyparquet';
import { parquetHeader, readPage } from 'hyparquet/src/column.js';
import { convert, DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { flatten } from 'hyparquet/src/utils.js';
import { BadCell } from './cells.js';
import {
  checkData,
  checkDictionary,
  decodingReason,
  type Budget,
  type ColumnChunk,
} from './parquet-checks.js';
import { decompress } from './parquet-codecs.js';
import { skipStruct } from './parquet-thrift.js';

type ColumnDecoder = Parameters<typeof readPage>[2];

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
      throw new Error(`page ${page}: ${decodingReason(cause)}`, { cause });
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
    parsers: PARSERS,
    utf8: false,
  };
}

/** JSON stays text, shapes stay bytes (WKB): users parse them, and a broken one breaks its row alone. */
const PARSERS = {
  ...DEFAULT_PARSERS,
  stringFromBytes,
  jsonFromBytes: stringFromBytes,
  geometryFromBytes: (bytes: Uint8Array) => bytes,
  geographyFromBytes: (bytes: Uint8Array) => bytes,
};

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
  const size = Number(compressed_page_size);
  if (!(size >= 0 && size <= bytes.length - offset)) {
    throw new RangeError(`${size} bytes where its chunk has ${bytes.length - offset} left`);
  }
  const stored = bytes.subarray(offset, offset + size);
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
