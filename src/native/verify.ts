// Which libtorch did the loader really take? Another one on the system's path would be silently wrong.

import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import type { Fault } from '../errors.js';
import type { Engine } from './engine.js';

/** Prints the shared libraries of the process that runs it, as JSON. */
export const librariesScript = `
const fs = require('node:fs');
const maps = '/proc/self/maps';
const list = fs.existsSync(maps)
  ? fs.readFileSync(maps, 'utf8').split('\\n').map((line) => line.slice(line.indexOf('/')))
  : process.report.getReport().sharedObjects;
process.stdout.write(JSON.stringify([...new Set(list.filter((path) => path.includes('/lib')))]));`;

/** The shared libraries of this process. */
export function loadedLibraries(): string[] {
  if (!fs.existsSync('/proc/self/maps')) {
    return (process.report.getReport() as unknown as { sharedObjects: string[] }).sharedObjects;
  }
  const lines = fs.readFileSync('/proc/self/maps', 'utf8').split('\n');
  return [...new Set(lines.map((line) => line.slice(line.indexOf('/'))))];
}

/** A fault when a loaded libtorch_cpu or libc10 is not the engine's. */
export function foreignLibrary(libraries: readonly string[], engine: Engine): Fault | undefined {
  const lib = fs.realpathSync(join(engine.root, 'lib'));
  const ours = libraries.filter((path) => /\/lib(torch_cpu|c10)\.(so|dylib)/.test(path));
  const foreign = ours.find((path) => dirname(fs.realpathSync(path)) !== lib);
  if (!foreign && ours.length > 0) return undefined;
  return {
    where: 'loading the addon',
    expected: `libtorch_cpu and libc10 of ${lib}`,
    received: foreign ?? 'neither',
    remedy: 'take that folder off LD_LIBRARY_PATH and LD_PRELOAD, or set LIBTORCH to the torch you mean',
  };
}
