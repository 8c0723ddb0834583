// ceiling.json in a run's folder: the pace that `--ceiling` measured, for later runs to be held against.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { z } from '../schema.js';

const FILE = 'ceiling.json';

const CEILING = z.strictObject({
  /** Steps that were timed. */
  steps: z.int().positive(),
  /** Of one step. */
  samples: z.int().positive(),
  tokens: z.int().positive(),
  images: z.int().min(0),
  clips: z.int().min(0),
  /** Median time from one step's end to the next one's. */
  stepMs: z.number().positive(),
  tokensPerSecond: z.number().positive(),
});

export type Ceiling = z.output<typeof CEILING>;

/** The ceiling that was measured in a run's folder; undefined where none was, or the file is none of ours. */
export function readCeiling(outDir: string): Ceiling | undefined {
  try {
    return CEILING.parse(JSON.parse(fs.readFileSync(join(outDir, FILE), 'utf8')));
  } catch {
    return undefined;
  }
}

export function writeCeiling(outDir: string, ceiling: Ceiling): void {
  fs.writeFileSync(join(outDir, FILE), `${JSON.stringify(ceiling, null, 2)}\n`);
}
