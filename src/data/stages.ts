// The pipeline file's `decodeMedia` and `encode`: stages made when the run starts, since they need the model's processor.

import { orderedMap } from '../flow/index.js';
import type { Stage } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { z } from '../schema.js';
import { decodeSampleMedia, encodeSample } from './encode-sample.js';
import type { Processor } from './processor.js';
import type { Example, Sample } from './types.js';

/** What the run gives its stages. */
export interface StageContext {
  readonly processor: Processor;
  /** Train on the samples, or have them answered and compare. */
  readonly purpose: 'train' | 'evaluate';
}

export interface DecodeMediaOptions {
  /** Samples at once; 4 by default, as many as Node has threads for it. */
  readonly concurrency?: number;
}

export interface EncodeStageOptions {
  /** Samples at once; 4 by default. */
  readonly concurrency?: number;
  /** The most images in one sample, for the pool's reckoning; 1 by default. */
  readonly maxImages?: number;
  /** The most tokens in one sample, for the pool's reckoning; 2048 by default. */
  readonly maxTokens?: number;
}

const concurrency = z.int().positive().default(4);

const decodeMediaPart = definePart({
  role: 'stage',
  kind: 'decodeMedia',
  schema: z.strictObject({ concurrency }),
  create: (options, _context: StageContext): Stage<Sample, Sample> =>
    orderedMap(decodeSampleMedia, { name: 'decodeMedia', ...options, weigh: sampleBytes }),
});

const encodePart = definePart({
  role: 'stage',
  kind: 'encode',
  schema: z.strictObject({
    concurrency,
    maxImages: z.int().nonnegative().default(1),
    maxTokens: z.int().positive().default(2048),
  }),
  create: (
    { concurrency, maxImages, maxTokens },
    { processor, purpose }: StageContext,
  ): Stage<Sample, Example> =>
    orderedMap((sample: Sample) => encodeSample(processor, sample, { purpose }), {
      name: 'encode',
      concurrency,
      itemBytes: maxImages * processor.imageBytes + maxTokens * 2 * Int32Array.BYTES_PER_ELEMENT,
      weigh: exampleBytes,
    }),
});

/** Decodes the pictures of samples, off the JavaScript thread. One that cannot be decoded quarantines its sample.
 *  @example decodeMedia({ concurrency: 4 }) */
export function decodeMedia(
  options: DecodeMediaOptions = {},
): Part<'stage', StageContext, Stage<Sample, Sample>> {
  return decodeMediaPart(options);
}

/** Samples to tokens, labels and pixel values; in an evaluation to prompts with their expected answers. */
export function encode(
  options: EncodeStageOptions = {},
): Part<'stage', StageContext, Stage<Sample, Example>> {
  return encodePart(options);
}

/** Bytes of a sample's pictures and text. */
function sampleBytes({ messages }: Sample): number {
  const parts = messages.flatMap(({ content }) => content);
  return parts.reduce((sum, part) => {
    if (part.type === 'text') return sum + 2 * part.text.length;
    const media = part.type === 'image' ? part.image : part.audio;
    return sum + (media instanceof Uint8Array ? media : media.data).byteLength;
  }, 0);
}

/** Bytes of an example's arrays, and of the picture that an evaluation keeps. */
function exampleBytes({ inputIds, labels, pixelValues, target }: Example): number {
  const arrays = [inputIds, labels, pixelValues?.data, target?.image?.data];
  return arrays.reduce((sum, array) => sum + (array?.byteLength ?? 0), 0);
}
