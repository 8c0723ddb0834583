// Rows of several sequences, each seeing itself alone, where the host knows where they begin.

import { type Tensor, tensor } from '../tensor/index.js';

/** Lengths of the sequences of a row. @param positions where the next is not one more, another sequence begins */
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

/** For `attend`: where the sequence of each token begins in its row. @param rows positions, as many in each
 *  @returns int32 [rows, length], on the CPU */
export function sequenceStarts(rows: readonly ArrayLike<number | bigint>[]): Tensor {
  const starts = rows.flatMap((positions) => {
    let start = 0;
    return sequenceLengths(positions).flatMap((length) => {
      const begin = start;
      start += length;
      return new Array<number>(length).fill(begin);
    });
  });
  return tensor(Int32Array.from(starts), [rows.length, rows[0]?.length ?? 0]);
}
