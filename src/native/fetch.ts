// Fetches the pinned libtorch into the cache with the user's pip, and unpacks what building and running need of it.
// Finished downloads outlive an interruption; unpacking starts over, beside its place, and is renamed when whole.
//
// libtorch_cpu needs only CUDA's small runtime and profiling libraries, so a machine without a GPU takes those two
// beside torch (0.6 GB to fetch, 0.5 GB kept) instead of all of CUDA.

import { execFile, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
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
import type { SetupLog } from './progress.js';

interface Plan {
  readonly packages: readonly string[];
  /** What of the wheels is kept, as a Python regular expression. */
  readonly keep: string;
  readonly diskBytes: number;
}

const cpuPlan: Plan = {
  packages:
    process.platform === 'darwin'
      ? [`torch==${pinnedTorch}`]
      : ['nvidia-cuda-runtime==13.2.86', 'nvidia-cuda-cupti==13.2.86', `torch==${pinnedTorch}`],
  keep:
    String.raw`torch/(include/|share/cmake/|version\.py$)|torch/lib/(?!.*(cuda|nvrtc|nvshmem|python|shm|global_deps))` +
    String.raw`|torch\.libs/|nvidia/.*/lib(cudart|cupti)\.so|torch-.*\.dist-info/.*(LICEN|NOTICE)`,
  diskBytes: 2e9,
};

const gpuKeep = String.raw`torch/(include|lib|share/cmake)/|torch/version\.py$|torch\.libs/|nvidia/|torch-.*\.dist-info/.*(LICEN|NOTICE)`;

const unpackScript = `
import os, re, sys, zipfile
folder, out, keep = sys.argv[1:]
wheels = [zipfile.ZipFile(os.path.join(folder, f)) for f in sorted(os.listdir(folder)) if f.endswith('.whl')]
todo = [(w, i) for w in wheels for i in w.infolist() if re.match(keep, i.filename) and not i.is_dir()]
total, done = sum(i.file_size for _, i in todo), 0
for wheel, info in todo:
    wheel.extract(info, out)
    done += info.file_size
    print(done, total, flush=True)
`;

interface FetchOptions {
  readonly log: SetupLog;
  readonly env: Env;
  readonly signal?: AbortSignal;
}

/** Fetches the pinned engine. The caller holds the set-up's lock.
 *  @throws {SetupError} without Python, pip, network or disk, each with its remedy */
export async function fetchEngine({ log, env, signal }: FetchOptions): Promise<Engine> {
  const gpu = hasNvidiaGpu();
  const python = await pythonWithPip(env);
  const downloads = join(cacheFolder(env), 'downloads', `torch-${pinnedTorch}-${gpu ? 'cuda' : 'cpu'}`);
  makeFolder(downloads);
  const plan = gpu ? await gpuPlan(python, env, signal) : cpuPlan;
  checkDisk(downloads, plan.diskBytes);
  log.line(`Fetching libtorch ${pinnedTorch}${gpu ? ' with CUDA' : ''} into ${cacheFolder(env)}`);
  await withoutHalves(downloads, async () => {
    for (const name of plan.packages) await download(name, downloads, python, { log, env, signal });
    await unpack(downloads, plan.keep, cachedEngineFolder(env, gpu), python, { log, env, signal });
  });
  fs.rmSync(downloads, { recursive: true, force: true });
  const engine = cachedEngine(env);
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
    if (!messageOf(error).includes('BadZipFile')) throw error;
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

/** Asks pip what the whole of torch needs, and takes torch's and NVIDIA's part of it. */
async function gpuPlan(python: string, env: Env, signal?: AbortSignal): Promise<Plan> {
  const ask = [
    'install',
    '--dry-run',
    '--ignore-installed',
    '--quiet',
    '--report',
    '-',
    `torch==${pinnedTorch}`,
  ];
  const { stdout } = await pip(python, ask, { env, signal, what: `torch==${pinnedTorch}` });
  const report = JSON.parse(stdout) as { install: { metadata: { name: string; version: string } }[] };
  const packages = report.install
    .map(({ metadata }) => `${metadata.name}==${metadata.version}`)
    .filter((name) => /^(torch==|nvidia-)/.test(name));
  return { packages, keep: gpuKeep, diskBytes: 14e9 };
}

/** One package, into the folder of downloads; at once when it is there already. */
async function download(
  name: string,
  folder: string,
  python: string,
  { log, env, signal }: FetchOptions,
): Promise<void> {
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
    const flags = ['--no-deps', '--only-binary=:all:', '--find-links', folder, '--dest', arrived];
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
  const { code, stderr } = await runLines(
    python,
    ['-c', unpackScript, downloads, beside, keep],
    env,
    signal,
    (line) => {
      const [done = 0, total = 0] = line.split(' ').map(Number);
      log.progress('unpacking', done, total, 'bytes');
    },
  );
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
  const done = await runLines(python, ['-m', 'pip', ...args], settings, signal, onLine);
  if (done.code === 0) return done;
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

/** Runs a program, handing on its lines of output. */
async function runLines(
  program: string,
  args: readonly string[],
  env: Env,
  signal?: AbortSignal,
  onLine: (line: string) => void = () => {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(program, args, { env, signal, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const lines = createInterface(child.stdout);
  lines.on('line', (line) => {
    stdout += `${line}\n`;
    onLine(line);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
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

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}
