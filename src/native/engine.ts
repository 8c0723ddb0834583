// Where libtorch is: `LIBTORCH`, else the torch of the user's Python, else our own copy in the cache.
// Python is asked where its torch lies, never to import it. Fetching the copy is fetch.ts's.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join, resolve } from 'node:path';
import { SetupError } from '../errors.js';
import { cacheFolder, readJson, type Env } from './cache.js';
import { which } from './program.js';

export type EngineOrigin = 'LIBTORCH' | 'python' | 'cache';

/** One libtorch: a folder with `include/` and `lib/`. */
export interface Engine {
  readonly root: string;
  readonly version: string;
  readonly origin: EngineOrigin;
  /** Built with the C++ ABI before C++11, as old wheels are. */
  readonly oldAbi: boolean;
  /** CUDA's part of libtorch lies beside it. */
  readonly cuda: boolean;
}

/** The torch that is fetched when there is none. */
export const pinnedTorch = '2.15.0';
export const oldestTorch = '2.9';
const sharedSuffix = process.platform === 'darwin' ? 'dylib' : 'so';

export const cpuLibrary = `libtorch_cpu.${sharedSuffix}`;

/** Our own copy's folder. A machine with an NVIDIA GPU has the whole, another only what a CPU needs. */
export function cachedEngineFolder(env: Env, gpu: boolean): string {
  return join(cacheFolder(env), 'engine', `torch-${pinnedTorch}-${gpu ? 'cuda' : 'cpu'}`);
}

/** True on a machine with an NVIDIA driver. */
export function hasNvidiaGpu(): boolean {
  return ['/proc/driver/nvidia/version', '/dev/nvidiactl', '/usr/lib/wsl/lib/libcuda.so.1'].some(
    fs.existsSync,
  );
}

/** The engine that this environment chooses, or undefined when one must be fetched first.
 *  @param onSkip told of a Python torch that was found and cannot be used
 *  @throws {SetupError} when `LIBTORCH` names a folder that holds no usable libtorch */
export function findEngine(
  env: Env = process.env,
  onSkip: (reason: string) => void = () => {},
): Engine | undefined {
  if (env.LIBTORCH) return fromLibtorch(resolve(env.LIBTORCH));
  const python = findPython(env);
  const folder = python && pythonTorch(python, env);
  if (folder) {
    const found = inspect(folder, 'python');
    if (typeof found !== 'string') return found;
    onSkip(`Python's torch in ${folder} is not used: ${found}`);
  }
  return cachedEngine(env);
}

/** Our own copy, when it is whole. */
export function cachedEngine(env: Env = process.env, gpu = hasNvidiaGpu()): Engine | undefined {
  const folder = cachedEngineFolder(env, gpu);
  const made = readJson(join(folder, 'engine.json')) as { cpuLibraryBytes?: number } | undefined;
  const root = join(folder, 'torch');
  const library = fs.statSync(join(root, 'lib', cpuLibrary), { throwIfNoEntry: false });
  if (!library || library.size !== made?.cpuLibraryBytes) return undefined;
  const found = inspect(root, 'cache');
  return typeof found === 'string' ? undefined : found;
}

/** Looks into a folder. @returns the engine, or why it is none */
export function inspect(root: string, origin: EngineOrigin): Engine | string {
  for (const path of ['include/ATen/ATen.h', `lib/${cpuLibrary}`]) {
    if (!fs.existsSync(join(root, path))) return `it has no ${path}`;
  }
  const version = versionOf(root);
  if (!version) return 'its version cannot be read';
  if (!isAtLeast(version, oldestTorch)) return `it is ${version}, older than ${oldestTorch}`;
  const cmake = join(root, 'share/cmake/Torch/TorchConfig.cmake');
  return {
    root: fs.realpathSync(root),
    version,
    origin,
    oldAbi: fs.existsSync(cmake) && fs.readFileSync(cmake, 'utf8').includes('_GLIBCXX_USE_CXX11_ABI=0'),
    cuda: fs.existsSync(join(root, 'lib', `libtorch_cuda.${sharedSuffix}`)),
  };
}

/** Python 3 on PATH. */
export function findPython(env: Env = process.env): string | undefined {
  return which(['python3', 'python'], env);
}

/** Where a Python would import torch from; asked from the root folder, so that no `./torch` is taken for it. */
function pythonTorch(python: string, env: Env): string | undefined {
  const ask =
    'import importlib.util as u; s = u.find_spec("torch"); ' +
    'print(s.submodule_search_locations[0] if s and s.submodule_search_locations else "")';
  const answer = spawnSync(python, ['-c', ask], { cwd: '/', env, encoding: 'utf8', timeout: 60_000 });
  return answer.status === 0 ? answer.stdout.trim().split('\n').at(-1) : undefined;
}

function fromLibtorch(root: string): Engine {
  const found = inspect(root, 'LIBTORCH');
  if (typeof found !== 'string') return found;
  throw new SetupError({
    where: `LIBTORCH=${root}`,
    expected: `the folder of libtorch ${oldestTorch} or newer, with include/ and lib/`,
    received: found,
    remedy: 'set LIBTORCH to such a folder, or unset it to have one found or fetched',
  });
}

function versionOf(root: string): string | undefined {
  const read = (path: string, pattern: RegExp): string | undefined => {
    const file = join(root, path);
    return fs.existsSync(file) ? pattern.exec(fs.readFileSync(file, 'utf8'))?.[1] : undefined;
  };
  const numbers = ['include/torch/headeronly/version.h', 'include/torch/csrc/api/include/torch/version.h']
    .map((header) =>
      ['MAJOR', 'MINOR', 'PATCH'].map((part) =>
        read(header, new RegExp(`#define TORCH_VERSION_${part} (\\d+)`)),
      ),
    )
    .find((parts) => parts.every((part) => part !== undefined));
  return (
    read('version.py', /^__version__ = '([^']+)'/m) ?? read('build-version', /^(\S+)/) ?? numbers?.join('.')
  );
}

function isAtLeast(version: string, oldest: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number.parseFloat);
  const [oldMajor = 0, oldMinor = 0] = oldest.split('.').map(Number);
  return major > oldMajor || (major === oldMajor && minor >= oldMinor);
}
