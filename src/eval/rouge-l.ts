// ROUGE-L (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004): how far a free answer follows its
// reference, word by word and in order. For answers that have no single right wording, which exact match always fails.

import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { Score } from './score.js';

/** Sum of F measures, and samples, of one group. */
interface Tally {
  sum: number;
  all: number;
}

/** Lower case, runs of letters and digits: rouge_score's words, of every script. */
function wordsOf(text: string): string[] {
  return (
    text
      .normalize('NFC')
      .toLowerCase()
      .match(/[\p{L}\p{M}\p{N}]+/gu) ?? []
  );
}

/** Words of the longest common subsequence. Time is the product of both lengths, memory one of them. */
function commonWords(reference: readonly string[], answer: readonly string[]): number {
  let before = new Uint32Array(answer.length + 1);
  let row = new Uint32Array(answer.length + 1);
  for (const word of reference) {
    for (let j = 0; j < answer.length; j++) {
      row[j + 1] = answer[j] === word ? before[j]! + 1 : Math.max(before[j + 1]!, row[j]!);
    }
    [before, row] = [row, before];
  }
  return before[answer.length]!;
}

/** 2 P R / (P + R), where P and R are the common words over those of the answer and of the reference; 0 where either has
 *  no word. */
export function rougeLOf(answer: string, reference: string): number {
  const [given, wanted] = [wordsOf(answer), wordsOf(reference)];
  const common = commonWords(wanted, given);
  return common === 0 ? 0 : (2 * common) / (given.length + wanted.length);
}

/** The mean of ROUGE-L's F measure over the answers, from 0 to 1; `by` names a tag to report groups apart. */
export const rougeL = definePart({
  role: 'score',
  kind: 'rougeL',
  schema: z.strictObject({ by: z.string().optional() }),
  create: ({ by }): Score => {
    const groups = new Map<string, Tally>();
    return {
      names: ['rougeL', ...(by === undefined ? [] : ['rougeL:*'])],
      add(answer, { reference, tags }) {
        const value = rougeLOf(answer, reference);
        const group = by === undefined ? undefined : tags[by];
        for (const name of group === undefined ? ['rougeL'] : ['rougeL', `rougeL:${group}`]) {
          const tally = groups.get(name) ?? { sum: 0, all: 0 };
          tally.sum += value;
          tally.all += 1;
          groups.set(name, tally);
        }
      },
      result: () => Object.fromEntries(Array.from(groups, ([name, { sum, all }]) => [name, sum / all])),
    };
  },
});
