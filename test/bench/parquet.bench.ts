// Rows of Parquet files a second, as objects that own their bytes; beside pyarrow's `to_pylist` in the same run.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { parquetWriteFile } from 'hyparquet-writer';
import { it } from 'vitest';
import { parquet } from '../../src/data/parquet.js';
import { type BenchRow, median, printTable, pythonWith, runPython } from './table.js';

const ROUNDS = 5;

it('reading Parquet', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  try {
    const photos = join(folder, 'photos.parquet');
    writePhotos(photos);
    const jobs = [
      { name: 'easy-vqa train.parquet, 4,000 small images', file: 'fixtures/easy-vqa/train.parquet' },
      { name: '400 images of 250 kB in 10 row groups', file: photos },
    ];
    const python = pythonWith('pyarrow');
    const rows: BenchRow[] = [];
    for (const { name, file } of jobs) {
      const megabytes = statSync(file).size / 1e6;
      const runs = { ours: [] as number[], shuffled: [] as number[], hyparquet: [] as number[] };
      let numRows = 0;
      for (let round = 0; round <= ROUNDS; round++) {
        numRows = await readOurs(file, runs.ours);
        await readOurs(file, runs.shuffled, { seed: round });
        await readWhole(file, runs.hyparquet);
      }
      const theirs = python
        ? median(runPython<{ seconds: number[] }>(python, './parquet.py', [file, String(ROUNDS)]).seconds)
        : undefined;
      const speed = (seconds: number): string =>
        `${(numRows / seconds).toFixed(0)} rows/s, ${(megabytes / seconds).toFixed(0)} MB/s`;
      for (const [how, times] of Object.entries(runs)) {
        const ours = median(times.slice(1)); // the first warms up
        rows.push({
          name: `${name}${{ ours: '', shuffled: ', shuffled', hyparquet: ', hyparquet alone, whole file held' }[how]}`,
          ours: speed(ours),
          ...(theirs === undefined ? {} : { reference: speed(theirs), ratio: theirs / ours }),
        });
      }
    }
    printTable('Reading Parquet, beside pyarrow to Python objects', rows);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 600_000);

async function readOurs(file: string, times: number[], shuffle?: { seed: number }): Promise<number> {
  const begun = performance.now();
  let count = 0;
  const source = parquet(file, shuffle ? { shuffle } : {});
  for await (const item of source.open(new AbortController().signal)) {
    if ('error' in item) throw item.error;
    count++;
  }
  times.push((performance.now() - begun) / 1000);
  return count;
}

async function readWhole(file: string, times: number[]): Promise<void> {
  const begun = performance.now();
  await parquetReadObjects({ file: await asyncBufferFromFile(file), compressors, utf8: false });
  times.push((performance.now() - begun) / 1000);
}

/** Bytes that do not compress, as photographs are. */
function writePhotos(file: string): void {
  let state = 1;
  const images = Array.from({ length: 400 }, () => {
    const words = new Uint32Array(62_500);
    for (let i = 0; i < words.length; i++)
      words[i] = state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return new Uint8Array(words.buffer);
  });
  const questions = images.map((_, i) => `what is in picture ${i}?`);
  parquetWriteFile({
    filename: file,
    rowGroupSize: 40,
    statistics: false,
    columnData: [
      { name: 'image', data: images, type: 'BYTE_ARRAY' },
      { name: 'question', data: questions, type: 'STRING' },
    ],
  });
}
