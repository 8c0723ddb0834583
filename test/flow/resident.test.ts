// The bound on memory, as memory: what the process really holds while the consumer is a hundred times slower than its source.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parquetWriteFile } from 'hyparquet-writer';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

interface Measured {
  readonly most: { readonly held: number; readonly resident: number };
  /** Medians over the values consumed. */
  readonly usual: { readonly held: number; readonly resident: number };
  readonly heldBytes: number;
  readonly peakBytes: number;
  readonly consumed: number;
  readonly consumeMs: number;
}

/** What the measurement leaves to the heap's pages and the allocator, in bytes. */
const ALLOWANCE = 12e6;

async function measure(options: {
  readonly file?: string;
  readonly options?: object;
  readonly poolBytes: number;
  readonly count: number;
  readonly slower?: number;
}): Promise<Measured> {
  const child = fileURLToPath(new URL('resident.child.mjs', import.meta.url));
  const args = ['--expose-gc', child, JSON.stringify({ slower: 100, ...options })];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return JSON.parse(stdout) as Measured;
}

/** The bound: the pool, and beside it what the source says that it keeps; 5 % more. While a source decodes a row group,
 *  which is a moment here, the file's bytes and pages of it are there as well; the allocator keeps that for the next one. */
function expectWithin({ most, usual, heldBytes, peakBytes }: Measured, poolBytes: number): void {
  expect(peakBytes).toBeLessThanOrEqual(poolBytes);
  expect(usual.held).toBeLessThanOrEqual(1.05 * (poolBytes + heldBytes));
  expect(most.held).toBeLessThanOrEqual(1.05 * (poolBytes + (1 + DECODING) * heldBytes));
  expect(most.resident).toBeLessThanOrEqual(1.05 * (poolBytes + (1 + DECODING) * heldBytes) + ALLOWANCE);
}

/** How many times what it keeps a source takes while it decodes: raw chunk, page, values. */
const DECODING = 3;

describe('memory while the consumer is a hundred times slower than the source', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-resident-'));
  const photos = join(folder, 'photos.parquet');
  beforeAll(() => writePhotos(photos));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is the pool, to 5 %, for rows of a megabyte', async () => {
    const measured = await measure({ poolBytes: 64e6, count: 40 });
    expectWithin(measured, 64e6);
    expect(measured.usual.held).toBeGreaterThan(60e6); // it is measured, and the pool is used
    expect(measured.consumed).toBe(40);
  });

  it('is the pool and the row groups that the source says it keeps, for photographs in Parquet', async () => {
    const measured = await measure({ file: photos, poolBytes: 16e6, count: 60, slower: 10 });
    expect(measured.heldBytes).toBeLessThan(10.1e6); // two row groups
    expectWithin(measured, 16e6);
    expect(measured.usual.held).toBeGreaterThan(20e6);
  });

  it('is the same with a shuffle, whose window it says', async () => {
    const options = { shuffle: { seed: 1, windowBytes: 10_100_000 } };
    const measured = await measure({ file: photos, options, poolBytes: 16e6, count: 60, slower: 10 });
    expect(measured.heldBytes).toBeLessThan(21e6);
    expectWithin(measured, 16e6);
  });

  it('is the same for small pictures', async () => {
    const file = fileURLToPath(new URL('../../fixtures/easy-vqa/train.parquet', import.meta.url));
    expectWithin(await measure({ file, poolBytes: 1e6, count: 100, slower: 2 }), 1e6);
  });
});

/** 100 rows of 250 kB that do not compress, as photographs are, in row groups of 5 MB. */
function writePhotos(file: string): void {
  let state = 1;
  const images = Array.from({ length: 100 }, () => {
    const words = new Uint32Array(62_500);
    for (let i = 0; i < words.length; i++)
      words[i] = state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return new Uint8Array(words.buffer);
  });
  parquetWriteFile({
    filename: file,
    rowGroupSize: 20,
    statistics: false,
    columnData: [{ name: 'image', data: images, type: 'BYTE_ARRAY' }],
  });
}
