// The name under which a scan is kept: a digest of all that it is a function of, and the folder of the data.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { expandGlobs } from '../data/glob.js';
import { processorDigest } from '../data/processor-files.js';
import { digest } from '../digest.js';
import { version } from '../version.js';
import { fingerprintOf } from './stream-plan.js';

export interface ScanKeyParts {
  readonly source: unknown;
  /** The entries before the batches. */
  readonly flow: readonly unknown[];
  /** The model's, with the processor's files. */
  readonly modelFolder: string;
  readonly purpose: string;
  readonly media: string;
  /** A digest of the code that the pipeline file brings, as far as it is known. */
  readonly code: string;
}

/** @returns undefined where the source cannot tell whether its data have changed
 *  @throws what reading the source's files throws */
export async function scanKey({
  source,
  flow,
  modelFolder,
  ...rest
}: ScanKeyParts): Promise<string | undefined> {
  const fingerprint = await fingerprintOf(source);
  if (!isTold(fingerprint)) return undefined;
  const parts = [
    version(),
    digest(source),
    await dataFolder(source),
    fingerprint,
    digest(flow),
    await processorDigest(modelFolder),
    rest,
  ];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}

function isTold(fingerprint: unknown): boolean {
  return Array.isArray(fingerprint) ? fingerprint.every(isTold) : typeof fingerprint === 'string';
}

/** The folder of a source's first file; of a mix, of its first source that has one. Undefined where it has none here. */
export async function dataFolder(source: unknown): Promise<string | undefined> {
  const { files, dir, sources } = (source ?? {}) as { files?: unknown; dir?: unknown; sources?: unknown };
  if (typeof dir === 'string') return existsSync(dir) ? resolve(dir) : undefined;
  if (typeof files === 'string' || Array.isArray(files)) {
    const paths = await expandGlobs(files as string | string[]).catch(() => []);
    const [first] = paths.map((path) => dirname(resolve(path))).filter((folder) => existsSync(folder));
    return first;
  }
  for (const entry of Array.isArray(sources) ? (sources as unknown[]) : []) {
    const found = await dataFolder((entry as { source?: unknown } | null)?.source);
    if (found !== undefined) return found;
  }
  const { source: inner } = (source ?? {}) as { source?: unknown };
  return inner === undefined ? undefined : dataFolder(inner);
}
