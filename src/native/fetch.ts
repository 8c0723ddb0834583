// Fetches the pinned libtorch into the cache with the user's pip, and unpacks what building and running need of it.
// Finished downloads outlive an interruption; unpacking starts over, beside its place, and is renamed when whole.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, SetupError } from '../errors.js';
import { besideOf, cacheFolder, makeFolder, type Env } from './cache.js';
import {
  cachedEngine,
  cachedEngineFolder,
  cpuLibrary,
  findPython,
  hasNvidiaGpu,
  pinnedTorch,
} from './engine.js';
import type { Engine } from './engine.js';
import { lastLine, runProgram } from './program.js';
import type { SetupLog } from './progress.js';
import { cpuPlan, gpuPlan, unpackScript } from './wheels.js';

interface FetchOptions {
  readonly log: SetupLog;
  readonly env: Env;
  readonly signal?: AbortSignal;
  /** Fetch CUDA's part too. */
  readonly gpu?: boolean;
}

/** Fetches the pinned engine. The caller holds the set-up's lock.
 *  @throws {SetupError} without Python, pip, network or disk, each with its remedy */
export async function fetchEngine({ log, env, signal, gpu = hasNvidiaGpu() }: FetchOptions): Promise<Engine> {
  const python = await pythonWithPip(env);
  const downloads = join(cacheFolder(env), 'downloads', `torch-${pinnedTorch}-${gpu ? 'cuda' : 'cpu'}`);
  makeFolder(downloads);
  const plan = gpu ? gpuPlan : cpuPlan;
  checkDisk(downloads, plan.diskBytes);
  log.line(`Fetching libtorch ${pinnedTorch}${gpu ? ' with CUDA' : ''} into ${cacheFolder(env)}`);
  await withoutHalves(downloads, async () => {
    for (const name of plan.packages) await download(name, downloads, python, { log, env, signal });
    await unpack(downloads, plan.keep, cachedEngineFolder(env, gpu), python, { log, env, signal });
  });
  fs.rmSync(downloads, { recursive: true, force: true });
  const engine = cachedEngine(env, gpu);
  if (engine) return engine;
  throw new SetupError({
    where: `engine set-up: ${cachedEngineFolder(env, gpu)}`,
    expected: `libtorch ${pinnedTorch} in the wheels`,
    received: 'none',
    remedy: 'remove that folder and run "npx pipe setup" again, or set LIBTORCH',
  });
}

/** A damaged wheel is thrown away and all is tried once more. */
async function withoutHalves(downloads: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!/BadZipFile|zlib\.error/.test(messageOf(error))) throw error;
    fs.rmSync(downloads, { recursive: true, force: true });
    makeFolder(downloads);
    await work();
  }
}

async function pythonWithPip(env: Env): Promise<string> {
  const python = findPython(env);
  const fault = {
    where: 'engine set-up',
    expected: `Python 3.10 or newer with pip, to fetch libtorch ${pinnedTorch}`,
    remedy:
      'install them with "apt-get install python3 python3-pip" or "dnf install python3 python3-pip", ' +
      'or set LIBTORCH to a libtorch on this machine; then run "npx pipe setup"',
  };
  if (!python) throw new SetupError({ ...fault, received: 'no python3 on PATH' });
  try {
    await promisify(execFile)(python, ['-m', 'pip', '--version'], { env, cwd: '/' });
    return python;
  } catch (cause) {
    throw new SetupError(
      { ...fault, received: `${python} without pip: ${lastLine(messageOf(cause))}` },
      { cause },
    );
  }
}

/** One package, into the folder of downloads; at once when it is there already. */
async function download(
  name: string,
  folder: string,
  python: string,
  { log, env, signal }: FetchOptions,
): Promise<void> {
  // A wheel in this folder is whole: it was moved here after its download.
  const start = name.replaceAll('-', '_').replace('==', '-');
  const isIt = (file: string): boolean =>
    /^[-+].*\.whl$/.test(file.slice(start.length)) && file.startsWith(start);
  if (fs.readdirSync(folder).some(isIt)) return;
  // pip's half-done files go into a folder of ours: there their growth is seen, and the next attempt sweeps them out.
  const parts = join(folder, 'parts');
  fs.rmSync(parts, { recursive: true, force: true });
  makeFolder(parts);
  const arrived = makeFolder(join(parts, 'arrived'));
  let total: number | undefined;
  const watch = setInterval(
    () => log.progress(`downloading ${name}`, wheelBytes(parts), total, 'bytes'),
    500,
  );
  const onLine = (line: string): void => {
    const size = /Downloading \S+\.whl \((\d+(?:\.\d+)?) (k|M|G)B\)/.exec(line);
    if (size) total = Number(size[1]) * { k: 1e3, M: 1e6, G: 1e9 }[size[2] as 'k' | 'M' | 'G'];
  };
  try {
    const flags = ['--no-deps', '--only-binary=:all:', '--dest', arrived];
    await pip(python, ['download', ...flags, name], {
      env: { ...env, TMPDIR: parts },
      signal,
      what: name,
      onLine,
    });
  } finally {
    clearInterval(watch);
  }
  for (const wheel of fs.readdirSync(arrived)) {
    const { size } = fs.statSync(join(arrived, wheel));
    fs.renameSync(join(arrived, wheel), join(folder, wheel));
    log.progress(`downloading ${name}`, size, size, 'bytes');
  }
  fs.rmSync(parts, { recursive: true, force: true });
}

async function unpack(
  downloads: string,
  keep: string,
  place: string,
  python: string,
  { log, env, signal }: FetchOptions,
): Promise<void> {
  const parent = makeFolder(join(cacheFolder(env), 'engine'));
  for (const name of fs.readdirSync(parent)) {
    if (name.endsWith('.tmp')) fs.rmSync(join(parent, name), { recursive: true, force: true });
  }
  const beside = makeFolder(besideOf(place));
  const onLine = (line: string): void => {
    const [done = 0, total = 0] = line.split(' ').map(Number);
    log.progress('unpacking', done, total, 'bytes');
  };
  const args = ['-c', unpackScript, downloads, beside, keep];
  const { code, stderr } = await runProgram(python, args, { cwd: '/', env, signal, onLine });
  if (code !== 0) {
    throw new SetupError({
      where: `engine set-up: unpacking into ${parent}`,
      expected: 'whole wheels and room for them',
      received: lastLine(stderr),
      remedy:
        'free disk space or name another cache folder with SLUICE_CACHE, then run "npx pipe setup" again',
    });
  }
  const library = fs.statSync(join(beside, 'torch/lib', cpuLibrary), { throwIfNoEntry: false });
  fs.writeFileSync(
    join(beside, 'engine.json'),
    JSON.stringify({ torch: pinnedTorch, cpuLibraryBytes: library?.size }),
  );
  fs.rmSync(place, { recursive: true, force: true });
  fs.renameSync(beside, place);
}

interface PipOptions {
  readonly env: Env;
  readonly signal: AbortSignal | undefined;
  readonly what: string;
  readonly onLine?: (line: string) => void;
}

async function pip(python: string, args: readonly string[], { env, signal, what, onLine }: PipOptions) {
  const quiet = { PIP_DISABLE_PIP_VERSION_CHECK: '1', PIP_NO_INPUT: '1', PIP_REQUIRE_VIRTUALENV: '0' };
  const settings = { ...env, ...quiet, PYTHONUNBUFFERED: '1' };
  const done = await runProgram(python, ['-m', 'pip', ...args], { cwd: '/', env: settings, signal, onLine });
  if (done.code === 0) return;
  const errors = done.stderr.split('\n').filter((line) => line.startsWith('ERROR:'));
  throw new SetupError({
    where: `engine set-up: pip ${args[0]} ${what}`,
    expected: 'a download from the package index',
    received: errors.slice(0, 3).join(' ') || lastLine(done.stderr) || `exit ${done.code}`,
    remedy:
      `check the network, the proxy, the free disk, and that ${python} is 3.10 or newer, then run "npx pipe setup" ` +
      'again; or set LIBTORCH to a libtorch on this machine',
  });
}

function checkDisk(folder: string, needed: number): void {
  const { bavail, bsize } = fs.statfsSync(folder);
  if (bavail * bsize >= needed) return;
  throw new SetupError({
    where: `engine set-up: ${folder}`,
    expected: `${(needed / 1e9).toFixed(0)} GB of free disk`,
    received: `${((bavail * bsize) / 1e9).toFixed(1)} GB`,
    remedy: 'free some, or name a cache folder on another disk with SLUICE_CACHE',
  });
}

function wheelBytes(folder: string): number {
  const names = fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.whl'));
  const sizes = names.map((name) => fs.statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0);
  return Math.max(0, ...sizes);
}
