// Sluice's own version.

import { readFileSync } from 'node:fs';

/** As package.json states it. */
export function version(): string {
  const manifest = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}
