// A lock between processes: a file that names its owner and is touched while it works. One that died, or whose machine
// did, loses it.

import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

const heartbeatMs = 2_000;
const abandonedMs = 30_000;
const pollMs = 200;
/** What linking fails with where the file system cannot. */
const noLinks: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called once, with the owner's process id, when there is a wait. */
  readonly onWait?: (pid: number) => void;
}

/** A name in the same folder that no other process uses. */
export function besideOf(path: string): string {
  return `${path}.${process.pid}-${randomUUID().slice(0, 8)}.tmp`;
}

/** The JSON in a file, or undefined when there is none that can be read. */
export function readJson(path: string): unknown {
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

interface Owner {
  readonly pid: number;
  readonly host: string;
  readonly token: string;
  /** When the process began, in the kernel's ticks: tells a re-used process id from its first bearer. */
  readonly started: string;
}

/** Runs `work` while holding the lock file at `path`. Waits for a living owner; takes the lock over from one that died.
 *  Its folder must exist. */
export async function withLockFile<T>(
  path: string,
  work: () => Promise<T>,
  { signal, onWait }: LockOptions = {},
): Promise<T> {
  const me: Owner = {
    pid: process.pid,
    host: hostname(),
    token: randomUUID(),
    started: startOf(process.pid),
  };
  let waited = false;
  while (!tryTake(path, me)) {
    const owner = readJson(path) as Owner | undefined;
    if (isAbandoned(path, owner)) {
      breakLock(path, owner);
      continue;
    }
    if (!waited) onWait?.(owner?.pid ?? 0);
    waited = true;
    await sleep(pollMs, undefined, { signal });
  }
  const beat = setInterval(() => touch(path), heartbeatMs);
  beat.unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    if ((readJson(path) as Owner | undefined)?.token === me.token) fs.rmSync(path, { force: true });
  }
}

/** A link appears whole or not at all, so no reader ever sees an owner half-written. */
function tryTake(path: string, me: Owner): boolean {
  const beside = besideOf(path);
  fs.writeFileSync(beside, JSON.stringify(me));
  try {
    fs.linkSync(beside, path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST' && !noLinks.has(code ?? '')) throw error;
    return code !== 'EEXIST' && tryWrite(path, me);
  } finally {
    fs.rmSync(beside, { force: true });
  }
}

/** Where the file system has no links. */
function tryWrite(path: string, me: Owner): boolean {
  try {
    fs.writeFileSync(path, JSON.stringify(me), { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** True when the owner is dead, or has not touched the lock for half a minute (another machine's, or stopped). */
function isAbandoned(path: string, owner: Owner | undefined): boolean {
  let ageMs: number;
  try {
    ageMs = Date.now() - fs.statSync(path).mtimeMs;
  } catch {
    return false; // released meanwhile
  }
  if (ageMs > abandonedMs) return true;
  return owner !== undefined && owner.host === hostname() && startOf(owner.pid) !== owner.started;
}

/** Moves a dead owner's lock away. Should another process have taken it over meanwhile, its lock is put back. */
function breakLock(path: string, dead: Owner | undefined): void {
  const away = besideOf(path);
  try {
    fs.renameSync(path, away);
  } catch {
    return; // another process broke it first
  }
  const moved = readJson(away) as Owner | undefined;
  if (moved && dead && moved.token !== dead.token) {
    try {
      fs.linkSync(away, path);
    } catch {
      // a third process holds it now; both work, and the last rename wins whole
    }
  }
  fs.rmSync(away, { force: true });
}

/** A mark of the living process `pid`; empty when there is none. */
function startOf(pid: number): string {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? '' : (fields[19] ?? '');
  } catch {
    if (fs.existsSync('/proc/self/stat')) return '';
  }
  try {
    process.kill(pid, 0);
    return 'alive';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? 'alive' : '';
  }
}

function touch(path: string): void {
  try {
    const now = new Date();
    fs.utimesSync(path, now, now);
  } catch {
    // released or taken over
  }
}
