// The user's cache folder, where the engine and the addon live; see lock.ts for how one process at a time fills it.
// Nothing here is ever half-made: things are written beside their place and renamed into it.

import * as fs from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { messageOf, SetupError } from '../errors.js';
import { besideOf, type LockOptions, withLockFile } from '../lock.js';

export { besideOf, readJson } from '../lock.js';

export type Env = Readonly<Record<string, string | undefined>>;

/** `SLUICE_CACHE`, else `$XDG_CACHE_HOME/sluice`, else `~/.cache/sluice`. */
export function cacheFolder(env: Env = process.env): string {
  if (env.SLUICE_CACHE) return resolve(env.SLUICE_CACHE);
  if (env.XDG_CACHE_HOME) return resolve(env.XDG_CACHE_HOME, 'sluice');
  return join(env.HOME || homedir(), '.cache', 'sluice');
}

/** Makes a folder. @throws {SetupError} when it cannot be written */
export function makeFolder(folder: string): string {
  try {
    fs.mkdirSync(folder, { recursive: true });
    fs.accessSync(folder, fs.constants.W_OK);
    return folder;
  } catch (cause) {
    throw new SetupError(
      {
        where: `cache folder ${folder}`,
        expected: 'a folder that can be written',
        received: messageOf(cause),
        remedy: 'free or unlock it, or name another with SLUICE_CACHE',
      },
      { cause },
    );
  }
}

/** Writes a file whole or not at all. */
export function writeWhole(path: string, text: string): void {
  makeFolder(dirname(path));
  const beside = besideOf(path);
  fs.writeFileSync(beside, text);
  fs.renameSync(beside, path);
}

/** `withLockFile`, in a folder that is made. @throws {SetupError} when the folder cannot be written */
export async function withLock<T>(path: string, work: () => Promise<T>, options?: LockOptions): Promise<T> {
  makeFolder(dirname(path));
  return withLockFile(path, work, options);
}
