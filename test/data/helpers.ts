// What the data tests share: reading a source to its end, and a folder that is removed afterwards.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetWriteFile } from 'hyparquet-writer';
import { onTestFinished } from 'vitest';
import type { Source, SourceFault, SourceItem } from '../../src/flow/types.js';

export const EASY_VQA = 'fixtures/easy-vqa';

/** All items of a source, faults among them. */
export async function readAll<T>(
  source: Source<T>,
  signal: AbortSignal = new AbortController().signal,
): Promise<(SourceItem<T> | SourceFault)[]> {
  const items: (SourceItem<T> | SourceFault)[] = [];
  for await (const item of source.open(signal)) items.push(item);
  return items;
}

/** All values of a source without faults. */
export async function readValues<T>(source: Source<T>): Promise<T[]> {
  return (await readAll(source)).map((item) => {
    if ('error' in item) throw item.error;
    return item.value;
  });
}

/** A source of these values, named items of one file; an `Error` among them is a fault. */
export function sourceOf<T>(values: readonly (T | Error)[], bytes = 10): Source<T> & { pulled: number } {
  const source = {
    name: 'test',
    pulled: 0,
    async *open(): AsyncGenerator<SourceItem<T> | SourceFault> {
      for (const [row, value] of values.entries()) {
        source.pulled++;
        const origin = { file: 'test', rowGroup: 0, row };
        yield value instanceof Error ? { error: value, bytes: 0, origin } : { value, bytes, origin };
      }
    },
  };
  return source;
}

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-data-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The message of the error that a promise is rejected with. */
export async function messageFrom(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: unknown) => (error instanceof Error ? `${error.name}: ${error.message}` : String(error)),
  );
}

/** Writes rows { id: 0.., blob } as Parquet, `rowGroupSize` rows a group; ids begin at `first`. */
export function writeRows(
  file: string,
  options: { numRows: number; rowGroupSize: number; first?: number; blobBytes?: number },
): void {
  const { numRows, rowGroupSize, first = 0, blobBytes = 4 } = options;
  const ids = Array.from({ length: numRows }, (_, i) => first + i);
  parquetWriteFile({
    filename: file,
    rowGroupSize,
    columnData: [
      { name: 'id', data: ids, type: 'INT32' },
      { name: 'blob', data: ids.map((id) => new Uint8Array(blobBytes).fill(id)), type: 'BYTE_ARRAY' },
    ],
  });
}

export interface IdRow {
  readonly id: number;
  readonly blob: Uint8Array;
}
