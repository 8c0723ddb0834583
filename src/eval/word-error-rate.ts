// Word error rate: the score of speech recognition, over a whole set (Morris, Maier and Green, 2004, call it WER).
// Lower is better, and it may exceed 1: a model that babbles inserts more words than there are.

import type { Target } from '../data/types.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { Score } from './score.js';

const TEXT = {
  /** 'Two' counts as 'two'; true by default. */
  ignoreCase: z.boolean().default(true),
  /** Characters of Unicode's punctuation (category P) are removed before texts are split: "don't," is "dont". True by
   *  default; letters, digits, symbols such as + and accents stay. */
  ignorePunctuation: z.boolean().default(true),
};

export type WordOptions = Readonly<Record<keyof typeof TEXT, boolean>>;

/** Errors and reference words of one group. */
interface Tally {
  errors: number;
  words: number;
}

/** The words of a text: NFC, lower case and without punctuation where the options say so, split at white space. */
export function wordsOf(text: string, { ignoreCase, ignorePunctuation }: WordOptions): string[] {
  let plain = text.normalize('NFC');
  if (ignoreCase) plain = plain.toLowerCase();
  if (ignorePunctuation) plain = plain.replace(/\p{P}/gu, '');
  return plain.split(/\s+/u).filter((word) => word !== '');
}

/** The fewest substitutions, deletions and insertions of words that turn one list into the other (Levenshtein).
 *  Time is the product of both lengths, memory one of them. */
export function wordErrors(reference: readonly string[], answer: readonly string[]): number {
  let before = Uint32Array.from({ length: answer.length + 1 }, (_, i) => i);
  let row = new Uint32Array(answer.length + 1);
  for (const [i, word] of reference.entries()) {
    row[0] = i + 1;
    for (let j = 0; j < answer.length; j++) {
      const substituted = before[j]! + (answer[j] === word ? 0 : 1);
      row[j + 1] = Math.min(substituted, before[j + 1]! + 1, row[j]! + 1);
    }
    [before, row] = [row, before];
  }
  return before[answer.length]!;
}

/** (substitutions + deletions + insertions) / words of the references, both summed over all samples first: a long
 *  sample weighs more than a short one. `by` names a tag to report groups apart. A group whose references hold no word
 *  has no rate and is left out. */
export const wordErrorRate = definePart({
  role: 'score',
  kind: 'wordErrorRate',
  schema: z.strictObject({ by: z.string().optional(), ...TEXT }),
  create: ({ by, ...options }): Score => {
    const groups = new Map<string, Tally>();
    return {
      names: ['wordErrorRate', ...(by === undefined ? [] : ['wordErrorRate:*'])],
      add(answer, target) {
        const reference = wordsOf(target.reference, options);
        const errors = wordErrors(reference, wordsOf(answer, options));
        const group = by === undefined ? undefined : target.tags[by];
        count(groups, 'wordErrorRate', errors, reference.length);
        if (group !== undefined) count(groups, `wordErrorRate:${group}`, errors, reference.length);
      },
      result: () =>
        Object.fromEntries(
          [...groups]
            .filter(([, { words }]) => words > 0)
            .map(([name, { errors, words }]) => [name, errors / words]),
        ),
    };
  },
});

function count(groups: Map<string, Tally>, name: string, errors: number, words: number): void {
  const tally = groups.get(name) ?? { errors: 0, words: 0 };
  tally.errors += errors;
  tally.words += words;
  groups.set(name, tally);
}

/** References of one prompt that are tried as the answer to all its samples. */
const MAX_TRIED = 100;

/** What can be had without listening: the lowest word error rate that one fixed answer a prompt reaches over this very
 *  stream. Tried are no answer at all, each word of the references, and the 100 commonest references. */
export const promptAloneWords = definePart({
  role: 'score',
  kind: 'promptAloneWords',
  schema: z.strictObject(TEXT),
  create: (options): Score => {
    const prompts = new Map<string, Map<string, number>>();
    return {
      names: ['promptAloneWords'],
      add(_answer, { prompt, reference }: Target) {
        const references = prompts.get(prompt) ?? new Map<string, number>();
        const words = wordsOf(reference, options).join(' ');
        references.set(words, (references.get(words) ?? 0) + 1);
        prompts.set(prompt, references);
      },
      result(): Record<string, number> {
        let [errors, words] = [0, 0];
        for (const references of prompts.values()) {
          errors += fewestErrors(references);
          for (const [reference, times] of references) words += times * split(reference).length;
        }
        return words === 0 ? {} : { promptAloneWords: errors / words };
      },
    };
  },
});

/** Errors of the best single answer to all references. @param references text -> how often */
function fewestErrors(references: ReadonlyMap<string, number>): number {
  const commonest = [...references].sort(([, a], [, b]) => b - a).slice(0, MAX_TRIED);
  const tried = new Set(['', ...commonest.flatMap(([reference]) => [reference, ...split(reference)])]);
  let best = Infinity;
  for (const answer of tried) {
    const words = split(answer);
    let errors = 0;
    for (const [reference, times] of references) errors += times * wordErrors(split(reference), words);
    best = Math.min(best, errors);
  }
  return best;
}

function split(text: string): string[] {
  return text === '' ? [] : text.split(' ');
}
