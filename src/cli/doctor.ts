// The examinations of `pipe doctor`. Each looks and reports; none sets anything up.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf } from '../errors.js';
import { cacheFolder, type Env } from '../native/cache.js';
import { findCompiler } from '../native/compiler.js';
import { findEngine, findPython, hasNvidiaGpu, type Engine } from '../native/engine.js';
import { loadAddon } from '../native/loader.js';
import { freshNote } from '../native/note.js';
import { which } from '../native/program.js';
import { packageVersion } from './main.js';

/** One thing looked at. */
export interface Check {
  readonly name: string;
  /** `missing` must be mended before anything runs; `optional` can be done without. */
  readonly state: 'ok' | 'missing' | 'optional';
  readonly found: string;
  /** The exact command that mends it. */
  readonly remedy?: string;
  /** The same as values. */
  readonly facts?: Readonly<Record<string, unknown>>;
}

const run = promisify(execFile);
const leastFreeBytes = 5e9;

/** Looks at everything. @returns in the order to show; never throws */
export async function examine(env: Env): Promise<Check[]> {
  const note = freshNote(env);
  const checks = [
    machine(),
    engine(env, note?.engine),
    note ? processor() : unset('cpu', 'known after set-up'),
    cuda(note?.engine),
    note ? addon(note.addon) : unset('addon', 'not compiled for these sources'),
    compiler(env, note !== undefined),
    python(env, note !== undefined || env.LIBTORCH !== undefined),
    sharp(),
    ffmpeg(env),
    disk(cacheFolder(env), 'cache'),
    disk(process.cwd(), 'here'),
  ];
  return Promise.all(checks.map(async (check) => check));
}

function machine(): Check {
  const cores = os.availableParallelism();
  const memoryGiB = Math.round(os.totalmem() / 2 ** 30);
  const found = `Sluice ${packageVersion()}, Node ${process.version}, ${process.platform} ${process.arch}, ${cores} cores, ${memoryGiB} GiB`;
  return { name: 'machine', state: 'ok', found, facts: { version: packageVersion(), cores, memoryGiB } };
}

function engine(env: Env, chosen: Engine | undefined): Check {
  try {
    const found = chosen ?? findEngine(env);
    if (!found) return { name: 'engine', state: 'missing', found: 'no libtorch', remedy: 'npx pipe setup' };
    const origin = { LIBTORCH: 'named by LIBTORCH', python: "Python's", cache: 'our own copy' }[found.origin];
    const text = `libtorch ${found.version}, ${origin}, ${found.root}`;
    return { name: 'engine', state: 'ok', found: text, facts: { ...found } };
  } catch (error) {
    return { name: 'engine', state: 'missing', found: messageOf(error), remedy: 'unset LIBTORCH' };
  }
}

function processor(): Check {
  try {
    const { cpuCapability, config, threads } = loadAddon().facts();
    const blas = /BLAS_INFO=(\w+)/.exec(config)?.[1] ?? 'unknown';
    const found = `capability ${cpuCapability}, BLAS ${blas}, ${threads} threads`;
    return { name: 'cpu', state: 'ok', found, facts: { capability: cpuCapability, blas, threads } };
  } catch (error) {
    return { name: 'cpu', state: 'missing', found: messageOf(error), remedy: 'npx pipe setup' };
  }
}

function unset(name: string, found: string): Check {
  return { name, state: 'missing', found, remedy: 'npx pipe setup' };
}

function addon(path: string): Check {
  return { name: 'addon', state: 'ok', found: path, facts: { path } };
}

async function cuda(engine: Engine | undefined): Promise<Check> {
  if (!hasNvidiaGpu()) {
    return {
      name: 'cuda',
      state: 'optional',
      found: 'no NVIDIA driver; the CPU computes',
      facts: { devices: [] },
    };
  }
  let devices: { name: string; totalMiB: number; freeMiB: number }[] = [];
  let driver = 'unknown';
  try {
    const query = '--query-gpu=name,memory.total,memory.free,driver_version';
    const { stdout } = await run('nvidia-smi', [query, '--format=csv,noheader,nounits']);
    devices = stdout
      .trim()
      .split('\n')
      .map((line) => {
        const [name = '', total, free, version = driver] = line.split(', ');
        driver = version;
        return { name, totalMiB: Number(total), freeMiB: Number(free) };
      });
  } catch (error) {
    const found = `an NVIDIA driver that does not answer: ${messageOf(error).split('\n')[0]}`;
    return {
      name: 'cuda',
      state: 'optional',
      found,
      remedy: 'sudo apt-get install --reinstall nvidia-utils-580 nvidia-driver-580',
    };
  }
  const list = devices.map(
    (device, i) => `cuda:${i} ${device.name}, ${device.freeMiB} of ${device.totalMiB} MiB free`,
  );
  const found = `${list.join('; ')}; driver ${driver}`;
  const facts = { devices, driver };
  if (!engine) return { name: 'cuda', state: 'optional', found, facts };
  if (!engine.cuda) {
    const remedy =
      engine.origin === 'cache'
        ? 'npx pipe setup'
        : 'python3 -m pip install --upgrade torch && npx pipe setup';
    return {
      name: 'cuda',
      state: 'optional',
      found: `${found}; this libtorch is without CUDA`,
      remedy,
      facts,
    };
  }
  try {
    const addon = loadAddon();
    addon.openLibrary(join(engine.root, 'lib', 'libtorch_cuda.so'));
    if (addon.facts().cuda) return { name: 'cuda', state: 'ok', found, facts };
    throw new Error('it finds no device');
  } catch (error) {
    const text = `${found}; libtorch's CUDA does not start: ${messageOf(error)}`;
    return {
      name: 'cuda',
      state: 'optional',
      found: text,
      remedy: 'apt-get install nvidia-driver-580',
      facts,
    };
  }
}

function compiler(env: Env, done: boolean): Check {
  try {
    const { path, version } = findCompiler(env);
    return { name: 'compiler', state: 'ok', found: `${version} (${path})`, facts: { path, version } };
  } catch {
    const state = done ? 'optional' : 'missing';
    return { name: 'compiler', state, found: 'none that runs', remedy: install('g++', 'gcc-c++', 'gcc') };
  }
}

async function python(env: Env, done: boolean): Promise<Check> {
  const state = done ? 'optional' : 'missing';
  const remedy = `${install('python3 python3-pip', 'python3 python3-pip', 'python')} (or set LIBTORCH)`;
  const path = findPython(env);
  if (!path) return { name: 'python', state, found: 'none on PATH', remedy };
  try {
    const { stdout } = await run(path, ['-m', 'pip', '--version'], { cwd: '/' });
    const found = `${path}, ${stdout.trim()}`;
    return { name: 'python', state: 'ok', found, facts: { path } };
  } catch {
    return { name: 'python', state, found: `${path} without pip`, remedy };
  }
}

async function sharp(): Promise<Check> {
  try {
    const { versions } = (await import('sharp')).default;
    const found = `${versions.sharp ?? 'unknown'}, libvips ${versions.vips}`;
    return { name: 'sharp', state: 'ok', found, facts: { ...versions } };
  } catch (error) {
    const found = messageOf(error).split('\n')[0] ?? '';
    return { name: 'sharp', state: 'missing', found, remedy: 'npm install --include=optional sharp' };
  }
}

async function ffmpeg(env: Env): Promise<Check> {
  const path = which(['ffmpeg'], env);
  const remedy = install('ffmpeg', 'ffmpeg', 'ffmpeg');
  if (!path) {
    return {
      name: 'ffmpeg',
      state: 'optional',
      found: 'not on PATH; only rarer audio and video need it',
      remedy,
    };
  }
  try {
    const { stdout } = await run(path, ['-version']);
    return { name: 'ffmpeg', state: 'ok', found: stdout.split('\n')[0] ?? path, facts: { path } };
  } catch (error) {
    return { name: 'ffmpeg', state: 'optional', found: messageOf(error).split('\n')[0] ?? '', remedy };
  }
}

function disk(folder: string, name: string): Check {
  let place = folder;
  while (!fs.existsSync(place)) place = dirname(place);
  const { bavail, bsize } = fs.statfsSync(place);
  const freeBytes = bavail * bsize;
  const found = `${(freeBytes / 1e9).toFixed(1)} GB free for ${folder}`;
  const facts = { folder, freeBytes };
  if (freeBytes >= leastFreeBytes) return { name: `disk ${name}`, state: 'ok', found, facts };
  const remedy =
    name === 'cache'
      ? 'export SLUICE_CACHE=<a folder on a larger disk>'
      : 'pipe run ... --out <a folder on a larger disk>';
  return { name: `disk ${name}`, state: 'optional', found, remedy, facts };
}

function install(apt: string, dnf: string, brew: string): string {
  if (process.platform === 'darwin') return `brew install ${brew}`;
  return which(['dnf']) ? `sudo dnf install ${dnf}` : `sudo apt-get install ${apt}`;
}
