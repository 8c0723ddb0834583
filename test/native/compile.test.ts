import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compileAddon, planBuild, type Build } from '../../src/native/compile.js';
import { findCompiler } from '../../src/native/compiler.js';
import { inspect } from '../../src/native/engine.js';
import { silentLog } from '../../src/native/progress.js';
import { ensureSetup } from '../../src/native/setup.js';
import { hollowEngine, machine, memoryLog, quickCompiler, write, type Machine } from './machine.js';

/** A build of `sources` against a hollow libtorch. */
function build(on: Machine, sources: Record<string, string>, cmake = ''): Build {
  const folder = join(on.folder, 'native');
  for (const [name, text] of Object.entries(sources)) write(join(folder, name), text);
  const engine = inspect(hollowEngine(join(on.folder, 'torch'), '2.15.0', cmake), 'LIBTORCH');
  if (typeof engine === 'string') throw new Error(engine);
  return planBuild(engine, findCompiler(on.env), on.env, folder);
}

const compile = (on: Machine, plan: Build, signal?: AbortSignal): Promise<string> =>
  compileAddon(plan, { log: silentLog, env: on.env, signal });

describe('compiling the addon', () => {
  it('a changed file recompiles alone, a changed header those that include it', async () => {
    const on = machine();
    await quickCompiler(on);
    const sources = {
      'a.cc': '#include "a.h"\n',
      'b.cc': '// b\n',
      'a.h': '#include "deep.h"\n',
      'deep.h': '',
    };
    await compile(on, build(on, sources));
    expect(on.calls().sort()).toEqual(['compile a.cc', 'compile b.cc', 'link']);
    await compile(on, build(on, sources));
    expect(on.calls()).toHaveLength(3);
    await compile(on, build(on, { ...sources, 'b.cc': '// another b\n' }));
    expect(on.calls().slice(3)).toEqual(['compile b.cc', 'link']);
    await compile(on, build(on, { ...sources, 'b.cc': '// another b\n', 'deep.h': '// deeper\n' }));
    expect(on.calls().slice(5)).toEqual(['compile a.cc', 'link']);
  });

  it('progress counts the files', async () => {
    const on = machine();
    await quickCompiler(on);
    const log = memoryLog();
    await compileAddon(build(on, { 'a.cc': '', 'b.cc': '// b' }), { log, env: on.env });
    expect(log.lines).toEqual([
      'Compiling the addon with quick c++ 1.0',
      'compiled 1/2 files',
      'compiled 2/2 files',
    ]);
  });

  it('an interrupted compilation leaves no half-made file, and the next one goes on from it', async () => {
    const on = machine();
    await quickCompiler(on, 'if [ "$file" = slow.cc ] && [ ! -e "$HOME/fast" ]; then exec /bin/sleep 30; fi');
    const plan = build(on, { 'a.cc': '', 'slow.cc': '// slow\n' });
    const stop = new AbortController();
    const first = compile(on, plan, stop.signal);
    const objects = (): string[] =>
      readdirSync(join(on.cache, 'objects')).filter((name) => name.endsWith('.o'));
    await expect.poll(objects, { timeout: 50_000 }).toHaveLength(1);
    stop.abort();
    await expect(first).rejects.toThrow('abort');
    expect(existsSync(plan.addon)).toBe(false);
    expect(readdirSync(join(on.cache, 'objects'))).toEqual([expect.stringMatching(/^a-\w+\.o$/)]);
    write(join(on.folder, 'fast'), '');
    await compile(on, plan);
    expect(on.calls()).toEqual(['compile a.cc', 'compile slow.cc', 'link']);
  });

  it('a source saved during its compilation is not taken for compiled', async () => {
    const on = machine();
    const source = join(on.folder, 'native/a.cc');
    await quickCompiler(on, `echo "// later" > ${source}`);
    await expect(compile(on, build(on, { 'a.cc': '// early\n' }))).rejects.toThrow('a.cc');
    expect(readdirSync(join(on.cache, 'objects'))).toEqual([]);
  });

  it("the compiler's first errors are in the message", async () => {
    const on = machine();
    await quickCompiler(on, 'echo "a.cc:1: error: no such thing" >&2; echo "note: see there" >&2; exit 1');
    await expect(compile(on, build(on, { 'a.cc': '' }))).rejects.toThrow(
      /^addon set-up: compiling a\.cc: expected success of \S+c\+\+ \(quick c\+\+ 1\.0\), received exit 1:\n {2}a\.cc:1: error: no such thing\n; use GCC 11, Clang 14 or newer \(name it in CXX\)/,
    );
  });

  it('an old libtorch is compiled for with the old C++ ABI, and a file may ask for flags of its own', async () => {
    const on = machine();
    await quickCompiler(on, 'echo "$*" >> "$CALLS"');
    const own = `// About a.\n// cxxflags: -O3 -Ishim\n// cxxflags[${process.arch}]: -DHERE\n// cxxflags[z80]: -DTHERE\n`;
    await compile(on, build(on, { 'a.cc': own }, 'set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")'));
    const [flags = ''] = on.calls();
    expect(flags).toContain('-D_GLIBCXX_USE_CXX11_ABI=0 -O3 -Ishim -DHERE -isystem');
    expect(flags).not.toContain('THERE');
    const plain = machine();
    await quickCompiler(plain, 'echo "$*" >> "$CALLS"');
    await compile(plain, build(plain, { 'a.cc': '' }));
    expect(plain.calls()[0]).not.toContain('_GLIBCXX_USE_CXX11_ABI');
  });

  it('a file is compiled once more for each build that it names, with the flags of that build', async () => {
    const on = machine();
    await quickCompiler(on, 'echo "$*" >> "$CALLS"');
    const family = process.arch;
    const own = `// cxxflags: -O3\n// cxxflags[${family}]: -DNARROW\n// cxxflags[${family}, wide]: -DBROAD\n// cxxflags[z80, wide]: -DTHERE\n`;
    await compile(on, build(on, { 'a.cc': own }));
    const compiled = on.calls().filter((call) => call.includes('-c a.cc'));
    expect(compiled).toHaveLength(2);
    const [narrow = '', wide = ''] = compiled.sort(
      (a, b) => Number(a.includes('WIDE')) - Number(b.includes('WIDE')),
    );
    expect(narrow).toContain('-O3 -DNARROW -isystem');
    expect(wide).toContain('-O3 -DBROAD -DSLUICE_WIDE -isystem');
    expect(on.calls().filter((call) => call === 'compile a.cc')).toHaveLength(2);
  });

  it("the real addon's rpath outranks LD_LIBRARY_PATH", async ({ skip }) => {
    const { addon, engine } = await ensureSetup();
    if (process.platform !== 'linux') skip('the dynamic section is ELF');
    let section: string;
    try {
      section = execFileSync('readelf', ['-d', addon], { encoding: 'utf8' });
    } catch {
      return skip('no readelf');
    }
    expect(section).toMatch(new RegExp(`\\(RPATH\\).*\\[${engine.root}/lib\\]`));
  });
});

describe('finding the compiler', () => {
  const remedy = /; install one with .*(g\+\+|xcode-select).*, or name it in CXX; then run "npx pipe setup"$/;

  it('none on PATH names what to install', () => {
    expect(() => findCompiler(machine().env)).toThrow(
      /^addon set-up: expected a C\+\+20 compiler \(GCC 11, Clang 14 or newer\), received none on PATH;/,
    );
    expect(() => findCompiler(machine().env)).toThrow(remedy);
  });

  it('a CXX that is not there is named', () => {
    const on = machine();
    expect(() => findCompiler({ ...on.env, CXX: '/no/such/c++' })).toThrow(
      'received nothing at CXX=/no/such/c++',
    );
  });

  it('a compiler that does not run is named', () => {
    const on = machine();
    const path = on.program('c++', 'exit 3');
    expect(() => findCompiler(on.env)).toThrow(`received ${path}, which does not run`);
  });

  it('CXX may hold a launcher and arguments', () => {
    const on = machine();
    const path = on.program('launcher', 'shift; echo "$*"');
    expect(findCompiler({ ...on.env, CXX: ' launcher  g++ -m64' })).toEqual({
      command: [path, 'g++', '-m64'],
      path,
      version: '-m64 --version',
    });
  });
});
