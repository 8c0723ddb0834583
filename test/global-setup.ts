// Before any test: dist is built, for tests that start programs, and the addon is there. Both are quick when fresh.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { withLock } from '../src/native/cache.js';
import { streamLog } from '../src/native/progress.js';
import { ensureAddon } from '../src/native/setup.js';

const inPackage = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));

export default async function setup(): Promise<void> {
  // Two test runs at once must not write dist over each other.
  await withLock(inPackage('node_modules/.cache/sluice-build.lock'), async () => {
    const { status } = spawnSync(process.execPath, [inPackage('build.js')], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    if (status !== 0) console.warn('src has type errors; tests of dist may fail');
  });
  await ensureAddon({ log: streamLog() });
}
