// A digest of the code that a pipeline file brings: what comes before its default export, and the modules that it imports
// by path. The default export's own options and functions are told apart by what they are.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Modules beyond this number are not looked at. */
const MOST_MODULES = 1000;
const IMPORT = /(?:from|import|require\s*\(|import\s*\()\s*['"](\.{1,2}\/[^'"]+)['"]/g;

/** @returns the same as long as that code is the same */
export function pipelineCode(file: string): string {
  const hash = createHash('sha256');
  const path = resolve(file);
  const seen = new Set<string>();
  const visit = (module: string, text: string): void => {
    hash.update(text).update('\0');
    for (const [, specifier = ''] of text.matchAll(IMPORT)) {
      const found = moduleAt(resolve(dirname(module), specifier));
      if (found === undefined || seen.has(found) || seen.size >= MOST_MODULES) continue;
      seen.add(found);
      visit(found, readFileSync(found, 'utf8'));
    }
  };
  seen.add(path);
  const [before = ''] = readFileSync(path, 'utf8').split(/^export default /m);
  visit(path, before);
  return hash.digest('hex');
}

/** What a specifier names: TypeScript's './rows.js' is rows.ts. */
function moduleAt(path: string): string | undefined {
  const stem = path.replace(/\.[cm]?js$/, '');
  const candidates = [
    path,
    ...[stem, path].flatMap((base) =>
      ['.ts', '.mts', '.cts', '.js', '.mjs', '.cjs', '.json'].map((end) => base + end),
    ),
    ...['.ts', '.js'].map((end) => resolve(path, `index${end}`)),
  ];
  return candidates.find((candidate) => existsSync(candidate) && statSync(candidate).isFile());
}
