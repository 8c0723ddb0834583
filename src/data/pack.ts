// The pipeline file's `pack`: gathers examples into rows of several, instead of padding each to the longest.

import { ConfigError } from '../errors.js';
import { type Filling, batch as gather } from '../flow/index.js';
import type { Stage } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { z } from '../schema.js';
import type { BatchContext } from './batch.js';
import {
  type Budget,
  type Measure,
  MediaTaken,
  TOKEN_BYTES,
  exampleBytes,
  measureWithin,
  mediaBytes,
} from './budget.js';
import { batchBytes } from './collate.js';
import { packRows } from './pack-rows.js';
import type { Batch, Example } from './types.js';

export interface PackOptions {
  /** The most tokens in a row. */
  readonly tokens: number;
  /** The most images in a batch; 0 is none. By default as many as have room for their soft tokens. */
  readonly images?: number;
  /** The most clips in a batch; 0 is none. By default as many as have room for their soft tokens. */
  readonly clips?: number;
  /** The most samples in a batch, however short. */
  readonly maxSamples?: number;
  /** Rows in a batch; 1 by default. */
  readonly rows?: number;
}

const media = z.int().nonnegative().optional();

/** What packing adds to each token, a position and a mask, in bytes. */
const ADDED_BYTES = Int32Array.BYTES_PER_ELEMENT + 1;

const definition = definePart({
  role: 'stage',
  kind: 'pack',
  schema: z.strictObject({
    tokens: z.int().positive(),
    images: media,
    clips: media,
    maxSamples: z.int().positive().optional(),
    rows: z.int().positive().default(1),
  }),
  create: (options, { processor, purpose }: BatchContext): Stage<Example, Batch> => {
    if (purpose === 'evaluate') throw evaluationError();
    const name = 'pack';
    const { maxSamples, rows, ...budget } = options;
    const places = rows * budget.tokens;
    const ofMedia = mediaBytes(budget, processor, places);
    return gather(
      {
        measure: (example: Example, origin): Measure => measureWithin(budget, example, name, origin),
        open: () => new Rows(budget, rows, maxSamples),
        ...(maxSamples === undefined ? {} : { maxItems: maxSamples }),
        ...(ofMedia === undefined ? {} : { maxBytes: places * (TOKEN_BYTES + ADDED_BYTES) + ofMedia }),
      },
      (examples: readonly Example[], _origins, slots) => packRows(examples, slots, processor.padTokenId),
      {
        name,
        weighItem: (example) => exampleBytes(example) + example.inputIds.length * ADDED_BYTES,
        weigh: batchBytes,
      },
    );
  },
});

/** Gathers examples in their order into rows of at most `tokens` tokens, several samples in a row: each goes to the first row
 *  that has room, and the first one that fits in none begins the next batch. Positions begin again in each sample, and no
 *  token attends to another sample's: loss and gradients are those of the samples padded, without their padding.
 *
 *  A sample longer than `tokens`, or with more media than a batch may have, is quarantined. Packed rows cannot be answered:
 *  give an evaluation a flow of its own that ends in `batch`.
 *
 *  @example pack({ tokens: 4096 }), pack({ tokens: 2048, rows: 4, images: 8, clips: 0 }) */
export function pack(options: PackOptions): Part<'stage', BatchContext, Stage<Example, Batch>> & PackOptions {
  return definition(options);
}

/** Rows being filled, first fit. */
class Rows implements Filling<Measure> {
  private readonly lengths: number[];
  private readonly taken: MediaTaken;
  private number = 0;

  constructor(
    private readonly budget: Budget,
    rows: number,
    private readonly maxSamples = Infinity,
  ) {
    this.lengths = new Array<number>(rows).fill(0);
    this.taken = new MediaTaken(budget);
  }

  add(measure: Measure): number | undefined {
    if (this.number === this.maxSamples || !this.taken.hasRoom(measure)) return undefined;
    const row = this.lengths.findIndex((length) => length + measure.tokens <= this.budget.tokens);
    if (row < 0) return undefined;
    this.number += 1;
    this.taken.add(measure);
    this.lengths[row] = (this.lengths[row] ?? 0) + measure.tokens;
    return row;
  }

  get isFull(): boolean {
    return this.number === this.maxSamples || this.lengths.every((length) => length === this.budget.tokens);
  }
}

function evaluationError(): ConfigError {
  return new ConfigError({
    where: 'pack',
    expected: 'a flow to train on',
    received: "an evaluation's: samples that share a row cannot be answered each",
    remedy: 'give the evaluation a flow of its own, which ends in batch({ size })',
  });
}
