// The best checkpoints of a run by a metric: best.json in the run's folder names them, and they outlive `keep`.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { decode, z } from '../schema.js';
import { replaceFile } from './atomic.js';
import { readFault } from './faults.js';
import { writeJson } from './writer.js';

export const bestFile = 'best.json';

export const BEST = z.object({
  metric: z.string(),
  mode: z.enum(['max', 'min']),
  best: z.array(z.object({ step: z.int().min(0), value: z.number() })),
});

/** 'max' where more is better. */
export type BestMode = 'max' | 'min';

/** Checkpoints by what an evaluation gave at their step, the best first. */
export interface BestCheckpoints {
  /** 'evaluation/score' */
  readonly metric: string;
  readonly mode: BestMode;
  readonly best: readonly { readonly step: number; readonly value: number }[];
}

/** The best `keep` of some, each step once, the best first; of equal ones the earlier step is better. */
export function ranked(
  entries: BestCheckpoints['best'],
  mode: BestMode,
  keep: number,
): { step: number; value: number }[] {
  const sign = mode === 'max' ? -1 : 1;
  const sorted = entries
    .map(({ step, value }) => ({ step, value }))
    .sort((a, b) => sign * (a.value - b.value) || a.step - b.step);
  return sorted.filter(({ step }, i) => sorted.findIndex((one) => one.step === step) === i).slice(0, keep);
}

/** Writes best.json into a run's folder, whole or not at all, with the names of the folders for people and scripts.
 *  @throws {CheckpointError} when it cannot be written; what was there before is then still there */
export async function writeBest(runFolder: string, { metric, mode, best }: BestCheckpoints): Promise<void> {
  const named = best.map((entry) => ({ ...entry, checkpoint: `checkpoint-${entry.step}` }));
  await replaceFile(join(runFolder, bestFile), (handle) => writeJson(handle, { metric, mode, best: named }));
}

/** Reads best.json; undefined where there is none.
 *  @throws {CheckpointError | ConfigError} when it is malformed */
export function readBest(runFolder: string): BestCheckpoints | undefined {
  const path = join(runFolder, bestFile);
  if (!fs.existsSync(path)) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(fs.readFileSync(path, 'utf8'));
  } catch (cause) {
    throw readFault(path, 'the best checkpoints in JSON', cause);
  }
  return decode(BEST, json, path);
}
