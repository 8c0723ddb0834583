// The one idempotent step that makes the addon ready: find or fetch the engine, compile, try it, note the result.
// A second call finds the note and does nothing.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, SetupError } from '../errors.js';
import { cacheFolder, withLock, type Env } from './cache.js';
import { compileAddon, planBuild, SourcesChanged } from './compile.js';
import { findCompiler } from './compiler.js';
import { cachedEngine, findEngine, type Engine } from './engine.js';
import { fetchEngine } from './fetch.js';
import { freshNote, takeMarks, writeNote, type Note } from './note.js';
import { silentLog, type SetupLog } from './progress.js';
import { foreignLibrary, librariesScript } from './verify.js';

export interface SetupOptions {
  readonly log?: SetupLog;
  readonly env?: Env;
  readonly signal?: AbortSignal;
  /** Look everything up again instead of trusting the note of the last set-up. */
  readonly thorough?: boolean;
}

/** Makes the addon ready. Safe to call from several processes at once: one works, the others wait.
 *  @returns the path of the addon
 *  @throws {SetupError} naming what is missing and how to get it */
export async function ensureAddon(options: SetupOptions = {}): Promise<string> {
  return (await ensureSetup(options)).addon;
}

/** As ensureAddon, with the engine chosen. */
export async function ensureSetup({
  log = silentLog,
  env = process.env,
  signal,
  thorough = false,
}: SetupOptions = {}): Promise<Note> {
  const known = thorough ? undefined : freshNote(env);
  if (known) return known;
  const onWait = (pid: number): void => log.line(`Waiting for the set-up of process ${pid}`);
  const lock = join(cacheFolder(env), 'setup.lock');
  try {
    return await withLock(lock, () => setUp(log, env, signal, thorough), { signal, onWait });
  } catch (error) {
    throw diskFault(error, env) ?? error;
  }
}

function diskFault(error: unknown, env: Env): SetupError | undefined {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (!['ENOSPC', 'EDQUOT', 'EACCES', 'EPERM', 'EROFS'].includes(code)) return undefined;
  return new SetupError(
    {
      where: `cache folder ${cacheFolder(env)}`,
      expected: 'room and permission to write',
      received: messageOf(error),
      remedy: 'free or unlock it, or name another with SLUICE_CACHE',
    },
    { cause: error },
  );
}

async function setUp(
  log: SetupLog,
  env: Env,
  signal: AbortSignal | undefined,
  thorough: boolean,
): Promise<Note> {
  const known = thorough ? undefined : freshNote(env); // another process may have finished meanwhile
  if (known) return known;
  const compiler = findCompiler(env); // first, since fetching is long
  const build = async (engine: Engine): Promise<Note> => {
    const marks = takeMarks(engine, compiler);
    const plan = planBuild(engine, compiler, env);
    const existed = fs.existsSync(plan.addon);
    try {
      const addon = await compileAddon(plan, { log, env, signal });
      await tryAddon(addon, engine, env);
      return writeNote({ engine, compiler, addon }, marks, env);
    } catch (error) {
      // An addon that was there and does not load is gone now: make it anew.
      if (error instanceof SourcesChanged || (existed && error instanceof UnusableEngine))
        return build(engine);
      throw error;
    }
  };
  const found = findEngine(env, (reason) => log.line(reason));
  if (!found) return build(await fetchEngine({ log, env, signal }));
  if (found.origin !== 'python') return build(found);
  try {
    return await build(found);
  } catch (error) {
    if (!(error instanceof UnusableEngine)) throw error;
    log.line(`Python's torch ${found.version} in ${found.root} is not used: ${error.message}`);
    return build(cachedEngine(env) ?? (await fetchEngine({ log, env, signal })));
  }
}

class UnusableEngine extends SetupError {}

/** Loads the addon in a process of its own, so that a broken engine cannot harm this one. */
async function tryAddon(addon: string, engine: Engine, env: Env): Promise<void> {
  const script = `process.dlopen({ exports: {} }, process.argv[1]);${librariesScript}`;
  let libraries: string[];
  try {
    const args = ['-e', script, addon];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env, maxBuffer: 1e8 });
    libraries = JSON.parse(stdout) as string[];
  } catch (cause) {
    fs.rmSync(addon, { force: true });
    const line = messageOf(cause)
      .split('\n')
      .find((text) => text.startsWith('Error:'));
    throw new UnusableEngine(
      {
        where: `addon set-up: loading ${addon}`,
        expected: `that libtorch ${engine.version} in ${engine.root} loads`,
        received: line ?? messageOf(cause),
        remedy: 'repair that torch, or set LIBTORCH to a whole one, then run "npx pipe setup"',
      },
      { cause },
    );
  }
  const fault = foreignLibrary(libraries, engine);
  if (fault) {
    fs.rmSync(addon, { force: true });
    throw new UnusableEngine(fault);
  }
}
