// Damaged files by the thousand: each is taken or refused by an error of ours, at once, within the memory that a sound
// one takes. A process of its own a reader, so that a crash is seen as one.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

/** Inputs a reader; more in a long run. */
const COUNT = Number(process.env['FUZZ_COUNT'] ?? 10_000);
const SEED = Number(process.env['FUZZ_SEED'] ?? 1);

interface Outcome {
  readonly taken: number;
  readonly refused: number;
  readonly slowestMs: number;
  readonly grownMb: number;
  readonly strange: readonly string[];
}

it.each([
  ['header', 1],
  ['config', 1],
  ['index', 1],
  // Six files, each read and parsed anew for every input.
  ['processor', 0.25],
])(
  'the reader of a damaged %s neither crashes nor hangs, nor takes more memory than a sound one',
  async (reader, share) => {
    const script = fileURLToPath(new URL('./readers.mjs', import.meta.url));
    const heap = '--max-old-space-size=128'; // MB: an allocation out of proportion ends the process
    const { stdout } = await promisify(execFile)(process.execPath, [
      heap,
      script,
      reader,
      String(COUNT * share),
      String(SEED),
    ]);
    const outcome = JSON.parse(stdout) as Outcome;
    expect(outcome.strange).toEqual([]);
    expect(outcome.taken).toBeGreaterThan(0);
    expect(outcome.refused).toBeGreaterThan(COUNT * share * 0.1);
    expect(outcome.grownMb).toBeLessThan(150);
    expect(outcome.slowestMs).toBeLessThan(5000);
  },
  300_000,
);
