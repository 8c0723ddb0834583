// The messages of an Arrow file or stream: where record batches and dictionaries lie, and what they take, from their
// headers alone. https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc

import { MessageHeader } from 'apache-arrow';
import { Message } from 'apache-arrow/fb/message';
import { DictionaryBatch } from 'apache-arrow/fb/dictionary-batch';
import { RecordBatch } from 'apache-arrow/fb/record-batch';
import { Schema } from 'apache-arrow/fb/schema';
import { ByteBuffer } from 'flatbuffers';
import { DataError, messageOf } from '../errors.js';
import { verifyLengths, verifySchema } from './arrow-verify.js';
import type { OpenFile } from './open-file.js';

/** One message with its body, as it lies in the file. */
export interface Block {
  readonly start: number;
  /** Of prefix, header and body. */
  readonly length: number;
}

/** What a message's header says. */
export type Header =
  | { readonly kind: 'schema' | 'other'; readonly block: Block }
  | {
      readonly kind: 'dictionary';
      readonly block: Block;
      readonly id: bigint;
      readonly isDelta: boolean;
      readonly bytes: number;
    }
  | {
      readonly kind: 'batch';
      readonly block: Block;
      readonly numRows: number;
      /** The body's, decompressed. */
      readonly bytes: number;
    };

/** More than any real header has, and less than would hurt. */
const MAX_HEADER_BYTES = 2 ** 26;
const FIRST_READ = 4096;

/** Reads the header of the message that begins at `start`.
 *  @param end of the part of the file that messages may lie in
 *  @returns undefined at the end of the stream
 *  @throws {DataError} when there is no message, or it does not fit the file */
export async function readHeader(file: OpenFile, start: number, end: number): Promise<Header | undefined> {
  if (start === end) return undefined; // a writer that was not closed leaves no mark of the end
  let head = await file.read(start, Math.min(FIRST_READ, end - start));
  const prefix = new DataView(head.buffer);
  const continued = head.length >= 4 && prefix.getInt32(0, true) === -1;
  const prefixBytes = continued ? 8 : 4; // before Arrow 0.15 the length stood alone
  if (head.length < prefixBytes) throw cut(file, `${head.length} bytes after byte ${start}`);
  const headerBytes = prefix.getInt32(prefixBytes - 4, true);
  if (headerBytes === 0) return undefined;
  if (headerBytes < 0 || headerBytes > MAX_HEADER_BYTES) {
    throw damaged(file, `a header of ${headerBytes} bytes at byte ${start}`);
  }
  if (start + prefixBytes + headerBytes > end) {
    throw cut(file, `a header at byte ${start} that goes on behind it`);
  }
  if (prefixBytes + headerBytes > head.length) head = await file.read(start, prefixBytes + headerBytes);

  const message = parsing(file, start, () =>
    Message.getRootAsMessage(new ByteBuffer(head.subarray(prefixBytes, prefixBytes + headerBytes))),
  );
  const bodyBytes = Number(message.bodyLength());
  const block = { start, length: prefixBytes + headerBytes + bodyBytes };
  if (bodyBytes < 0) throw damaged(file, `a body of ${bodyBytes} bytes at byte ${start}`);
  if (start + block.length > end) throw cut(file, `a message at byte ${start} that goes on behind it`);

  const type = message.headerType();
  if (type === MessageHeader.Schema) {
    parsing(file, start, () => verifySchema(message.header(new Schema()) as Schema, headerBytes));
    return { kind: 'schema', block };
  }
  if (type === MessageHeader.RecordBatch) {
    const batch = parsing(file, start, () => message.header(new RecordBatch()) as RecordBatch | null);
    if (!batch) throw damaged(file, `no record batch at byte ${start}`);
    const numRows = Number(batch.length());
    const bytes = await decodedBytes(file, batch, block, bodyBytes, headerBytes);
    parsing(file, start, () => verifyLengths(batch, bytes));
    return { kind: 'batch', block, numRows, bytes };
  }
  if (type === MessageHeader.DictionaryBatch) {
    const dictionary = parsing(
      file,
      start,
      () => message.header(new DictionaryBatch()) as DictionaryBatch | null,
    );
    const data = dictionary?.data();
    if (!dictionary || !data) throw damaged(file, `no dictionary at byte ${start}`);
    const bytes = await decodedBytes(file, data, block, bodyBytes, headerBytes);
    parsing(file, start, () => verifyLengths(data, bytes));
    return { kind: 'dictionary', block, id: dictionary.id(), isDelta: dictionary.isDelta(), bytes };
  }
  return { kind: 'other', block };
}

/** What a batch's buffers take when decompressed: the bytes before each say. */
async function decodedBytes(
  file: OpenFile,
  batch: RecordBatch,
  block: Block,
  bodyBytes: number,
  headerBytes: number,
): Promise<number> {
  // A header lists its buffers and columns in 16 bytes each: more would be read from beyond it.
  const [numBuffers, numNodes] = [batch.buffersLength(), batch.nodesLength()];
  if (16 * (numBuffers + numNodes) > headerBytes) {
    throw damaged(file, `${numBuffers} buffers of ${numNodes} columns in a header of ${headerBytes} bytes`);
  }
  const compressed = batch.compression() !== null;
  const bodyStart = block.start + block.length - bodyBytes;
  let bytes = compressed ? 0 : bodyBytes;
  for (let i = 0; i < numBuffers; i++) {
    const buffer = batch.buffers(i)!;
    const [offset, length] = [Number(buffer.offset()), Number(buffer.length())];
    if (!(offset >= 0 && length >= 0 && offset + length <= bodyBytes)) {
      throw damaged(file, `a buffer of ${length} bytes at byte ${offset} of a body of ${bodyBytes}`);
    }
    if (!compressed || length === 0) continue;
    if (length < 8) throw damaged(file, `a compressed buffer of ${length} bytes`);
    const prefix = await file.read(bodyStart + offset, 8);
    const announced = Number(new DataView(prefix.buffer).getBigInt64(0, true));
    if (announced < -1) throw damaged(file, `a buffer of ${announced} bytes`);
    bytes += announced === -1 ? length - 8 : announced;
  }
  return bytes;
}

function parsing<T>(file: OpenFile, start: number, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw damaged(file, `a header at byte ${start} that cannot be read (${messageOf(cause)})`, cause);
  }
}

export function damaged(file: OpenFile, received: string, cause?: unknown): DataError {
  return new DataError(
    {
      where: file.path,
      expected: 'Arrow messages one after another',
      received,
      remedy: 'the file is damaged: fetch or write it again',
    },
    { cause },
  );
}

function cut(file: OpenFile, received: string): DataError {
  return new DataError({
    where: file.path,
    expected: `whole Arrow messages in its ${file.stamp.size} bytes`,
    received,
    remedy: 'it is truncated: fetch or write it again',
  });
}
