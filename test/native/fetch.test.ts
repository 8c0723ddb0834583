import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, type TestContext } from 'vitest';
import { cachedEngineFolder, cpuLibrary } from '../../src/native/engine.js';
import { fetchEngine } from '../../src/native/fetch.js';
import { silentLog } from '../../src/native/progress.js';
import { cpuPlan, gpuPlan } from '../../src/native/wheels.js';
import { machine, memoryLog, realPython, write, type Machine } from './machine.js';

const python = realPython();
const headers = [
  'torch/include/ATen/ATen.h',
  'torch/version.py',
  'torch/share/cmake/Torch/TorchConfig.cmake',
];
const cpuFiles = [
  ...headers,
  ...['libc10.so', cpuLibrary, 'libgomp.so.1'].map((name) => `torch/lib/${name}`),
  'nvidia/cu13/lib/libcudart.so.13',
  'nvidia/cu13/lib/libcupti.so.13',
];
const otherFiles = [
  'torch/__init__.py',
  'torch/lib/libtorch_cuda.so',
  'torch/lib/libtorch_python.so',
  'torch/lib/libc10_cuda.so',
  'nvidia/cu13/include/cuda.h',
  'nvidia/cu13/lib/libnvperf_host.so',
];

/** A machine whose pip "downloads" small wheels. @param hook shell run at each download, with $name and $dest */
function withPip(skip: TestContext['skip'], hook = ''): Machine {
  if (!python) skip('there is no python3 here');
  const on = machine();
  const wheel = join(on.folder, 'small.whl');
  const list = JSON.stringify([...cpuFiles, ...otherFiles]);
  const text = `(lambda f: "__version__ = '2.15.0'" if f.endswith('version.py') else f)`;
  const zip = `import zipfile\nwith zipfile.ZipFile('${wheel}', 'w') as z:\n for f in ${list}: z.writestr(f, ${text}(f))`;
  execFileSync(python ?? '', ['-c', zip]);
  on.program(
    'python3',
    `
case "$*" in
  "-m pip --version") echo pip 1.0; exit;;
  "-m pip download"*) ;;
  *) exec ${python} "$@";;
esac
while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest="$2"; shift; done
name="$1"
${hook}
echo "download $name" >> "$CALLS"
echo "Downloading small.whl (1.5 MB)"
/bin/cp ${wheel} "$dest/$(echo $name | /bin/sed 's/-/_/g; s/==/-/').whl.part"
/bin/mv "$dest/"*.part "$dest/$(echo $name | /bin/sed 's/-/_/g; s/==/-/')-py3.whl"`,
  );
  return on;
}

const fetch = (on: Machine, signal?: AbortSignal) =>
  fetchEngine({ log: silentLog, env: on.env, gpu: false, signal });

describe('fetching libtorch', () => {
  it('keeps what a machine without a GPU needs, and tells the progress', async ({ skip }) => {
    const on = withPip(skip);
    const log = memoryLog();
    const engine = await fetchEngine({ log, env: on.env, gpu: false });
    const folder = cachedEngineFolder(on.env, false);
    expect(engine).toMatchObject({
      root: join(folder, 'torch'),
      version: '2.15.0',
      origin: 'cache',
      cuda: false,
    });
    expect(filesIn(folder)).toEqual([...cpuFiles, 'engine.json'].sort());
    expect(on.calls()).toEqual(cpuPlan.packages.map((name) => `download ${name}`));
    expect(log.lines[0]).toBe(`Fetching libtorch 2.15.0 into ${on.cache}`);
    expect(log.lines.filter((line) => /^downloading torch==2.15.0 \d+\/\d+ bytes$/.test(line))).toHaveLength(
      1,
    );
    expect(log.lines.at(-1)).toMatch(/^unpacking (\d+)\/\1 bytes$/);
    expect(readdirSync(join(on.cache, 'downloads'))).toEqual([]);
  });

  it('a machine with a GPU takes the whole', async ({ skip }) => {
    const on = withPip(skip);
    const engine = await fetchEngine({ log: silentLog, env: on.env, gpu: true });
    const files = filesIn(cachedEngineFolder(on.env, true));
    expect(engine.cuda).toBe(process.platform === 'linux');
    expect(files).toEqual([...cpuFiles, ...otherFiles.slice(1), 'engine.json'].sort());
    expect(on.calls()).toHaveLength(gpuPlan.packages.length);
  });

  it('after an interruption only what is missing is downloaded, and half a download is never used', async ({
    skip,
  }) => {
    const wait =
      'case $name in torch*) [ -e $HOME/fast ] || { echo half > "$dest/torch-2.15.0-py3.whl"; exec /bin/sleep 30; };; esac';
    const on = withPip(skip, wait);
    const stop = new AbortController();
    const first = fetch(on, stop.signal);
    const half = join(on.cache, 'downloads/torch-2.15.0-cpu/parts/arrived/torch-2.15.0-py3.whl');
    await expect.poll(() => existsSync(half), { timeout: 50_000 }).toBe(true);
    stop.abort();
    await expect(first).rejects.toThrow('abort');
    expect(existsSync(cachedEngineFolder(on.env, false))).toBe(false);
    write(join(on.folder, 'fast'), '');
    await fetch(on);
    expect(on.calls()).toEqual(cpuPlan.packages.map((name) => `download ${name}`));
  });

  it('left-overs of a killed unpacking are swept out', async ({ skip }) => {
    const on = withPip(skip);
    mkdirSync(join(on.cache, 'engine/torch-2.15.0-cpu.1-1.tmp/torch'), { recursive: true });
    write(join(on.cache, 'engine/torch-2.15.0-cpu/torch/version.py'), 'of a half-removed copy');
    await fetch(on);
    expect(readdirSync(join(on.cache, 'engine'))).toEqual(['torch-2.15.0-cpu']);
  });

  it('a damaged wheel is thrown away and downloaded again', async ({ skip }) => {
    const on = withPip(skip);
    write(join(on.cache, 'downloads/torch-2.15.0-cpu/torch-2.15.0-py3.whl'), 'damaged');
    const engine = await fetch(on);
    expect(engine.version).toBe('2.15.0');
    expect(on.calls().at(-1)).toBe('download torch==2.15.0');
  });

  it('no Python names what to install', async () => {
    await expect(fetch(machine())).rejects.toThrow(
      /^engine set-up: expected Python 3\.10 or newer with pip, to fetch libtorch 2\.15\.0, received no python3 on PATH; install them with "apt-get install python3 python3-pip" .*or set LIBTORCH to a libtorch on this machine; then run "npx pipe setup"$/,
    );
  });

  it('a Python without pip is named', async () => {
    const on = machine();
    const path = on.program('python3', 'echo "$0: No module named pip" >&2; exit 1');
    await expect(fetch(on)).rejects.toThrow(
      `received ${path} without pip: ${path}: No module named pip; install`,
    );
  });

  it("no network gives pip's own error and what to check", async () => {
    const on = machine();
    const path = on.program(
      'python3',
      `case "$*" in *--version) exit 0;; esac
echo "WARNING: Retrying" >&2
echo "ERROR: Could not find a version that satisfies the requirement" >&2
echo "ERROR: No matching distribution found" >&2
exit 1`,
    );
    await expect(fetch(on)).rejects.toThrow(
      `engine set-up: pip download ${cpuPlan.packages[0]}: expected a download from the package index, ` +
        'received ERROR: Could not find a version that satisfies the requirement ERROR: No matching distribution found; ' +
        `check the network, the proxy, the free disk, and that ${path} is 3.10 or newer, then run "npx pipe setup" again; ` +
        'or set LIBTORCH to a libtorch on this machine',
    );
  });
});

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}
