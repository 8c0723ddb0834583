// The pipeline file's `batch`: gathers examples and pads them with the processor's padding token.

import { batch as gather } from '../flow/index.js';
import type { Stage } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { z } from '../schema.js';
import { batchBytes, collate } from './collate.js';
import type { Batch, Example } from './types.js';

/** When a batch is full: at so many samples, or before its padded tokens (samples times the longest) would be more. */
export type BatchSize =
  | { readonly size: number }
  | {
      readonly tokens: number;
      /** The most samples, however short. With it the pool can be checked before the run. */
      readonly maxSize?: number;
    };

export interface BatchStageOptions {
  /** Leaves out a last batch that did not get full; by default it is trained. */
  readonly dropLast?: boolean;
}

/** What the run gives its stages, as far as batching needs it. */
export interface BatchContext {
  readonly processor: { readonly padTokenId: number };
  /** Evaluations pad on the left, so that the answer follows the prompt's last token. */
  readonly purpose: 'train' | 'evaluate';
}

const OPTIONS = z
  .strictObject({
    size: z.int().positive().optional(),
    tokens: z.int().positive().optional(),
    maxSize: z.int().positive().optional(),
    dropLast: z.boolean().default(false),
  })
  .refine(({ size, tokens }) => (size === undefined) !== (tokens === undefined), {
    error: 'expected either size or tokens',
  })
  .refine(({ size, maxSize }) => size === undefined || maxSize === undefined, {
    path: ['maxSize'],
    error: 'expected nothing beside size',
  });

const definition = definePart({
  role: 'stage',
  kind: 'batch',
  schema: OPTIONS,
  create: (options, { processor, purpose }: BatchContext): Stage<Example, Batch> => {
    const { size, tokens = 0, maxSize, dropLast } = options;
    const by =
      size !== undefined
        ? { size }
        : {
            cost: ({ inputIds }: Example) => inputIds.length,
            limit: tokens,
            padded: true,
            ...(maxSize === undefined ? {} : { maxItems: maxSize }),
          };
    const padSide = purpose === 'evaluate' ? 'left' : 'right';
    return gather(
      by,
      (examples: readonly Example[]) => collate(examples, { padTokenId: processor.padTokenId, padSide }),
      {
        dropLast,
        weigh: batchBytes,
      },
    );
  },
});

/** @example batch({ size: 16 }), batch({ tokens: 4096 }) */
export function batch(
  options: BatchSize & BatchStageOptions,
): Part<'stage', BatchContext, Stage<Example, Batch>> {
  return definition(options);
}
