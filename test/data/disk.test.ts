// Disks that fail for a moment, and files that change while they are read.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Source } from '../../src/flow/index.js';
import { jsonl, parquet } from '../../src/index.js';
import { disk } from '../../src/data/local-file.js';
import { type Retried, isPassing, onRetry, retry } from '../../src/retry.js';
import { type ColourRow, colourRows, temporaryFolder, writeRows } from '../train/job.js';
import { only, runJob } from '../train/run-job.js';

afterEach(() => void vi.restoreAllMocks());

const failure = (code: string): Error => Object.assign(new Error(`${code}: injected`), { code });

/** Opens files whose `method` fails as often as `codes` say, in all. */
function failing(method: 'open' | 'read' | 'stat', codes: string[]): void {
  const open = disk.open;
  vi.spyOn(disk, 'open').mockImplementation(async (path) => {
    if (method === 'open' && codes.length > 0) throw failure(codes.shift()!);
    const handle = await open(path);
    if (method === 'open') return handle;
    return new Proxy(handle, {
      get: (target, key) => {
        const found: unknown = Reflect.get(target, key);
        if (typeof found !== 'function') return found;
        if (key === method && codes.length > 0) return () => Promise.reject(failure(codes.shift()!));
        return found.bind(target) as unknown;
      },
    });
  });
}

async function rowsOf(source: Source<unknown>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const item of source.open(new AbortController().signal)) {
    if ('error' in item) throw item.error;
    found.push(item.value);
  }
  return found;
}

describe('retry', () => {
  const quick = { where: 'here', firstMs: 1 };

  it('does again what fails for a reason that passes, each time after twice the wait', async () => {
    const told: Retried[] = [];
    const end = onRetry((retried) => told.push(retried));
    let calls = 0;
    const work = (): number => {
      if (++calls < 4) throw failure('EIO');
      return calls;
    };
    expect(await retry(work, { ...quick, random: () => 0.5 })).toBe(4);
    end();
    await retry(() => (++calls < 6 ? Promise.reject(failure('EAGAIN')) : 0), quick);
    expect(told.map(({ where, attempt, attempts, waitMs }) => [where, attempt, attempts, waitMs])).toEqual([
      ['here', 1, 5, 0.75],
      ['here', 2, 5, 1.5],
      ['here', 3, 5, 3],
    ]);
  });

  it('gives up after its attempts, and at once on what will not pass', async () => {
    const busy = vi.fn(() => Promise.reject(failure('EBUSY')));
    await expect(retry(busy, { ...quick, attempts: 3 })).rejects.toThrow('EBUSY: injected');
    expect(busy).toHaveBeenCalledTimes(3);
    for (const code of ['ENOENT', 'EACCES', 'EISDIR', 'EINVAL']) {
      const gone = vi.fn(() => Promise.reject(failure(code)));
      await expect(retry(gone, quick)).rejects.toThrow(code);
      expect(gone).toHaveBeenCalledOnce();
    }
    expect(isPassing(Object.assign(new Error('stale'), { errno: -116 }))).toBe(true);
    expect(isPassing(undefined)).toBe(false);
  });

  it('stops waiting when it is aborted, with the reason', async () => {
    const controller = new AbortController();
    const begun = performance.now();
    const waiting = retry(() => Promise.reject(failure('EIO')), {
      where: 'here',
      firstMs: 60_000,
      signal: controller.signal,
    });
    setTimeout(() => controller.abort(new Error('enough')), 10);
    await expect(waiting).rejects.toThrow('enough');
    expect(performance.now() - begun).toBeLessThan(5000);
  });
});

describe('a disk that fails for a moment', () => {
  it.each(['open', 'read', 'stat'] as const)('in %s costs no row', async (method) => {
    const rows = await colourRows(4);
    const path = writeRows(join(temporaryFolder(), 'rows.parquet'), rows);
    const codes = ['EIO', 'ESTALE'];
    failing(method, codes);
    expect(await rowsOf(parquet(path))).toHaveLength(4);
    expect(codes).toEqual([]);
  });

  it('costs no line either, compressed or not', async () => {
    const fixture = new URL('../../fixtures/jsonl/rows.jsonl.zst', import.meta.url).pathname;
    const whole = await rowsOf(jsonl(fixture));
    const path = join(temporaryFolder(), 'rows.jsonl');
    fs.writeFileSync(path, whole.map((row) => `${JSON.stringify(row)}\n`).join(''));
    for (const file of [fixture, path]) {
      const codes = ['EIO', 'ETIMEDOUT'];
      failing('read', codes);
      expect(await rowsOf(jsonl(file, { chunkLines: file === path ? 7 : 11 }))).toEqual(whole);
      expect(codes).toEqual([]);
      vi.restoreAllMocks();
    }
  });

  it('is told as a notice of the run', async () => {
    const codes: string[] = [];
    failing('read', codes);
    const { error, events, result } = await runJob({
      rows: await colourRows(8),
      batchSize: 2,
      change: (spec) => ({
        ...spec,
        source: {
          name: 'watched',
          open: (signal: AbortSignal) => {
            codes.push('EIO'); // the device and the sinks are there by now
            return (spec['source'] as Source<unknown>).open(signal);
          },
        },
      }),
    });
    expect(error).toBeUndefined();
    expect(result!.end.ledger.trained).toBe(8);
    expect(only(events, 'notice')).toEqual([
      {
        event: 'notice',
        row: expect.stringMatching(/rows\.parquet, byte \d+$/) as string,
        stage: 'read',
        message: expect.stringMatching(
          /^EIO: injected: tried again after 0\.\d\d s \(attempt 2 of 5\)$/,
        ) as string,
      },
    ]);
  });

  it('for good fails with what the disk said', async () => {
    const path = writeRows(join(temporaryFolder(), 'rows.parquet'), await colourRows(4));
    failing(
      'open',
      Array.from({ length: 5 }, () => 'EIO'),
    );
    await expect(rowsOf(parquet(path))).rejects.toThrow(
      `${path}: expected a readable Parquet file, received EIO: injected; correct the path or the disk`,
    );
  });
});

describe('a Parquet file that changes during the run', () => {
  const changes: Record<string, (path: string, rows: ColourRow[]) => void> = {
    rewritten: (path, rows) => void writeRows(path, rows.toReversed(), 8),
    truncated: (path) => fs.truncateSync(path, 300),
    replaced: (path, rows) => {
      writeRows(`${path}.new`, rows.slice(1), 8);
      fs.renameSync(`${path}.new`, path);
    },
    removed: (path) => fs.rmSync(path),
  };

  it.each(Object.keys(changes))(
    'and is %s ends it by name, and nothing of the other file is given',
    async (how) => {
      const rows = (await colourRows(64)).map((row, i) => ({ ...row, answer: `row ${i}` }));
      const path = writeRows(join(temporaryFolder(), 'rows.parquet'), rows, 8);
      const given: string[] = [];
      const reading = (async () => {
        for await (const item of parquet<ColourRow>(path).open(new AbortController().signal)) {
          if ('error' in item) throw item.error;
          given.push(item.value.answer);
          if (given.length === 9) changes[how]!(path, rows);
        }
      })();
      await expect(reading).rejects.toThrow(
        how === 'removed'
          ? `${path}: expected a readable Parquet file, received no such file; correct the path`
          : new RegExp(
              `^${path}: expected the file that the run began with, of \\d+ bytes, received one of \\d+ bytes, written since`,
            ),
      );
      expect(given).toEqual(Array.from({ length: given.length }, (_, i) => `row ${i}`));
      expect(given.length).toBeLessThan(64);
    },
  );

  it('while a row group is being read ends it too', async () => {
    const path = writeRows(join(temporaryFolder(), 'rows.parquet'), await colourRows(64), 8);
    const open = disk.open;
    let opened = 0;
    vi.spyOn(disk, 'open').mockImplementation(async (given) => {
      const handle = await open(given);
      if (++opened !== 4) return handle;
      return new Proxy(handle, {
        get: (target, key) => {
          const found: unknown = Reflect.get(target, key);
          if (typeof found !== 'function') return found;
          if (key !== 'read') return found.bind(target) as unknown;
          return async (...args: unknown[]) => {
            const result: unknown = await (found as (...given: unknown[]) => Promise<unknown>).apply(
              target,
              args,
            );
            fs.writeFileSync(path, fs.readFileSync(path).fill(0xaa, 100, 200));
            return result;
          };
        },
      });
    });
    await expect(rowsOf(parquet(path))).rejects.toThrow('written since');
  });
});
