// Checks of the library's own structures before it reads them: it believes every length that it is told, and a damaged
// one makes it read, and keep, things without end.

import type { Field } from 'apache-arrow/fb/field';
import type { Footer } from 'apache-arrow/fb/footer';
import type { RecordBatch } from 'apache-arrow/fb/record-batch';
import type { Schema } from 'apache-arrow/fb/schema';

const MAX_DEPTH = 64;
/** Rows of a batch, or values of a column in it, that may take no bytes at all: a column of nulls. */
const FREE_VALUES = 2 ** 20;

/** @param bytes of the structure that the schema lies in: every field and every pair takes some
 *  @throws {RangeError} when it tells of more than that holds */
export function verifySchema(schema: Schema, bytes: number): void {
  let left = bytes / 4;

  function take(count: number, what: string): number {
    left -= count;
    if (!(count >= 0 && left >= 0)) throw new RangeError(`${count} ${what} in ${bytes} bytes`);
    return count;
  }

  function verifyField(field: Field | null, depth: number): void {
    if (!field) throw new RangeError('a field that is missing');
    if (depth > MAX_DEPTH) throw new RangeError(`fields that lie ${depth} deep`);
    take(field.customMetadataLength(), 'notes');
    const count = take(field.childrenLength(), 'fields in a field');
    for (let i = 0; i < count; i++) verifyField(field.children(i), depth + 1);
  }

  take(schema.customMetadataLength(), 'notes');
  const count = take(schema.fieldsLength(), 'fields');
  for (let i = 0; i < count; i++) verifyField(schema.fields(i), 0);
}

/** @throws {RangeError} when the footer tells of more than its bytes hold */
export function verifyFooter(footer: Footer, bytes: number): void {
  const blocks = footer.dictionariesLength() + footer.recordBatchesLength();
  if (!(24 * blocks <= bytes)) throw new RangeError(`${blocks} blocks in ${bytes} bytes`);
  const schema = footer.schema();
  if (!schema) throw new RangeError('no schema');
  verifySchema(schema, bytes);
}

/** @param bodyBytes decompressed
 *  @throws {RangeError} when the batch tells of more values than its body can hold, in a bit each */
export function verifyLengths(batch: RecordBatch, bodyBytes: number): void {
  const most = Math.max(8 * bodyBytes, FREE_VALUES);
  const check = (length: number): void => {
    if (!(length >= 0 && length <= most)) throw new RangeError(`${length} values in ${bodyBytes} bytes`);
  };
  check(Number(batch.length()));
  for (let i = 0; i < batch.nodesLength(); i++) check(Number(batch.nodes(i)!.length()));
}
