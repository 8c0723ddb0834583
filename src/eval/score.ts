// Streaming scores: each sees one answer at a time and holds counts only.

import type { Target } from '../data/types.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';

/** A score over a stream of answers. */
export interface Score {
  /** Names that `result` gives; one that ends in '*' stands for all that begin so. Left out, those of no answers. */
  readonly names?: readonly string[];
  add(answer: string, target: Target): void;
  /** Name -> value; names of groups are 'score:group'. */
  result(): Record<string, number>;
}

/** Counts of one group. */
interface Tally {
  right: number;
  all: number;
}

/** The share of answers that equal the reference, spaces at the ends aside; `by` names a tag to report groups apart. */
export const exactMatch = definePart({
  role: 'score',
  kind: 'exactMatch',
  schema: z.strictObject({ by: z.string().optional() }),
  create: ({ by }): Score => {
    const groups = new Map<string, Tally>();
    return {
      names: ['exactMatch', ...(by === undefined ? [] : ['exactMatch:*'])],
      add(answer, target) {
        const right = answer.trim() === target.reference.trim();
        const group = by === undefined ? undefined : target.tags[by];
        for (const name of group === undefined ? ['exactMatch'] : ['exactMatch', `exactMatch:${group}`]) {
          count(groups, name, right);
        }
      },
      result: () =>
        Object.fromEntries([...groups].map(([name, { right, all }]) => [name, all === 0 ? 0 : right / all])),
    };
  },
});

function count(groups: Map<string, Tally>, name: string, right: boolean): void {
  const tally = groups.get(name) ?? { right: 0, all: 0 };
  tally.all += 1;
  if (right) tally.right += 1;
  groups.set(name, tally);
}

/** The best that can be had without looking: the share of samples whose reference is the commonest one of their prompt,
 *  counted over this very stream. A model's exact match above it comes from what else it was given, such as the picture. */
export const promptAlone = definePart({
  role: 'score',
  kind: 'promptAlone',
  schema: z.strictObject({}),
  create: (): Score => {
    const prompts = new Map<string, Map<string, number>>();
    let all = 0;
    return {
      add(_answer, { prompt, reference }) {
        const references = prompts.get(prompt) ?? new Map<string, number>();
        references.set(reference, (references.get(reference) ?? 0) + 1);
        prompts.set(prompt, references);
        all += 1;
      },
      result() {
        const best = [...prompts.values()].reduce((sum, counts) => sum + Math.max(...counts.values()), 0);
        return { promptAlone: all === 0 ? 0 : best / all };
      },
    };
  },
});
