// Attention over rows of several sequences, each seeing itself alone, where the host knows where they begin: every sequence
// is attended by itself, so that a long row costs what its sequences cost. Short ones go together, as a call of the engine
// costs more than the few scores that a mask then hides.

import { type Tensor, cat, scope, tensor } from '../tensor/index.js';
import { type AttendOptions, attend, causalMask } from './attention.js';

/** A stretch of a row that holds whole sequences. */
export interface Run {
  readonly length: number;
  /** bool [1, 1, length, length] where it holds several; one alone is causal, within the window. */
  readonly mask?: Tensor;
}

/** The runs of each row, side by side over its whole length; or one list for all rows alike. */
export type PackedRuns = readonly (readonly Run[])[];

/** Sequences are put together up to so many tokens. */
const SHORT = 64;

/** @param positions of each row: where the next is not one more, another sequence begins
 *  @param window how many keys a query reaches back to, itself included */
export function packedRuns(positions: readonly ArrayLike<number | bigint>[], window = Infinity): PackedRuns {
  return positions.map((row) => runsOf(sequenceLengths(row), window));
}

/** Lengths of the sequences of a row. */
export function sequenceLengths(positions: ArrayLike<number | bigint>): number[] {
  const lengths: number[] = [];
  let begin = 0;
  for (let i = 1; i <= positions.length; i++) {
    if (i < positions.length && Number(positions[i]) === Number(positions[i - 1]) + 1) continue;
    lengths.push(i - begin);
    begin = i;
  }
  return lengths;
}

function runsOf(lengths: readonly number[], window: number): Run[] {
  const groups: number[][] = [];
  let room = 0;
  for (const length of lengths) {
    if (length > room) {
      groups.push([]);
      room = SHORT;
    }
    groups.at(-1)?.push(length);
    room -= length;
  }
  return groups.map((group) => {
    const length = group.reduce((sum, n) => sum + n, 0);
    return group.length === 1 ? { length } : { length, mask: blockMask(group, length, window) };
  });
}

function blockMask(lengths: readonly number[], length: number, window: number): Tensor {
  return scope(() => {
    const ids = Int32Array.from(lengths.flatMap((n, sequence) => new Array<number>(n).fill(sequence)));
    const sequence = tensor(ids, [length]);
    const place = { start: 0, length };
    const same = sequence.unsqueeze(1).eq(sequence.unsqueeze(0));
    return same.logicalAnd(causalMask(place, place, window, 'cpu'));
  });
}

/** As `attend`, of queries and keys of the same tokens, on a CPU.
 *  @param runs their lengths in each row add up to the queries */
export function attendPacked(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  runs: PackedRuns,
  options: Omit<AttendOptions, 'mask'> = {},
): Tensor {
  return scope(() => {
    const [batch = 1] = q.shape;
    const ofRows = (x: Tensor): Tensor[] => (runs.length === 1 ? [x] : x.split(batch / runs.length, 0));
    const [queries, keys, values] = [ofRows(q), ofRows(k), ofRows(v)];
    const rows = runs.map((own, row) => {
      const sizes = own.map(({ length }) => length);
      const ofRuns = (x: Tensor | undefined): Tensor[] => x?.split(sizes, 2) ?? [];
      const [qs, ks, vs] = [ofRuns(queries[row]), ofRuns(keys[row]), ofRuns(values[row])];
      const outputs = own.map(({ mask }, i) => {
        const [query, key, value] = [qs[i], ks[i], vs[i]];
        if (!query || !key || !value) throw new Error('packed runs: as many pieces as sizes');
        return attend(query, key, value, { ...options, ...(mask && { mask }) }).transpose(1, 2);
      });
      return joined(outputs, 1);
    });
    return joined(rows, 0).transpose(1, 2);
  });
}

function joined(parts: readonly Tensor[], dim: number): Tensor {
  const [only] = parts;
  return parts.length === 1 && only ? only : cat(parts, dim);
}
