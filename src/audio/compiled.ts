// Threads run compiled code: from a checkout's sources too, their entries are those in dist.

import { existsSync } from 'node:fs';
import { AudioError } from '../errors.js';

/** URL of a module of this folder that a thread can run. @param name with its ending, 'worker.js'
 *  @throws {AudioError} when it is not built */
export function compiledModule(name: string): URL {
  const here = new URL(`./${name}`, import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return here;
  const built = new URL(`../../dist/audio/${name}`, import.meta.url);
  if (existsSync(built)) return built;
  throw new AudioError({
    where: 'audio threads',
    expected: `the compiled ${name} in dist`,
    received: 'none',
    remedy: 'run node build.js',
  });
}
