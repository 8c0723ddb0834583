// The note that a set-up leaves: which engine and addon this environment uses, and by what marks one sees that they
// are still right. Reading and checking it takes a few milliseconds, and starts no process.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, readJson, writeWhole, type Env } from './cache.js';
import { nativeFiles, packageRoot, recipe, sourceFolder, sourceHash } from './compile.js';
import type { Compiler } from './compiler.js';
import { cpuLibrary, findPython, type Engine } from './engine.js';

export interface Note {
  readonly engine: Engine;
  readonly compiler: Compiler;
  readonly addon: string;
}

export interface Marks {
  readonly recipe: string;
  readonly library: string;
  readonly compiler: string;
  /** Names, sizes and times of the sources; when they differ, the hash decides. */
  readonly sources: string;
  readonly sourceHash: string;
}

/** The last set-up's note, when everything that it rests on is unchanged. */
export function freshNote(env: Env): Note | undefined {
  const path = notePath(env);
  const saved = readJson(path) as (Note & { marks: Marks }) | undefined;
  if (!saved?.marks || !fs.existsSync(saved.addon)) return undefined;
  const { marks, ...note } = saved;
  // A compiler that is gone leaves the addon right: machines that only run need none.
  const compiler = stamp(note.compiler.path);
  if (marks.recipe !== recipe() || marks.library !== libraryStamp(note.engine)) return undefined;
  if (compiler !== 'none' && compiler !== marks.compiler) return undefined;
  if (marks.sources === sourceStamps()) return note;
  if (marks.sourceHash !== sourceHash()) return undefined;
  try {
    writeNote(note, takeMarks(note.engine, note.compiler), env); // touched, not changed
  } catch {
    // a cache that can only be read: the hash decides again next time
  }
  return note;
}

/** The marks as they are now; take them before compiling, so that a file saved meanwhile counts as changed. */
export function takeMarks(engine: Engine, compiler: Compiler): Marks {
  return {
    recipe: recipe(),
    library: libraryStamp(engine),
    compiler: stamp(compiler.path),
    sources: sourceStamps(),
    sourceHash: sourceHash(),
  };
}

export function writeNote(note: Note, marks: Marks, env: Env): Note {
  writeWhole(notePath(env), JSON.stringify({ ...note, marks }, null, 1));
  return note;
}

/** One note for each package folder and choice of engine and compiler. */
function notePath(env: Env): string {
  const choice = [packageRoot, env.LIBTORCH, env.CXX, env.LIBTORCH ? '' : findPython(env), process.arch];
  const key = createHash('sha256').update(JSON.stringify(choice)).digest('hex').slice(0, 16);
  return join(cacheFolder(env), 'notes', `${key}.json`);
}

function sourceStamps(): string {
  return nativeFiles()
    .map((path) => `${path} ${stamp(join(sourceFolder, path))}`)
    .join('\n');
}

function libraryStamp({ root }: Engine): string {
  return stamp(join(root, 'lib', cpuLibrary));
}

function stamp(path: string): string {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  return stat ? `${stat.size} ${stat.mtimeMs}` : 'none';
}
