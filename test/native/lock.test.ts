import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, utimesSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { makeFolder, withLock } from '../../src/native/cache.js';
import { machine, write } from './machine.js';

const lockFile = (): string => join(machine().folder, 'some/where.lock');

describe('the set-up lock', () => {
  it('is held by one at a time, and gone afterwards', async () => {
    const path = lockFile();
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await sleep(20);
      inside--;
    };
    await Promise.all([1, 2, 3].map(() => withLock(path, work)));
    expect(most).toBe(1);
    expect(existsSync(path)).toBe(false);
  });

  it('is gone after a failure too', async () => {
    const path = lockFile();
    await expect(withLock(path, () => Promise.reject(new Error('no luck')))).rejects.toThrow('no luck');
    expect(existsSync(path)).toBe(false);
  });

  it('a living owner is waited for, and said whose it is; a wait can be aborted', async () => {
    const path = lockFile();
    const waits: number[] = [];
    await withLock(path, async () => {
      const signal = AbortSignal.timeout(100);
      const second = withLock(path, async () => 'never', { signal, onWait: (pid) => waits.push(pid) });
      await expect(second).rejects.toThrow('abort');
    });
    expect(waits).toEqual([process.pid]);
  });

  it('of a process that died is taken over at once', async () => {
    const path = lockFile();
    const { pid } = spawnSync('true');
    write(path, JSON.stringify({ pid, host: hostname(), token: 'dead', started: '12345' }));
    expect(await withLock(path, async () => readFileSync(path, 'utf8'))).toContain(`"pid":${process.pid}`);
  });

  it('of a process whose id another one has now is taken over', async ({ skip }) => {
    if (!existsSync('/proc/self/stat')) skip('processes are told apart by /proc');
    const path = lockFile();
    write(path, JSON.stringify({ pid: process.pid, host: hostname(), token: 'dead', started: '1' }));
    expect(await withLock(path, async () => 'mine')).toBe('mine');
  });

  it('of another machine is respected while it is touched, and taken over when it is not', async () => {
    const path = lockFile();
    write(path, JSON.stringify({ pid: 1, host: 'elsewhere', token: 'far', started: '1' }));
    const signal = AbortSignal.timeout(50);
    await expect(withLock(path, async () => 'mine', { signal })).rejects.toThrow('abort');
    const longAgo = new Date(Date.now() - 60_000);
    utimesSync(path, longAgo, longAgo);
    expect(await withLock(path, async () => 'mine')).toBe('mine');
  });

  it('that is no JSON is taken over once it is old', async () => {
    const path = lockFile();
    write(path, '');
    const longAgo = new Date(Date.now() - 60_000);
    utimesSync(path, longAgo, longAgo);
    expect(await withLock(path, async () => 'mine')).toBe('mine');
  });
});

it('a cache folder that cannot be made is an error with a remedy', () => {
  const { folder } = machine();
  write(join(folder, 'file'), '');
  expect(() => makeFolder(join(folder, 'file/cache'))).toThrow(
    /^cache folder \S+\/file\/cache: expected a folder that can be written, received ENOTDIR.*; free or unlock it, or name another with SLUICE_CACHE$/,
  );
});
