// Compiles the addon: every .cc below src/native (addon/ has the doors to JavaScript, kernels/ operators of our own) with
// the user's C++ compiler, one object a file, as many at once as the machine has cores and memory for. Objects are kept by
// the hash of all that they depend on, so that a changed file recompiles alone. No node-gyp and no downloaded headers: npm's
// node-api-headers and node-addon-api hold them.
//
// A file may ask for flags of its own in one of its first lines: "// cxxflags: -O3" or, for one processor family,
// "// cxxflags[x64]: -mavx2 -mfma". "// cxxflags[x64, wide]: -mavx512f" asks for a second object of the file, compiled with
// these flags instead of the family's and with SLUICE_WIDE defined (kernels/builds.h). The compiler runs in src/native, so
// "-Ishim" means src/native/shim.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, freemem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { besideOf, cacheFolder, makeFolder, type Env } from './cache.js';
import { compileFailed, type Compiler } from './compiler.js';
import type { Engine } from './engine.js';
import { runProgram } from './program.js';
import type { SetupLog } from './progress.js';

/** The package's own folder: this file is in src/native or dist/native, the C++ always in src/native. */
export const packageRoot = fileURLToPath(new URL('../../', import.meta.url));
export const sourceFolder = join(packageRoot, 'src', 'native');

const baseFlags = ['-std=c++20', '-O2', '-fPIC', '-DNAPI_CPP_EXCEPTIONS', '-DNAPI_VERSION=9'];
const nodeFlags = ['-DNODE_GYP_MODULE_NAME=sluice', '-DBUILDING_NODE_EXTENSION'];
const bytesPerJob = 1.5e9;
const objectsKeptMs = 30 * 24 * 3600 * 1000;

/** One addon to be: an engine, a compiler, the sources as they are now. */
export interface Build {
  readonly engine: Engine;
  readonly compiler: Compiler;
  readonly folder: string;
  readonly sources: readonly string[];
  /** Where the addon will lie: its folder names torch's version and the hash of everything that went in. */
  readonly addon: string;
}

interface Job {
  readonly source: string;
  /** A further build of the source, beside its plain one. */
  readonly variant: string | undefined;
  readonly flags: readonly string[];
  readonly object: string;
}

/** A source was saved while it was compiled: plan again. */
export class SourcesChanged extends Error {}

export function planBuild(engine: Engine, compiler: Compiler, env: Env, folder = sourceFolder): Build {
  const sources = nativeFiles(folder).filter((path) => path.endsWith('.cc'));
  const key = digest(engineKey(engine), compiler.command.join(' '), compiler.version, sourceHash(folder));
  const addon = join(cacheFolder(env), 'addon', `torch-${engine.version}-${key}`, 'sluice.node');
  return { engine, compiler, folder, sources, addon };
}

/** Hash of the C++ sources, the headers' versions and the flags. */
export function sourceHash(folder = sourceFolder): string {
  const files = nativeFiles(folder).map((path) => `${path}\n${fs.readFileSync(join(folder, path), 'utf8')}`);
  return digest(recipe(), ...files);
}

/** What every compilation shares besides the sources; part of each hash. */
export function recipe(): string {
  return [...baseFlags, ...nodeFlags, ...headerFolders(), process.platform, process.arch].join(' ');
}

/** The C++ files below a folder, by relative path. */
export function nativeFiles(folder = sourceFolder): string[] {
  return fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(cc|h|hpp|inc)$/.test(path))
    .sort();
}

/** Makes the addon of a build, unless it is there. @throws {SetupError} with the compiler's first errors */
export async function compileAddon(
  build: Build,
  { log, env, signal }: { log: SetupLog; env: Env; signal?: AbortSignal },
): Promise<string> {
  if (fs.existsSync(build.addon)) return build.addon;
  const objectFolder = makeFolder(join(cacheFolder(env), 'objects'));
  const jobOf = (source: string, variant?: string): Job => {
    const flags = compileFlags(build, source, variant);
    const key = digest(
      build.compiler.version,
      ...build.compiler.command,
      ...flags,
      textWithIncludes(build, source),
    );
    const name = [basename(source, '.cc'), variant, key].filter((part) => part !== undefined).join('-');
    return { source, variant, flags, object: join(objectFolder, `${name}.o`) };
  };
  const jobs = build.sources.flatMap((source) =>
    [undefined, ...variantsOf(build, source)].map((variant) => jobOf(source, variant)),
  );
  const missing = jobs.filter(({ object }) => !fs.existsSync(object));
  if (missing.length > 0) log.line(`Compiling the addon with ${build.compiler.version}`);
  let done = 0;
  await atOnce(missing, async ({ source, variant, flags, object }) => {
    await runCompiler(build, [...flags, '-c', source], object, source, env, signal);
    if (jobOf(source, variant).object !== object) {
      fs.rmSync(object); // made of a later text than its name says
      throw new SourcesChanged(source);
    }
    log.progress('compiled', ++done, missing.length, 'files');
  });
  makeFolder(dirname(build.addon));
  const objects = jobs.map(({ object }) => object);
  await runCompiler(build, [...objects, ...linkFlags(build.engine)], build.addon, 'sluice.node', env, signal);
  forgetOldObjects(objectFolder, new Set(objects));
  return build.addon;
}

/** A source's lines of flags for this processor family. */
function ownFlags(
  { folder }: Build,
  source: string,
): { variant: string | undefined; family: boolean; flags: string[] }[] {
  return fs
    .readFileSync(join(folder, source), 'utf8')
    .split('\n', 12)
    .map((line) => /^\/\/ cxxflags(?:\[(\w+)(?:, (\w+))?\])?: (.+)$/.exec(line))
    .flatMap((match) => {
      const [, family, variant, flags = ''] = match ?? [];
      const isOurs = match && (family === undefined || family === process.arch);
      return isOurs ? [{ variant, family: family !== undefined, flags: flags.trim().split(/\s+/) }] : [];
    });
}

function variantsOf(build: Build, source: string): string[] {
  return ownFlags(build, source).flatMap(({ variant }) => variant ?? []);
}

function compileFlags(build: Build, source: string, variant: string | undefined): string[] {
  const { engine } = build;
  const own = ownFlags(build, source)
    .filter((line) => line.variant === variant || (line.variant === undefined && !line.family))
    .flatMap(({ flags }) => flags);
  if (variant !== undefined) own.push(`-DSLUICE_${variant.toUpperCase()}`);
  const headers = [
    ...headerFolders().map(({ path }) => path),
    join(engine.root, 'include'),
    join(engine.root, 'include/torch/csrc/api/include'),
  ];
  const abi = engine.oldAbi ? ['-D_GLIBCXX_USE_CXX11_ABI=0'] : [];
  return [...baseFlags, ...nodeFlags, ...abi, ...own, ...headers.flatMap((path) => ['-isystem', path])];
}

/** The rpath is of the old kind on purpose: it precedes LD_LIBRARY_PATH, which may name another libtorch. */
function linkFlags(engine: Engine): string[] {
  const lib = join(engine.root, 'lib');
  const kind =
    process.platform === 'darwin'
      ? ['-bundle', '-undefined', 'dynamic_lookup']
      : ['-shared', '-Wl,--disable-new-dtags'];
  return [...kind, `-L${lib}`, '-ltorch_cpu', '-lc10', `-Wl,-rpath,${lib}`];
}

interface HeaderFolder {
  readonly path: string;
  readonly version: string;
  toString(): string;
}

function headerFolders(): HeaderFolder[] {
  const require = createRequire(import.meta.url);
  return [
    ['node-api-headers', 'include'],
    ['node-addon-api', ''],
  ].map(([name = '', inside = '']) => {
    const manifest = require.resolve(`${name}/package.json`);
    const { version } = JSON.parse(fs.readFileSync(manifest, 'utf8')) as { version: string };
    return { path: join(dirname(manifest), inside), version, toString: () => `${name}@${version}` };
  });
}

/** A source and every file of ours that it includes, so that a changed header recompiles those that read it. */
function textWithIncludes({ folder }: Build, source: string): string {
  const texts = new Map<string, string>();
  const read = (path: string): void => {
    if (texts.has(path) || !fs.existsSync(path)) return;
    const text = fs.readFileSync(path, 'utf8');
    texts.set(path, text);
    for (const [, name = ''] of text.matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
      read(join(dirname(path), name));
      read(join(folder, name));
    }
  };
  read(join(folder, source));
  // Files found through an -I of the file's own: rather compile once too often.
  if (/^\/\/ cxxflags.*-I/m.test(texts.get(join(folder, source)) ?? '')) {
    nativeFiles(folder).forEach((path) => path.includes('/') && read(join(folder, path)));
  }
  return [...texts].map(([path, text]) => `${path}\n${text}`).join('\n');
}

async function runCompiler(
  { compiler, folder }: Build,
  args: readonly string[],
  output: string,
  what: string,
  env: Env,
  signal: AbortSignal | undefined,
): Promise<void> {
  const beside = besideOf(output);
  const [program = '', ...first] = compiler.command;
  try {
    const whole = [...first, ...args, '-o', beside];
    const { code, stderr } = await runProgram(program, whole, { cwd: folder, env, signal });
    if (code !== 0) throw compileFailed(what, code, stderr, compiler);
    fs.renameSync(beside, output);
  } finally {
    fs.rmSync(beside, { force: true });
  }
}

async function atOnce<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const width = Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / bytesPerJob)));
  const queue = [...items];
  const stop = { failed: false };
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined && !stop.failed; item = queue.shift()) {
      try {
        await work(item);
      } catch (error) {
        stop.failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: width }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Keeps the cache small: objects in use are touched, others go after a month, those of a killed compiler at once. */
function forgetOldObjects(folder: string, used: ReadonlySet<string>): void {
  const now = Date.now();
  for (const name of fs.readdirSync(folder)) {
    const path = join(folder, name);
    if (used.has(path)) fs.utimesSync(path, now / 1000, now / 1000);
    else if (name.endsWith('.tmp') || now - fs.statSync(path).mtimeMs > objectsKeptMs) fs.rmSync(path);
  }
}

function engineKey({ root, version, oldAbi }: Engine): string {
  return `${root} ${version} ${oldAbi}`;
}

function digest(...parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}
