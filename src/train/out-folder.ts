// The run's folder: made, found writable, cleared of what an earlier run left, or continued.

import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { latestCheckpoint } from '../checkpoint/index.js';
import { ConfigError, SluiceError, messageOf } from '../errors.js';

/** Makes the folder and its parents.
 *  @throws {SluiceError} when it cannot be written */
export function makeOutFolder(path: string): void {
  try {
    makeFolders(path);
    fs.accessSync(path, fs.constants.W_OK);
    if (!fs.statSync(path).isDirectory()) throw new Error('a file of that name');
  } catch (cause) {
    throw new SluiceError(
      {
        where: `--out ${path}`,
        expected: 'a folder that can be written',
        received: messageOf(cause),
        remedy: 'choose another with --out',
      },
      { cause },
    );
  }
}

/** The newest complete checkpoint in the folder. @throws {ConfigError} when there is none */
export function checkpointToResume(outDir: string): string {
  const checkpoint = latestCheckpoint(outDir);
  if (checkpoint) return checkpoint.folder;
  throw new ConfigError({
    where: '--resume',
    expected: `a complete checkpoint in ${outDir}`,
    received: 'none',
    remedy: 'leave out --resume to start anew, or give the --out of the run to continue',
  });
}

/** Moves what an earlier run left into `earlier-N`, the first that is free. Links and devices stay where they are.
 *  @returns the folder, or undefined when nothing was there */
export function putAside(outDir: string, names: readonly string[]): string | undefined {
  const found = names.filter((name) => {
    const status = fs.lstatSync(join(outDir, name), { throwIfNoEntry: false });
    return status?.isFile() || status?.isDirectory();
  });
  if (found.length === 0) return undefined;
  for (let n = 1; ; n++) {
    const folder = join(outDir, `earlier-${n}`);
    if (fs.existsSync(folder)) continue;
    fs.mkdirSync(folder);
    for (const name of found) {
      fs.mkdirSync(dirname(join(folder, name)), { recursive: true });
      fs.renameSync(join(outDir, name), join(folder, name));
    }
    return folder;
  }
}

/** Not mkdir's own `recursive`, which never ends below /proc. */
function makeFolders(folder: string): void {
  if (fs.existsSync(folder)) return;
  if (dirname(folder) !== folder) makeFolders(dirname(folder));
  try {
    fs.mkdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
