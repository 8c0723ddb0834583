// Examples behind each other in the rows of a batch, each with positions of its own, so that the model can tell them apart.

import { IGNORED } from './collate.js';
import { checkExamples, presentInAll } from './example-checks.js';
import { joinClips, joinImages } from './join-media.js';
import type { Batch, Example } from './types.js';

/** Packs examples into rows, which are as long as the longest of them; shorter ones are padded on the right. The first label
 *  of each example is not learnt: it would be predicted from another one's last token. Images and clips come in the order of
 *  their places.
 *  @param rows the row of each example. Rows without one are left out
 *  @param padTokenId fills the positions behind a row's last example; they make a sequence of their own, and are masked
 *  @throws {CollateError} as `collate` does */
export function packRows(examples: readonly Example[], rows: readonly number[], padTokenId: number): Batch {
  checkExamples(examples, 'packed');
  const hasLabels = presentInAll(examples, 'labels');

  const members = membersOf(rows.slice(0, examples.length));
  const lengths = members.map((row) => sum(row.map((index) => examples[index]!.inputIds.length)));
  const width = Math.max(...lengths);
  const shape = [members.length, width];
  const size = members.length * width;
  const inputIds = new Int32Array(size).fill(padTokenId);
  const attentionMask = new Uint8Array(size);
  const positionIds = new Int32Array(size);
  const labels = hasLabels ? new Int32Array(size).fill(IGNORED) : undefined;
  let numLabels = 0;
  for (const [row, indices] of members.entries()) {
    let at = row * width;
    const count = (end: number): void => {
      for (let position = 0; at < end; position++, at++) positionIds[at] = position;
    };
    for (const index of indices) {
      const { inputIds: ids, labels: own } = examples[index]!;
      inputIds.set(ids, at);
      attentionMask.fill(1, at, at + ids.length);
      if (labels && own) {
        labels.set(own.subarray(1), at + 1);
        for (let i = 1; i < own.length; i++) if (own[i] !== IGNORED) numLabels++;
      }
      count(at + ids.length);
    }
    count((row + 1) * width);
  }

  const order = members.flat();
  const pixelValues = joinImages(examples, order);
  const numTokens = sum(lengths);
  return {
    inputIds: { data: inputIds, shape },
    attentionMask: { data: attentionMask, shape },
    positionIds: { data: positionIds, shape },
    ...(labels ? { labels: { data: labels, shape } } : {}),
    ...(pixelValues ? { pixelValues } : {}),
    ...joinClips(examples, order),
    numTokens,
    numLabels,
    numSamples: examples.length,
    packed: {
      samplesPerRow: members.map((row) => row.length),
      paddingShare: 1 - numTokens / size,
    },
  };
}

/** The examples' numbers, row by row. */
function membersOf(rows: readonly number[]): number[][] {
  const members = new Map<number, number[]>();
  for (const [index, row] of rows.entries()) {
    const own = members.get(row);
    if (own) own.push(index);
    else members.set(row, [index]);
  }
  return [...members].sort(([a], [b]) => a - b).map(([, indices]) => indices);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0);
}
