// Builds dist from src: what `npm run prepare`, and so `npm ci`, runs. Does nothing when dist is fresh, so that an npx,
// which prepares the package again, and a test run do not rewrite files that others are reading.

import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const root = import.meta.dirname;
const inRoot = (...path) => join(root, ...path);
const stamp = inRoot('dist', '.tsbuildinfo');
const filesOf = (folder) => (existsSync(folder) ? readdirSync(folder, { recursive: true }) : []);

const sources = filesOf(inRoot('src')).filter((path) => path.endsWith('.ts'));
const outputs = new Set(sources.flatMap((path) => endings(path.slice(0, -3))));

// A source that is gone must not live on in dist, where the command line would find it.
for (const path of filesOf(inRoot('dist'))) {
  if (/\.(js|ts|map)$/.test(path) && !outputs.has(path)) rmSync(inRoot('dist', path));
}

if (!isFresh()) {
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], {
    cwd: root,
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
  if (existsSync(inRoot('dist/cli/pipe.js'))) chmodSync(inRoot('dist/cli/pipe.js'), 0o755);
  // tsc leaves the stamp alone when nothing had to change, and writes it even when it found errors.
  if (existsSync(stamp)) utimesSync(stamp, new Date(), status === 0 ? new Date() : new Date(0));
}

function isFresh() {
  if (!existsSync(stamp) || [...outputs].some((path) => !existsSync(inRoot('dist', path)))) return false;
  const inputs = [
    ...sources.map((path) => join('src', path)),
    'tsconfig.json',
    'tsconfig.build.json',
    'build.js',
  ];
  const builtAt = statSync(stamp).mtimeMs;
  return inputs.every((path) => statSync(inRoot(path)).mtimeMs < builtAt);
}

function endings(path) {
  return ['.js', '.js.map', '.d.ts'].map((ending) => path + ending);
}
