// A Parquet file's footer, read with a bound on its size and walked before it is believed.

import { parquetMetadata, type FileMetaData } from 'hyparquet';
import { DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { DataError } from '../errors.js';
import type { OpenFile } from './open-file.js';
import { decodingReason } from './parquet-checks.js';
import { skipStruct } from './parquet-thrift.js';

const MAX_FOOTER_BYTES = 64 * 2 ** 20;
const MAGIC = 'PAR1';
/** Bounds of text stay bytes: where they were cut, they may be no text. */
const PARSERS = {
  ...DEFAULT_PARSERS,
  stringFromBytes: (bytes: Uint8Array | undefined) => bytes && new Uint8Array(bytes),
} as unknown as typeof DEFAULT_PARSERS;

/** @throws {DataError} when the file is not Parquet, encrypted, truncated, or its footer contradicts itself */
export async function readFooter(file: OpenFile): Promise<FileMetaData> {
  const { path } = file;
  const { size } = file.stamp;
  const head = latin1(await file.read(0, Math.min(size, 4)));
  const tail = await file.read(Math.max(size - 8, 0), Math.min(size, 8));
  const magic = latin1(tail.subarray(-4));
  if (head === 'PARE' || magic === 'PARE') {
    throw new DataError({
      where: path,
      expected: 'a Parquet file in the clear',
      received: 'an encrypted one',
      remedy: 'decrypt it first; encrypted Parquet is not supported',
    });
  }
  if (head !== MAGIC) {
    throw new DataError({
      where: path,
      expected: `a Parquet file, which begins with "${MAGIC}"`,
      received: size === 0 ? 'an empty file' : `${size} bytes that begin with ${JSON.stringify(head)}`,
      remedy: head.startsWith('vers')
        ? 'fetch it with git lfs pull'
        : 'name Parquet files only, or convert this one',
    });
  }
  const footerSize = size < 12 ? Infinity : new DataView(tail.buffer).getUint32(0, true);
  if (magic !== MAGIC || footerSize > size - 12) {
    throw new DataError({
      where: path,
      expected: `a footer and "${MAGIC}" at its end`,
      received:
        magic === MAGIC ? `a footer longer than its ${size} bytes` : `${size} bytes that end otherwise`,
      remedy: 'it is truncated: fetch or write it again',
    });
  }
  try {
    if (footerSize > MAX_FOOTER_BYTES) throw new RangeError(`it has ${footerSize} bytes`);
    const footer = await footerBytes(file, footerSize);
    skipStruct(new DataView(footer.buffer, 0, footerSize), 0);
    const metadata = parquetMetadata(footer.buffer as ArrayBuffer, { geoparquet: false, parsers: PARSERS });
    assertRows(metadata);
    return metadata;
  } catch (cause) {
    throw new DataError(
      {
        where: path,
        expected: 'a footer that can be read',
        received: decodingReason(cause),
        remedy: 'the file is damaged: fetch or write it again',
      },
      { cause },
    );
  }
}

/** The footer with the length and mark behind it. @param footerSize where it is known */
export async function footerBytes(file: OpenFile, footerSize?: number): Promise<Uint8Array> {
  const { size } = file.stamp;
  if (footerSize !== undefined) return file.read(size - 8 - footerSize, footerSize + 8);
  const tail = await file.read(Math.max(size - 8, 0), Math.min(size, 8));
  const announced = tail.length < 8 ? 0 : new DataView(tail.buffer).getUint32(0, true);
  return footerBytes(file, Math.min(announced, MAX_FOOTER_BYTES, Math.max(0, size - 12)));
}

/** (Some writers leave the file's own number of rows 0: that of its row groups counts.) */
function assertRows({ row_groups }: FileMetaData): void {
  for (const group of row_groups) {
    const rows = Number(group.num_rows);
    if (!(Number.isSafeInteger(rows) && rows >= 0)) throw new RangeError(`a row group of ${rows} rows`);
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}
