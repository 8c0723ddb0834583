// Stretches of one remote file that are wanted one after another: neighbours come in one request, and a few requests are
// under way at once.

import type { RemoteFile } from './remote-file.js';

export interface Stretch {
  readonly start: number;
  readonly size: number;
}

/** Bytes between stretches that are fetched rather than asked around: about what a request's headers take. */
const MAX_GAP_BYTES = 1024;
const MAX_REQUESTS = 4;

interface Run {
  readonly start: number;
  end: number;
  reading?: Promise<Uint8Array>;
}

/** @returns reads stretch `index`, as a view of what came with it. Its bytes are given once: they are not kept. */
export function gather(
  file: RemoteFile,
  stretches: readonly Stretch[],
): (index: number) => Promise<Uint8Array> {
  const runs: Run[] = [];
  const runOf = new Map<number, number>();
  const left: number[] = [];
  const inOrder = [...stretches.keys()].sort((a, b) => stretches[a]!.start - stretches[b]!.start);
  for (const index of inOrder) {
    const { start, size } = stretches[index]!;
    if (size === 0) continue;
    const last = runs.at(-1);
    if (last && start - last.end <= MAX_GAP_BYTES) last.end = Math.max(last.end, start + size);
    else runs.push({ start, end: start + size });
    runOf.set(index, runs.length - 1);
    left[runs.length - 1] = (left[runs.length - 1] ?? 0) + 1;
  }

  function begin(run: Run): Promise<Uint8Array> {
    if (!run.reading) {
      run.reading = file.readExactly(run.start, run.end - run.start);
      run.reading.catch(() => {}); // whoever awaits it hears of it
    }
    return run.reading;
  }

  return async (index) => {
    const number = runOf.get(index);
    if (number === undefined) return new Uint8Array();
    for (let ahead = number; ahead < Math.min(number + MAX_REQUESTS, runs.length); ahead++) {
      if (left[ahead]! > 0) void begin(runs[ahead]!);
    }
    const run = runs[number]!;
    const bytes = await begin(run);
    left[number]!--;
    if (left[number] === 0) delete run.reading;
    const { start, size } = stretches[index]!;
    return bytes.subarray(start - run.start, start - run.start + size);
  };
}
