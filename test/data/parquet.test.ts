// Order, epochs, shards, exploding and memory of the Parquet source.

import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ParquetFile } from '../../src/data/parquet-file.js';
import { parquet } from '../../src/data/parquet.js';
import { decode, z } from '../../src/schema.js';
import { make, part, withLeaf, type Part } from '../../src/parts.js';
import type { Source } from '../../src/flow/types.js';
import { EASY_VQA, readAll, readValues, temporaryFolder, writeRows, type IdRow } from './helpers.js';

let folder: string;
let files: string;

/** Three files of 50, 30 and 20 rows, ids 0 to 99, row groups of 8. */
beforeEach(() => {
  folder = temporaryFolder();
  files = join(folder, '*.parquet');
  writeRows(join(folder, 'a.parquet'), { numRows: 50, rowGroupSize: 8 });
  writeRows(join(folder, 'b.parquet'), { numRows: 30, rowGroupSize: 8, first: 50 });
  writeRows(join(folder, 'c.parquet'), { numRows: 20, rowGroupSize: 8, first: 80 });
});
afterEach(() => vi.restoreAllMocks());

const ids = async (source: Source<IdRow>): Promise<number[]> =>
  (await readValues(source)).map((row) => row.id);
const ALL = [...Array(100).keys()];
const sorted = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);

describe('order', () => {
  test('without shuffle rows come in the order of files and rows', async () => {
    expect(await ids(parquet<IdRow>(files))).toEqual(ALL);
  });

  test('an origin leads back to the row, also when shuffled', async () => {
    for (const item of await readAll(parquet<IdRow>(files, { shuffle: { seed: 3 } }))) {
      if ('error' in item) throw item.error;
      const { file, rowGroup, row } = item.origin;
      const first = { 'a.parquet': 0, 'b.parquet': 50, 'c.parquet': 80 }[file.slice(folder.length + 1)]!;
      expect(first + row).toBe(item.value.id);
      expect(rowGroup).toBe(Math.floor(row / 8));
    }
  });

  test('shuffled, every row comes exactly once an epoch, in another order each epoch', async () => {
    const read = await ids(parquet<IdRow>(files, { shuffle: { seed: 42 }, epochs: 3 }));
    const epochs = [0, 1, 2].map((epoch) => read.slice(epoch * 100, (epoch + 1) * 100));
    for (const epoch of epochs) {
      expect(sorted(epoch)).toEqual(ALL);
      expect(epoch).not.toEqual(ALL);
    }
    expect(new Set(epochs.map(String)).size).toBe(3);
  });

  test('the order is a function of seed and epoch', async () => {
    const read = (seed: number) => ids(parquet<IdRow>(files, { shuffle: { seed }, epochs: 2 }));
    expect(await read(42)).toEqual(await read(42));
    expect(await read(42)).not.toEqual(await read(43));
    const once = await ids(parquet<IdRow>(files, { shuffle: { seed: 42 } }));
    expect((await read(42)).slice(0, 100)).toEqual(once);
  });

  test('a data set of one window is permuted as a whole', async () => {
    const read = await ids(parquet<IdRow>(files, { shuffle: { seed: 1 } }));
    const fileOf = (id: number) => (id < 50 ? 0 : id < 80 ? 1 : 2);
    // In the first fifth of a uniform permutation all three files and most row groups occur.
    expect(new Set(read.slice(0, 20).map(fileOf)).size).toBe(3);
    expect(new Set(read.slice(0, 20).map((id) => Math.floor(id / 8))).size).toBeGreaterThan(6);
  });

  test('in small windows rows mix within a window, and row groups over all files', async () => {
    const { bytes, numRowGroups } = await parquet(files).plan();
    const windowBytes = Math.ceil((2.2 * bytes) / numRowGroups);
    const items = await readAll(parquet<IdRow>(files, { shuffle: { seed: 5, windowBytes } }));
    const groups = items.map(({ origin }) => `${origin.file} ${origin.rowGroup}`);
    // At most a few row groups are interleaved: each begins and ends within a few groups' length.
    for (const group of new Set(groups)) {
      expect(groups.lastIndexOf(group) - groups.indexOf(group)).toBeLessThan(5 * 8);
    }
    expect(sorted(items.map((item) => ('value' in item ? item.value.id : -1)))).toEqual(ALL);
    expect(new Set(items.slice(0, 40).map(({ origin }) => origin.file)).size).toBeGreaterThan(1);
  });

  test('read ahead or not, the order is the same', async () => {
    const read = (readAhead: boolean) =>
      ids(parquet<IdRow>(files, { shuffle: { seed: 8, windowBytes: 1 }, epochs: 2, readAhead }));
    expect(await read(true)).toEqual(await read(false));
  });

  test('epochs may be endless', async () => {
    let count = 0;
    for await (const item of parquet(files, { epochs: Infinity }).open(new AbortController().signal)) {
      if ('error' in item || ++count === 250) break;
    }
    expect(count).toBe(250);
  });
});

describe('shards', () => {
  test('interleaved again, they are the unsharded order', async () => {
    const options = { shuffle: { seed: 9, windowBytes: 600 }, epochs: 2 };
    const whole = await ids(parquet<IdRow>(files, options));
    const shards = await Promise.all(
      [0, 1, 2].map((shardIndex) => ids(parquet<IdRow>(files, { ...options, shardIndex, numShards: 3 }))),
    );
    // Over the edge of the epochs too: 100 rows are not a multiple of 3.
    expect(whole.map((_, i) => shards[i % 3]![Math.floor(i / 3)])).toEqual(whole);
    expect(shards.map((shard) => shard.length)).toEqual([67, 67, 66]);
  });
});

describe('explode', () => {
  interface Vqa {
    readonly images: readonly { readonly bytes: Uint8Array }[];
    readonly texts: readonly { readonly user: string; readonly assistant: string }[];
  }
  const questions = ({ images, texts }: Vqa) =>
    texts.map(({ user, assistant }) => ({ image: images[0]!.bytes, user, assistant }));

  test('makes one item of each turn, shuffled apart from its neighbours', async () => {
    const source = parquet(`${EASY_VQA}/test.parquet`, { shuffle: { seed: 1 }, explode: questions });
    const items = await readAll(source);
    expect(items.length).toBe(9673);
    const rows = items.map(({ origin }) => origin.row);
    expect(new Set(rows).size).toBe(1000);
    // Two neighbours are of the same image about once in a thousand, not nine times in ten.
    expect(rows.filter((row, i) => row === rows[i - 1]).length).toBeLessThan(50);
  });

  test('without shuffle, parts come in the order of rows and turns', async () => {
    const [plain, exploded] = await Promise.all([
      readValues(parquet<Vqa>(`${EASY_VQA}/test.parquet`)),
      readValues(parquet(`${EASY_VQA}/test.parquet`, { explode: questions })),
    ]);
    expect(exploded.map(({ user }) => user)).toEqual(
      plain.flatMap(({ texts }) => texts.map(({ user }) => user)),
    );
    expect(exploded.at(-1)!.image).toEqual(plain.at(-1)!.images[0]!.bytes);
  });

  test('each item owns its bytes, and weighs what it keeps', async () => {
    const [first, second] = await readAll(parquet(`${EASY_VQA}/test.parquet`, { explode: questions }));
    if (!('value' in first!) || !('value' in second!)) throw new Error('faults');
    expect(first.origin).toEqual(second.origin);
    expect(first.value.image.buffer).not.toBe(second.value.image.buffer);
    expect(first.value.image.buffer.byteLength).toBe(first.value.image.length);
    const { image, user, assistant } = first.value;
    expect(first.bytes).toBe(image.length + 2 * (user.length + assistant.length) + 3 * 8);
  });

  test('a row at which it throws is a fault, the others go on', async () => {
    const items = await readAll(
      parquet(files, {
        explode: (row: IdRow) => {
          if (row.id === 7) throw new Error('seven');
          return row.id === 8 ? [] : [row.id];
        },
      }),
    );
    expect(items.length).toBe(100);
    const faults = items.filter((item) => 'error' in item);
    expect(faults.map(({ error, origin }) => [origin.row, (error as Error).message])).toEqual([
      [7, 'seven'],
      [
        8,
        `${join(folder, 'a.parquet')}, row 8: expected at least one item from explode, received none; ` +
          'make one of each row, and leave items out by a filter in the flow, which counts them',
      ],
    ]);
  });
});

describe('memory and descriptors', () => {
  test('no more than one row group is read ahead of the rows that are taken', async () => {
    const read = vi.spyOn(ParquetFile.prototype, 'readRowGroup');
    const settle = () => new Promise((resolve) => setTimeout(resolve, 30));
    const iterator = parquet<IdRow>(files).open(new AbortController().signal)[Symbol.asyncIterator]();
    for (let row = 0; row < 40; row++) {
      await iterator.next();
      if (row % 7 === 0) await settle();
      expect(read.mock.calls.length).toBeLessThanOrEqual(Math.floor(row / 8) + 2);
    }
    await settle();
    expect(read.mock.calls.length).toBe(6);
    await iterator.return?.();
  });

  test('what is held stays near what the plan says, however large the file', async () => {
    const { gc } = globalThis;
    if (!gc) return console.warn('skipped: measuring needs node --expose-gc');
    const held = async (): Promise<number> => {
      for (let round = 0; round < 3; round++) {
        gc();
        await new Promise((resolve) => setTimeout(resolve, 10)); // buffers are freed beside the program
      }
      return process.memoryUsage().arrayBuffers;
    };
    const file = join(folder, 'large.parquet');
    writeRows(file, { numRows: 64, rowGroupSize: 2, blobBytes: 2 ** 20 }); // 32 groups of 2 MiB
    const source = parquet<IdRow>(file, { shuffle: { seed: 1, windowBytes: 5 * 2 ** 20 } });
    const { heldBytes, bytes } = await source.plan();
    expect(bytes).toBeGreaterThan(64 * 2 ** 20);
    expect(heldBytes).toBeLessThan(11 * 2 ** 20);
    const before = await held();
    let most = 0;
    let count = 0;
    for await (const item of source.open(new AbortController().signal)) {
      if ('error' in item) throw item.error;
      if (count++ % 8 !== 0) continue;
      most = Math.max(most, (await held()) - before); // the next window loads meanwhile
    }
    expect(count).toBe(64);
    // Beside both windows: the compressed chunk that is being read, and one row.
    expect(most).toBeLessThan(heldBytes + 6 * 2 ** 20);
  });

  test('a row keeps only its own bytes alive', async () => {
    const [row] = await readValues(parquet<IdRow>(files));
    expect(row!.blob.buffer.byteLength).toBe(4);
  });

  const canListDescriptors = existsSync('/proc/self/fd');
  function openDescriptors(): string[] {
    return readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)].filter((path) => path.startsWith(folder));
      } catch {
        return [];
      }
    });
  }

  test.skipIf(!canListDescriptors)('descriptors are closed at the end, on return and on abort', async () => {
    await readAll(parquet(files));
    expect(openDescriptors()).toEqual([]);

    for await (const item of parquet(files).open(new AbortController().signal)) {
      if (item.origin.row === 0) break; // the next row group is being read
    }
    expect(openDescriptors()).toEqual([]);

    const controller = new AbortController();
    const iterator = parquet(files).open(controller.signal)[Symbol.asyncIterator]();
    await iterator.next();
    controller.abort(new Error('enough'));
    await expect(iterator.next()).rejects.toThrow('enough');
    await iterator.return?.();
    expect(openDescriptors()).toEqual([]);
  });

  test('an abort while a row group is read ends the reading with the reason', async () => {
    const controller = new AbortController();
    const iterator = parquet(files).open(controller.signal)[Symbol.asyncIterator]();
    const first = iterator.next();
    controller.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
  });
});

describe('as a part of a pipeline file', () => {
  const SLOT = z.strictObject({ source: part('source') });

  test('it is its options, and makes the source', async () => {
    const source = parquet<IdRow>(files, { epochs: 2 });
    expect(JSON.parse(JSON.stringify(source))).toEqual({ kind: 'parquet', files, epochs: 2 });
    const made = make(
      decode(SLOT, { source }, 'job').source as Part<'source', undefined>,
      undefined,
    ) as Source<IdRow>;
    expect((await ids(made)).length).toBe(200);
  });

  test('--set reaches its options', async () => {
    const job = withLeaf(
      { source: parquet<IdRow>(files, { shuffle: { seed: 1 } }) },
      'source.shuffle.seed',
      2,
    );
    const made = make(
      decode(SLOT, job, 'job').source as Part<'source', undefined>,
      undefined,
    ) as Source<IdRow>;
    expect(await ids(made)).toEqual(await ids(parquet<IdRow>(files, { shuffle: { seed: 2 } })));
  });

  test('wrong options are told all at once, each with its path', () => {
    const wrong = { epochs: 0, shuffel: {}, columns: { id: 'int33' }, shardIndex: 3 } as object;
    expect(() => decode(SLOT, { source: parquet(files, wrong) }, 'job')).toThrowError(
      expect.objectContaining({
        code: 'CONFIG',
        message: expect.stringMatching(
          /source\.columns\.id: column type "int33".*\n.*source\.epochs: .*\n.*source\.shuffel/s,
        ) as string,
      }) as Error,
    );
  });

  test('a shard beyond the last is refused', () => {
    expect(() => parquet(files, { shardIndex: 2, numShards: 2 }).open(new AbortController().signal)).toThrow(
      'parquet: shardIndex: expected less than numShards, 2, received 2; correct this value',
    );
  });
});

test('the easy-VQA set is complete', async () => {
  const train = await parquet(`${EASY_VQA}/train.parquet`).plan();
  const test = await parquet(`${EASY_VQA}/test.parquet`).plan();
  expect([train.numRows, train.numRowGroups, test.numRows, test.numRowGroups]).toEqual([4000, 16, 1000, 4]);
});
