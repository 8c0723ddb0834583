// Loads the addon, once a thread, at the first use of a tensor. When it is missing or stale, the set-up runs first, in
// a child process whose progress shows on stderr.

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { messageOf, SetupError } from '../errors.js';
import type { NativeAddon } from './addon.js';
import type { Engine } from './engine.js';
import { freshNote, type Note } from './note.js';
import { foreignLibrary, loadedLibraries } from './verify.js';

// OpenMP's threads spin for milliseconds before they sleep. Where other work wants the cores (decoding, a second
// process), a 17 s step took 115 s that way. Read when libtorch loads; a worker's own copy of the environment is not.
process.env['GOMP_SPINCOUNT'] ??= '3000';

const require = createRequire(import.meta.url);
let loaded: { addon: NativeAddon; engine: Engine } | undefined;

/** The addon, set up first when need be.
 *  @throws {SetupError} when it cannot be set up, or the libtorch that loads is not the one chosen */
export function loadAddon(): NativeAddon {
  loaded ??= load(freshNote(process.env) ?? setUpInChild());
  return loaded.addon;
}

/** The engine behind the loaded addon. */
export function loadedEngine(): Engine {
  loadAddon();
  return loaded!.engine;
}

function load({ addon: path, engine }: Note): { addon: NativeAddon; engine: Engine } {
  let addon: NativeAddon;
  try {
    addon = require(path) as NativeAddon;
  } catch (cause) {
    throw new SetupError(
      {
        where: `loading ${path}`,
        expected: `that libtorch ${engine.version} in ${engine.root} loads`,
        received: messageOf(cause),
        remedy: 'run "npx pipe setup"; "npx pipe doctor" shows what was found',
      },
      { cause },
    );
  }
  const fault = foreignLibrary(loadedLibraries(), engine);
  if (fault) throw new SetupError(fault);
  return { addon, engine };
}

/** From dist the compiled program runs; from src, as in tests, jiti reads the TypeScript. */
function setUpInChild(): Note {
  const own = fileURLToPath(import.meta.url);
  const args = own.endsWith('.ts')
    ? [
        require.resolve('jiti').replace(/[^/]+$/, 'jiti-cli.mjs'),
        own.replace(/loader\.ts$/, 'setup-child.ts'),
      ]
    : [own.replace(/loader\.js$/, 'setup-child.js')];
  const child = spawnSync(process.execPath, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  let result: { note?: Note; failure?: string };
  try {
    result = JSON.parse(child.stdout) as typeof result;
  } catch {
    result = { failure: `the set-up ended early (${child.signal ?? child.status}); run "npx pipe setup"` };
  }
  if (result.note) return result.note;
  throw new SetupError(result.failure ?? 'the set-up failed; run "npx pipe setup"');
}
