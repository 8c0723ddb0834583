import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cacheFolder } from '../../src/native/cache.js';
import { cachedEngine, cachedEngineFolder, findEngine } from '../../src/native/engine.js';
import { foreignLibrary } from '../../src/native/verify.js';
import { hollowEngine, machine, realPython, write } from './machine.js';

describe('finding libtorch', () => {
  it('LIBTORCH comes first and needs no Python', () => {
    const on = machine();
    on.program('python3', 'echo asked >> "$CALLS"; exit 1');
    const root = hollowEngine(join(on.folder, 'libtorch'), '2.11.0+cpu');
    expect(findEngine({ ...on.env, LIBTORCH: root })).toEqual({
      root,
      version: '2.11.0+cpu',
      origin: 'LIBTORCH',
      oldAbi: false,
      cuda: false,
    });
    expect(on.calls()).toEqual([]);
  });

  it('a LIBTORCH that holds none, or an old one, is an error', () => {
    const { folder, env } = machine();
    const find = (LIBTORCH: string) => () => findEngine({ ...env, LIBTORCH });
    expect(find('/no/such')).toThrow(
      'LIBTORCH=/no/such: expected the folder of libtorch 2.9 or newer, with include/ and lib/, ' +
        'received it has no include/ATen/ATen.h; set LIBTORCH to such a folder, or unset it to have one found or fetched',
    );
    expect(find(hollowEngine(join(folder, 'old'), '2.6.0+cu124'))).toThrow(
      'it is 2.6.0+cu124, older than 2.9',
    );
  });

  it("the version is also read from a C++ release's files", () => {
    const { folder, env } = machine();
    const root = hollowEngine(join(folder, 'libtorch'), '');
    write(join(root, 'version.py'), '');
    write(
      join(root, 'include/torch/headeronly/version.h'),
      '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 13\n#define TORCH_VERSION_PATCH 1\n',
    );
    expect(findEngine({ ...env, LIBTORCH: root })?.version).toBe('2.13.1');
    write(join(root, 'build-version'), '2.14.0+cpu\n');
    expect(findEngine({ ...env, LIBTORCH: root })?.version).toBe('2.14.0+cpu');
  });

  describe("of the user's Python", () => {
    const python = realPython();

    /** A machine whose Python has a torch that must not be imported. */
    function withTorch(version: string) {
      const on = machine();
      on.program('python3', `exec ${python} "$@"`);
      const site = join(on.folder, 'site');
      hollowEngine(join(site, 'torch'), version);
      write(join(site, 'torch/__init__.py'), 'raise SystemExit("imported")');
      return { ...on, root: join(site, 'torch'), env: { ...on.env, PYTHONPATH: site } };
    }

    it('takes its torch without importing it', ({ skip }) => {
      if (!python) skip('there is no python3 here');
      const { env, root } = withTorch('2.10.0');
      expect(findEngine(env)).toMatchObject({ root, version: '2.10.0', origin: 'python' });
    });

    it('says why it passes an older torch by', ({ skip }) => {
      if (!python) skip('there is no python3 here');
      const { env, root } = withTorch('2.8.1');
      const reasons: string[] = [];
      expect(findEngine(env, (reason) => reasons.push(reason))).toBeUndefined();
      expect(reasons).toEqual([`Python's torch in ${root} is not used: it is 2.8.1, older than 2.9`]);
    });

    it('a Python without torch, and none at all, are no engine', ({ skip }) => {
      const on = machine();
      expect(findEngine(on.env)).toBeUndefined();
      if (!python) skip('there is no python3 here');
      on.program('python3', `exec ${python} -I -S "$@"`);
      expect(findEngine(on.env)).toBeUndefined();
    });
  });

  it('our own copy counts only when it is whole', () => {
    const { env } = machine();
    const folder = cachedEngineFolder(env, false);
    hollowEngine(join(folder, 'torch'), '2.15.0');
    expect(cachedEngine(env, false)).toBeUndefined();
    write(join(folder, 'engine.json'), JSON.stringify({ cpuLibraryBytes: 13 }));
    expect(cachedEngine(env, false)).toMatchObject({ version: '2.15.0', origin: 'cache' });
    write(join(folder, 'torch/lib/libtorch_cpu.so'), 'torn');
    write(join(folder, 'torch/lib/libtorch_cpu.dylib'), 'torn');
    expect(cachedEngine(env, false)).toBeUndefined();
  });
});

it("the cache is SLUICE_CACHE, else in XDG's folder, else in ~/.cache", () => {
  expect(cacheFolder({ SLUICE_CACHE: '/c', XDG_CACHE_HOME: '/x', HOME: '/h' })).toBe('/c');
  expect(cacheFolder({ XDG_CACHE_HOME: '/x', HOME: '/h' })).toBe('/x/sluice');
  expect(cacheFolder({ HOME: '/h' })).toBe('/h/.cache/sluice');
});

it('a libtorch from another folder than the one chosen is an error', () => {
  const { folder, env } = machine();
  const chosen = hollowEngine(join(folder, 'chosen'), '2.15.0');
  const other = join(hollowEngine(join(folder, 'other'), '2.15.0'), 'lib/libtorch_cpu.so');
  write(join(chosen, 'lib/libtorch_cpu.so'), '');
  write(other, '');
  const engine = findEngine({ ...env, LIBTORCH: chosen });
  if (!engine) throw new Error('no engine');
  expect(foreignLibrary([join(chosen, 'lib/libtorch_cpu.so'), '/usr/lib/libc.so.6'], engine)).toBeUndefined();
  expect(foreignLibrary([join(chosen, 'lib/libtorch_cpu.so'), other], engine)).toEqual({
    where: 'loading the addon',
    expected: `libtorch_cpu and libc10 of ${chosen}/lib`,
    received: other,
    remedy: 'take that folder off LD_LIBRARY_PATH and LD_PRELOAD, or set LIBTORCH to the torch you mean',
  });
  expect(foreignLibrary(['/usr/lib/libc.so.6'], engine)?.received).toBe('neither');
});
