// Buckets: items of similar length beside each other, so that batches are padded little. As HF's length grouping (mega
// batches that are sorted, and cut into runs), but a function of the seed, and within the window that a source holds.

import { DataError } from '../errors.js';
import { permutation, random } from './random.js';

export interface BucketOptions<T = never> {
  /** An item's length, in whatever is padded: tokens, characters, seconds. The item is what `explode` makes, else the row,
   *  its bytes views of the source's memory. Where this throws or is no finite number, the row is quarantined. */
  readonly by: (item: T) => number;
  /** Items of a run that are of similar length: what a batch takes, over all shards and micro-batches of a step. */
  readonly size: number;
}

/** Runs that are sorted together: half of the window, so that epochs differ, but at least and at most so many. */
const [FEWEST_RUNS, MOST_RUNS] = [4, 50];

/** An order of a window's items.
 *  @param order the places of the items, permuted already
 *  @param lengths by place; NaN for an item that cannot be read, which comes first and counts in no run
 *  @param phase items that the window before has left of an unfinished run: its rest comes first. Rests are made of the
 *    window's shortest items, so that a run over two windows is of similar length too.
 *  @param keys of the generator that permutes the runs */
export function bucketed(
  order: Iterable<number>,
  lengths: Float64Array,
  { size, phase, keys }: { readonly size: number; readonly phase: number; readonly keys: readonly number[] },
): Uint32Array {
  const unread: number[] = [];
  const items: number[] = [];
  for (const place of order) (Number.isNaN(lengths[place]) ? unread : items).push(place);

  const head = Math.min(items.length, (size - (phase % size)) % size);
  const tail = (items.length - head) % size;
  const shortest = [...items].sort((a, b) => lengths[a]! - lengths[b]!).slice(0, head + tail);
  const rests = new Set(shortest);
  const body = items.filter((place) => !rests.has(place));

  const half = Math.ceil(body.length / size / 2);
  const mega = size * Math.min(MOST_RUNS, Math.max(FEWEST_RUNS, half));
  const runs: number[][] = [];
  for (let from = 0; from < body.length; from += mega) {
    const sorted = body.slice(from, from + mega).sort((a, b) => lengths[b]! - lengths[a]!);
    for (let at = 0; at < sorted.length; at += size) runs.push(sorted.slice(at, at + size));
  }
  const runOrder = permutation(runs.length, random(...keys));
  const inRuns = [...runOrder].flatMap((run) => runs[run]!);
  return Uint32Array.from([...unread, ...shortest.slice(0, head), ...inRuns, ...shortest.slice(head)]);
}

/** An item's length. @throws {DataError} when it is no finite number, and what `by` throws */
export function lengthOf(item: unknown, by: (item: never) => number, where: () => string): number {
  const length: unknown = by(item as never);
  if (typeof length === 'number' && Number.isFinite(length)) return length;
  throw new DataError({
    where: where(),
    expected: 'a finite number from bucket.by',
    received: typeof length === 'number' ? String(length) : `a ${typeof length}`,
    remedy: 'the row is left out; let bucket.by give a length for every row',
  });
}
