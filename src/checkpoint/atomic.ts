// Files and folders that appear whole or not at all: written beside their place, synced, then renamed into it.
// What a crash leaves behind is named ".NAME.partial-PID-RANDOM" (half-written) or ".NAME.replaced-PID-RANDOM" (the
// folder of before, while it is exchanged); the next save tidies both once that process is gone.

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CheckpointError } from '../errors.js';
import { writeFault } from './faults.js';

/** Writes a file whole or not at all.
 *  @throws {CheckpointError} what was at `path` before is then still there */
export async function replaceFile(
  path: string,
  write: (handle: fs.FileHandle) => Promise<void>,
): Promise<void> {
  const beside = besideOf(path);
  try {
    await withFile(beside, write);
    await fs.rename(beside, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await fs.rm(beside, { force: true });
    throw writeFault(path, error);
  }
}

/** Creates a file, has it written, and syncs it. */
export async function withFile(path: string, write: (handle: fs.FileHandle) => Promise<void>): Promise<void> {
  const handle = await fs.open(path, 'w');
  try {
    await write(handle);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes all of `bytes` at the handle's position; one call of write may take fewer. */
export async function writeAll(handle: fs.FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}

/** Fills a new folder and puts it into the place of `folder`, whose parents are made. Of a folder that was there
 *  before, the entries that the new one lacks are kept, those excepted that `isStale` names.
 *
 *  A folder that cannot be renamed, such as a mount point, is filled inside instead: then each file is replaced whole,
 *  after the stale ones are gone, and `last` is missing until all others are in place.
 *  @param fill writes into the folder that it is given; may run twice
 *  @throws {CheckpointError} what was there before is then still there */
export async function replaceFolder(
  folder: string,
  fill: (beside: string) => Promise<void>,
  options: ReplaceOptions = {},
): Promise<void> {
  try {
    const existing = await fs.realpath(folder).catch(() => undefined);
    const place = existing ?? resolve(folder);
    if (existing === undefined) await makeFolders(dirname(place));
    if (await canSwap(place, existing !== undefined)) await swapIn(place, fill, options);
    else await fillInside(place, fill, options);
  } catch (error) {
    throw writeFault(folder, error);
  }
}

export interface ReplaceOptions {
  /** Names of earlier entries that must not outlive the new ones. */
  readonly isStale?: (name: string) => boolean;
  /** The file without which a reader takes the folder for incomplete. */
  readonly last?: string;
}

/** Removes a folder. It is renamed first, so that a removal cut off leaves nothing that looks like a checkpoint. */
export async function removeFolder(folder: string): Promise<void> {
  const away = besideOf(folder);
  try {
    await fs.rename(folder, away);
    await syncFolder(dirname(folder));
    await fs.rm(away, { recursive: true });
  } catch (error) {
    throw writeFault(folder, error);
  }
}

/** Tidies what dead processes left in `folder`: removes what they wrote half, finishes what they were exchanging. */
export async function tidyLeftovers(folder: string, options: ReplaceOptions = {}): Promise<void> {
  for (const name of await fs.readdir(folder).catch(() => [] as string[])) {
    const [, target, kind, pid] = /^\.(.+)\.(partial|replaced)-(\d+)-[0-9a-f]{8}$/.exec(name) ?? [];
    const path = join(folder, name);
    if (target === undefined || (await isInUse(path, Number(pid)))) continue;
    if (kind === 'partial') await fs.rm(path, { recursive: true, force: true });
    else if (await exists(join(folder, target))) await keepOthers(path, join(folder, target), options);
    else await fs.rename(path, join(folder, target));
  }
}

/** Makes renames in a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function besideOf(path: string, kind: 'partial' | 'replaced' = 'partial'): string {
  return join(dirname(path), `.${basename(path)}.${kind}-${process.pid}-${randomBytes(4).toString('hex')}`);
}

/** Whether a folder beside `place` can be renamed into it: same disk, and the parent can be written. */
async function canSwap(place: string, isThere: boolean): Promise<boolean> {
  const parent = dirname(place);
  if (!isThere) return true;
  if ((await fs.stat(place)).dev !== (await fs.stat(parent)).dev) return false;
  return fs.access(parent, fs.constants.W_OK).then(
    () => true,
    () => false,
  );
}

async function swapIn(
  place: string,
  fill: (beside: string) => Promise<void>,
  options: ReplaceOptions,
): Promise<void> {
  const parent = dirname(place);
  await tidyLeftovers(parent, options);
  const beside = besideOf(place);
  try {
    await fs.mkdir(beside);
    await fill(beside).catch((error: unknown) => {
      throw aboutPlace(error, beside, place);
    });
    await syncFolder(beside);
    const before = await fs.readdir(place).catch(() => [] as string[]);
    if (before.length === 0) {
      await fs.rename(beside, place);
    } else {
      const old = besideOf(place, 'replaced');
      await fs.rename(place, old);
      try {
        await fs.rename(beside, place);
      } catch (error) {
        await fs.rename(old, place);
        throw error;
      }
      await keepOthers(old, place, options);
    }
    await syncFolder(parent);
  } finally {
    await fs.rm(beside, { recursive: true, force: true });
  }
}

/** The folder that is written beside is gone when its error is read. */
function aboutPlace(error: unknown, beside: string, place: string): unknown {
  if (!(error instanceof CheckpointError) || !error.message.includes(beside)) return error;
  return new CheckpointError(error.message.replaceAll(beside, place), { cause: error.cause });
}

/** Moves into `place` the entries of its predecessor that it lacks and that are not stale, and removes the rest. */
async function keepOthers(old: string, place: string, { isStale }: ReplaceOptions): Promise<void> {
  const now = new Set(await fs.readdir(place));
  for (const name of await fs.readdir(old)) {
    if (!now.has(name) && !isStale?.(name)) await fs.rename(join(old, name), join(place, name));
  }
  await syncFolder(place);
  await fs.rm(old, { recursive: true, force: true });
}

async function fillInside(
  place: string,
  fill: (beside: string) => Promise<void>,
  { isStale, last }: ReplaceOptions,
): Promise<void> {
  await tidyLeftovers(place);
  const inside = besideOf(join(place, 'checkpoint'));
  try {
    await fs.mkdir(inside);
    await fill(inside);
    const names = (await fs.readdir(inside)).sort((a, b) => Number(a === last) - Number(b === last));
    for (const name of await fs.readdir(place)) {
      if (name === last || (isStale?.(name) && !names.includes(name))) await fs.rm(join(place, name));
    }
    for (const name of names) await fs.rename(join(inside, name), join(place, name));
    await syncFolder(place);
  } finally {
    await fs.rm(inside, { recursive: true, force: true });
  }
}

/** Makes a folder and its parents. Not mkdir's own `recursive`, which never ends below /proc. */
async function makeFolders(folder: string): Promise<void> {
  if (await exists(folder)) return;
  if (dirname(folder) !== folder) await makeFolders(dirname(folder));
  await fs.mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

async function exists(path: string): Promise<boolean> {
  return fs.access(path).then(
    () => true,
    () => false,
  );
}

/** Whether the process that wrote a leftover still runs. Another process may bear our number from before we began. */
async function isInUse(path: string, pid: number): Promise<boolean> {
  if (pid === process.pid) {
    const beganMs = Date.now() - process.uptime() * 1000;
    return ((await fs.stat(path).catch(() => undefined))?.mtimeMs ?? 0) >= beganMs;
  }
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
