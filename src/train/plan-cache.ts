// Where scans are kept: beside the data that they are of, under a digest of all that they depend on, or else in a cache
// folder of the user's. What is read from there is not trusted: a file that is not as it was written is as good as none.

import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ScanColumns } from './plan-columns.js';

const FORMAT = 1;
/** A larger scan is not kept. */
const MOST_BYTES = 64 * 2 ** 20;

/** A scan as far as it was read. */
export interface KeptScan {
  readonly columns: ScanColumns;
  /** The stream ends with them. */
  readonly complete: boolean;
}

export interface ScanCacheOptions {
  /** The folder of the data; none where they are in none. */
  readonly dataFolder: string | undefined;
  /** Taken where that cannot be written. */
  readonly userFolder: string | undefined;
}

export class ScanCache {
  readonly #places: readonly string[];
  readonly #key: string;

  /** @param key a digest */
  constructor(key: string, { dataFolder, userFolder }: ScanCacheOptions) {
    this.#key = key;
    this.#places = [dataFolder && join(dataFolder, '.sluice'), userFolder]
      .filter((folder) => folder !== undefined)
      .map((folder) => join(folder, `scan-${key}.json`));
  }

  /** The scan of this key with most samples, and its file; undefined where there is none that is whole. */
  async read(numStages: number): Promise<(KeptScan & { readonly path: string }) | undefined> {
    let best: (KeptScan & { readonly path: string }) | undefined;
    for (const path of this.#places) {
      const kept = await readScan(path, this.#key, numStages);
      if (kept && kept.columns.length > (best?.columns.length ?? -1)) best = { ...kept, path };
    }
    return best;
  }

  /** Writes a scan whole or not at all. @returns its path; undefined where it is too large or nothing can be written */
  async write({ columns, complete }: KeptScan): Promise<string | undefined> {
    const text = JSON.stringify({ format: FORMAT, key: this.#key, complete, scan: columns.toJson() });
    if (Buffer.byteLength(text) > MOST_BYTES) return undefined;
    for (const path of this.#places) {
      const beside = `${path}.${randomUUID().slice(0, 8)}.tmp`;
      try {
        await fs.mkdir(dirname(path), { recursive: true });
        await fs.writeFile(beside, text);
        await fs.rename(beside, path);
        return path;
      } catch {
        await fs.rm(beside, { force: true }).catch(() => undefined);
      }
    }
    return undefined;
  }
}

async function readScan(path: string, key: string, numStages: number): Promise<KeptScan | undefined> {
  try {
    if ((await fs.stat(path)).size > MOST_BYTES) return undefined;
    const json = JSON.parse(await fs.readFile(path, 'utf8')) as Record<string, unknown> | null;
    if (json?.['format'] !== FORMAT || json['key'] !== key || typeof json['complete'] !== 'boolean')
      return undefined;
    const columns = ScanColumns.fromJson(json['scan'], numStages);
    return columns && { columns, complete: json['complete'] };
  } catch {
    return undefined; // none, or none that can be read: the data are scanned
  }
}
