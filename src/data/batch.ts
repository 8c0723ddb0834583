// The pipeline file's `batch`: gathers examples and pads them with the processor's padding token.

import { type BatchBy, type Filling, batch as gather } from '../flow/index.js';
import type { Stage } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { z } from '../schema.js';
import {
  type Budget,
  type MediaWeights,
  type Measure,
  MediaTaken,
  TOKEN_BYTES,
  exampleBytes,
  measureWithin,
  mediaBytes,
} from './budget.js';
import { batchBytes, collate } from './collate.js';
import type { Batch, Example } from './types.js';

/** When a batch is full: at so many samples, or before its padded tokens (samples times the longest), its images or its clips
 *  would be more. */
export type BatchSize =
  | { readonly size: number }
  | {
      readonly tokens: number;
      /** The most images; 0 is none. With it and `clips` the pool can be checked before the run. */
      readonly images?: number;
      /** The most clips; 0 is none. */
      readonly clips?: number;
      /** The most samples, however short. With it the pool can be checked before the run. */
      readonly maxSize?: number;
    };

export interface BatchStageOptions {
  /** Leaves out a last batch that did not get full; by default it is trained. */
  readonly dropLast?: boolean;
}

/** What the run gives its stages, as far as batching needs it. */
export interface BatchContext {
  readonly processor: { readonly padTokenId: number } & MediaWeights;
  /** Evaluations pad on the left, so that the answer follows the prompt's last token. */
  readonly purpose: 'train' | 'evaluate';
}

const OPTIONS = z
  .strictObject({
    size: z.int().positive().optional(),
    tokens: z.int().positive().optional(),
    images: z.int().nonnegative().optional(),
    clips: z.int().nonnegative().optional(),
    maxSize: z.int().positive().optional(),
    dropLast: z.boolean().default(false),
  })
  .refine(({ size, tokens }) => (size === undefined) !== (tokens === undefined), {
    error: 'expected either size or tokens',
  })
  .superRefine(({ size, ...options }, context) => {
    if (size === undefined) return;
    for (const key of ['images', 'clips', 'maxSize'] as const) {
      if (options[key] === undefined) continue;
      context.addIssue({ code: 'custom', path: [key], message: 'expected nothing beside size' });
    }
  });

const definition = definePart({
  role: 'stage',
  kind: 'batch',
  schema: OPTIONS,
  create: (options, { processor, purpose }: BatchContext): Stage<Example, Batch> => {
    const { size, tokens, images, clips, maxSize, dropLast } = options;
    const budget = tokens === undefined ? undefined : { tokens, images, clips };
    const by = budget ? byBudget(budget, maxSize, { processor, purpose }) : { size: size ?? 1 };
    const padSide = purpose === 'evaluate' ? 'left' : 'right';
    return gather(
      by,
      (examples: readonly Example[]) => collate(examples, { padTokenId: processor.padTokenId, padSide }),
      {
        dropLast,
        weigh: batchBytes,
        ...('maxBytes' in by ? { weighItem: exampleBytes } : {}),
      },
    );
  },
});

/** Pads examples to the longest of their batch. One that alone exceeds the budget is quarantined.
 *  @example batch({ size: 16 }), batch({ tokens: 4096 }), batch({ tokens: 4096, images: 8, clips: 0 }) */
export function batch(
  options: BatchSize & BatchStageOptions,
): Part<'stage', BatchContext, Stage<Example, Batch>> {
  return definition(options);
}

/** The rule of a budget. What waits is bounded in bytes where the budget bounds all media, save in an evaluation, whose
 *  examples hold their pictures too. */
function byBudget(
  budget: Budget,
  maxSize: number | undefined,
  { processor, purpose }: BatchContext,
): BatchBy<Example> {
  const bounded = purpose === 'train' && [budget.images, budget.clips].some((most) => most !== undefined);
  const ofMedia = bounded ? mediaBytes(budget, processor) : undefined;
  return {
    measure: (example, origin) => measureWithin(budget, example, 'batch', origin),
    open: () => new Padded(budget, maxSize),
    ...(maxSize === undefined ? {} : { maxItems: maxSize }),
    ...(ofMedia === undefined ? {} : { maxBytes: budget.tokens * TOKEN_BYTES + ofMedia }),
  };
}

/** A batch being filled, each of its rows as long as the longest. */
class Padded implements Filling<Measure> {
  private readonly taken: MediaTaken;
  private number = 0;
  private longest = 0;

  constructor(
    private readonly budget: Budget,
    private readonly maxSize = Infinity,
  ) {
    this.taken = new MediaTaken(budget);
  }

  add(measure: Measure): number | undefined {
    const longest = Math.max(this.longest, measure.tokens);
    const number = this.number + 1;
    if (number > this.maxSize || number * longest > this.budget.tokens) return undefined;
    if (!this.taken.hasRoom(measure)) return undefined;
    this.taken.add(measure);
    this.number = number;
    this.longest = longest;
    return 0;
  }

  get isFull(): boolean {
    return this.number === this.maxSize || this.number * this.longest === this.budget.tokens;
  }
}
