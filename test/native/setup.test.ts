import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { nativeFiles, packageRoot } from '../../src/native/compile.js';
import { freshNote } from '../../src/native/note.js';
import { ensureAddon, ensureSetup } from '../../src/native/setup.js';
import { linkedEngine, machine, memoryLog, quickCompiler, write, type Machine } from './machine.js';

const jiti = createRequire(import.meta.url)
  .resolve('jiti')
  .replace(/[^/]+$/, 'jiti-cli.mjs');

interface Ready extends Machine {
  readonly env: Record<string, string>;
}

/** A machine with the real libtorch under LIBTORCH and a quick compiler, and no Python. */
async function ready(hook = ''): Promise<Ready> {
  const on = machine();
  await quickCompiler(on, hook);
  return { ...on, env: { ...on.env, LIBTORCH: await linkedEngine(on) } };
}

/** Runs a file of a package, TypeScript or not, in a process of its own. */
function start(file: string, env: Record<string, string>): ChildProcess & { output(): Promise<string> } {
  const child = spawn(process.execPath, file.endsWith('.ts') ? [jiti, file] : [file], { env });
  let [out, errors] = ['', ''];
  child.stdout.on('data', (text: Buffer) => (out += text.toString()));
  child.stderr.on('data', (text: Buffer) => (errors += text.toString()));
  const output = async (): Promise<string> => {
    await once(child, 'close');
    return out + errors;
  };
  return Object.assign(child, { output });
}

const setupChild = fileURLToPath(new URL('../../src/native/setup-child.ts', import.meta.url));
const folder = join(packageRoot, 'src/native');
const sources = nativeFiles(folder).filter((path) => path.endsWith('.cc'));
/** A file as often as it is compiled. */
const objects = sources.flatMap((name) => {
  const builds = readFileSync(join(folder, name), 'utf8').matchAll(/^\/\/ cxxflags\[(\w+), \w+\]/gm);
  return [name, ...[...builds].flatMap(([, family]) => (family === process.arch ? name : []))];
});
const compilations = (on: Machine): string[] => on.calls().filter((line) => line.startsWith('compile'));

describe('the set-up', () => {
  it('with LIBTORCH needs no Python, and a second one does nothing', async () => {
    const on = await ready();
    const addon = await ensureAddon({ env: on.env });
    expect(addon).toMatch(/\/addon\/torch-2\.\d+\.\d+[^/]*-[0-9a-f]{16}\/sluice\.node$/);
    expect(compilations(on)).toHaveLength(objects.length);
    const log = memoryLog();
    expect(await ensureAddon({ env: on.env, log })).toBe(addon);
    expect(await ensureAddon({ env: on.env, log, thorough: true })).toBe(addon);
    expect(on.calls()).toHaveLength(objects.length + 1);
    expect(log.lines).toEqual([]);
  });

  it('a new compiler, and a libtorch that changed in place, make a new addon', async () => {
    const on = await ready();
    const first = await ensureAddon({ env: on.env });
    const script = readFileSync(join(on.folder, 'bin/c++'), 'utf8');
    on.program('c++', script.replace('quick c++ 1.0', 'quick c++ 2.0 '));
    const second = await ensureAddon({ env: on.env });
    expect(second).not.toBe(first);
    rmSync(join(on.env.LIBTORCH ?? '', 'version.py'));
    write(join(on.env.LIBTORCH ?? '', 'version.py'), "__version__ = '2.99.0'\n");
    expect(await ensureAddon({ env: on.env, thorough: true })).toContain('torch-2.99.0-');
  });

  it('a machine that lost its compiler goes on using the addon', async () => {
    const on = await ready();
    const addon = await ensureAddon({ env: on.env });
    rmSync(join(on.folder, 'bin/c++'));
    expect(await ensureAddon({ env: on.env })).toBe(addon);
  });

  it('an addon that was damaged is made anew', async () => {
    const on = await ready();
    const addon = await ensureAddon({ env: on.env });
    write(addon, 'damaged');
    expect(await ensureAddon({ env: on.env, thorough: true })).toBe(addon);
    expect(on.calls().filter((line) => line === 'link')).toHaveLength(2);
  });

  it('a libtorch that does not load is an error that says so, and leaves no addon', async () => {
    const on = await ready();
    const script = readFileSync(join(on.folder, 'bin/c++'), 'utf8');
    on.program('c++', script.replace(/exec \/bin\/cp .*/, 'echo broken > "$out"; exit'));
    await expect(ensureAddon({ env: on.env })).rejects.toThrow(
      /^addon set-up: loading \S+: expected that libtorch \S+ in \S+ loads, received Error: .*; repair that torch, or set LIBTORCH/,
    );
    expect(freshNote(on.env)).toBeUndefined();
    const left = readdirSync(join(on.cache, 'addon'), { recursive: true, encoding: 'utf8' });
    expect(left.filter((name) => name.includes('sluice.node'))).toEqual([]);
  });

  it('two processes at once compile each file once', async () => {
    const on = await ready('/bin/sleep 0.05');
    const children = [start(setupChild, on.env), start(setupChild, on.env)];
    const outputs = await Promise.all(children.map((child) => child.output()));
    for (const output of outputs) expect(output).toContain('{"note":{"engine"');
    expect(compilations(on).sort()).toEqual(objects.map((name) => `compile ${name}`).sort());
    expect(existsSync(join(on.cache, 'setup.lock'))).toBe(false);
  });

  it('after a killed set-up the next one takes over and finishes', async () => {
    const on = await ready(`[ -e "$HOME/fast" ] || [ "$file" = ${sources[0]} ] || exec /bin/sleep 30`);
    const killed = start(setupChild, on.env);
    await expect.poll(() => on.calls().length, { timeout: 50_000 }).toBe(1);
    killed.kill('SIGKILL');
    await killed.output();
    expect(existsSync(join(on.cache, 'setup.lock'))).toBe(true);
    write(join(on.folder, 'fast'), '');
    const { addon } = await ensureSetup({ env: on.env });
    expect(existsSync(addon)).toBe(true);
    expect(existsSync(join(on.cache, 'setup.lock'))).toBe(false);
  });

  it('without compiler fails before anything is fetched', async () => {
    const on = machine();
    on.program('python3', 'echo asked >> "$CALLS"; exit 1');
    await expect(ensureAddon({ env: on.env })).rejects.toThrow('expected a C++20 compiler');
    expect(on.calls()).toEqual([]);
  });

  it('says what is missing when there is neither libtorch nor Python', async () => {
    const on = machine();
    await quickCompiler(on);
    await expect(ensureAddon({ env: on.env })).rejects.toThrow('received no python3 on PATH');
  });

  it("a Python's torch that does not load is passed by, and our own is fetched", async () => {
    const on = await ready();
    const { LIBTORCH = '', ...env } = on.env;
    on.program(
      'python3',
      `case "$*" in *find_spec*) echo "${LIBTORCH}";; *) echo "$0: No module named pip" >&2; exit 1;; esac`,
    );
    const script = readFileSync(join(on.folder, 'bin/c++'), 'utf8');
    on.program('c++', script.replace(/exec \/bin\/cp .*/, 'echo broken > "$out"; exit'));
    const log = memoryLog();
    await expect(ensureAddon({ env, log })).rejects.toThrow('without pip');
    expect(log.lines.at(-1)).toMatch(/^Python's torch \S+ in \S+ is not used: addon set-up: loading/);
  });
});

describe('the package built elsewhere', () => {
  /** The package's folder with dist and src/native copied. */
  function copy(on: Machine): string {
    const root = join(on.folder, 'package');
    for (const path of ['package.json', 'dist', 'src/native']) {
      cpSync(join(packageRoot, path), join(root, path), { recursive: true, preserveTimestamps: true });
    }
    symlinkSync(join(packageRoot, 'node_modules'), join(root, 'node_modules'));
    return root;
  }

  it('the first use of the addon sets it up, a touched source does not, a changed one does', async () => {
    const on = await ready();
    const root = copy(on);
    const script = join(root, 'use.mjs');
    write(
      script,
      `import { Worker, isMainThread } from 'node:worker_threads';
       import { loadAddon } from './dist/native/loader.js';
       console.log(isMainThread, typeof loadAddon().liveTensors());
       if (isMainThread) new Worker(new URL(import.meta.url));`,
    );
    const use = (): Promise<string> => start(script, on.env).output();
    const first = await use();
    expect(first).toContain('true number\nfalse number\n');
    expect(first).toContain('Compiling the addon with quick c++ 1.0');
    expect(on.calls()).toHaveLength(objects.length + 1);

    const source = join(root, 'src/native/addon/addon.cc');
    utimesSync(source, new Date(), new Date());
    expect(await use()).toBe('true number\nfalse number\n');
    write(source, `${readFileSync(source, 'utf8')}\n// changed\n`);
    expect(await use()).toContain('compiled: 1 of 1 files');
    expect(on.calls().slice(objects.length + 1)).toEqual(['compile addon/addon.cc', 'link']);
  });

  it('a set-up that fails at first use is a SetupError with its remedy', async () => {
    const on = machine();
    const root = copy(on);
    const script = join(root, 'use.mjs');
    write(script, `import { loadAddon } from './dist/native/loader.js';\nloadAddon();`);
    const output = await start(script, on.env).output();
    expect(output).toMatch(
      /SetupError: addon set-up: expected a C\+\+20 compiler .* then run "npx pipe setup"/,
    );
  });
});
