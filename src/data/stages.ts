// The pipeline file's `decodeMedia` and `encode`: stages made when the run starts, since they need the model's processor.

import { availableParallelism } from 'node:os';
import { type MapContext, orderedMap } from '../flow/index.js';
import type { Origin, Stage } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { z } from '../schema.js';
import { exampleBytes } from './budget.js';
import { decodeSampleMedia, encodeSample } from './encode-sample.js';
import { hearingOf } from './media-arrays.js';
import type { Processor } from './processor.js';
import type { Example, Sample } from './types.js';

/** What the run gives its stages. */
export interface StageContext {
  readonly processor: Processor;
  /** Train on the samples, or have them answered and compare. */
  readonly purpose: 'train' | 'evaluate';
  /** Is told what was left out of a sample that goes on. */
  readonly onNotice?: (notice: SampleNotice) => void;
}

/** What people should know of a sample that was not taken whole. */
export interface SampleNotice {
  readonly stage: string;
  readonly origin: Origin;
  readonly message: string;
  /** It is told however many others are. */
  readonly always?: boolean;
}

export interface DecodeMediaOptions {
  /** Samples at once. 'auto', the default, begins with 4, as many as Node has threads for it, and tunes itself, up to
   *  twice the processors. */
  readonly concurrency?: number | 'auto';
}

export interface EncodeStageOptions {
  /** Samples at once; 'auto' by default. */
  readonly concurrency?: number | 'auto';
  /** The most images in one sample, for the pool's reckoning; 1 by default. */
  readonly maxImages?: number;
  /** The most clips in one sample, for the pool's reckoning; by default as many as weigh what the heaviest sample so far did. */
  readonly maxClips?: number;
  /** A sample of more tokens is quarantined. By default the tokenizer's `model_max_length` where it states one, and the pool
   *  reckons with 2048. */
  readonly maxTokens?: number;
}

/** What a sample is reckoned with where nothing bounds it. */
const RECKONED_TOKENS = 2048;

const concurrency = z
  .union([z.int().positive(), z.literal('auto')])
  .default('auto')
  .transform((given) => (given === 'auto' ? { upTo: Math.max(4, 2 * availableParallelism()) } : given));

const decodeMediaPart = definePart({
  role: 'stage',
  kind: 'decodeMedia',
  schema: z.strictObject({ concurrency }),
  create: ({ concurrency }, { processor }: StageContext): Stage<Sample, Sample> => {
    const audio = processor.media.audio?.settings;
    const hearing = audio && { hearing: hearingOf(audio) };
    return heaviestSoFar(
      (weigh) =>
        orderedMap(
          (sample: Sample, { signal }) =>
            decodeSampleMedia(sample, { ...hearing, signal, reader: processor.reader }),
          { name: 'decodeMedia', concurrency, weigh },
        ),
      { bytesOf: sampleBytes, grows: hasClips },
    );
  },
});

const encodePart = definePart({
  role: 'stage',
  kind: 'encode',
  schema: z.strictObject({
    concurrency,
    maxImages: z.int().nonnegative().default(1),
    maxClips: z.int().nonnegative().optional(),
    maxTokens: z.int().positive().optional(),
  }),
  create: (
    { concurrency, maxImages, maxClips, maxTokens },
    { processor, purpose, onNotice }: StageContext,
  ): Stage<Sample, Example> => {
    const name = 'encode';
    const options = { purpose, ...(maxTokens !== undefined && { maxTokens }) };
    const encoded = async (sample: Sample, { origin }: MapContext): Promise<Example> => {
      const example = await encodeSample(processor, sample, options);
      for (const message of example.notices ?? []) onNotice?.({ stage: name, origin, message });
      return example;
    };
    const itemBytes =
      maxImages * processor.imageBytes +
      (maxClips ?? 0) * processor.clipBytes +
      (maxTokens ?? RECKONED_TOKENS) * 2 * Int32Array.BYTES_PER_ELEMENT;
    return heaviestSoFar((weigh) => orderedMap(encoded, { name, concurrency, itemBytes, weigh }), {
      bytesOf: bytesOfExample,
      grows: ({ inputFeatures }) => maxClips === undefined && inputFeatures !== undefined,
    });
  },
});

/** Decodes the pictures and clips of samples, off the JavaScript thread. One that cannot be decoded quarantines its sample.
 *  @example decodeMedia({ concurrency: 4 }) */
export function decodeMedia(
  options: DecodeMediaOptions = {},
): Part<'stage', StageContext, Stage<Sample, Sample>> {
  return decodeMediaPart(options);
}

/** Samples to tokens, labels, pixel values and log-mel features; in an evaluation to prompts with their expected answers.
 *  @example encode({ maxImages: 0, maxClips: 1, maxTokens: 512 }) */
export function encode(
  options: EncodeStageOptions = {},
): Part<'stage', StageContext, Stage<Sample, Example>> {
  return encodePart(options);
}

/** A stage that asks for as much room a sample as the heaviest one took: samples with clips may weigh a hundred times
 *  their encoded bytes, and how long clips are is known when the first are decoded.
 *  @param build gets the function that weighs
 *  @param options.grows samples that count */
function heaviestSoFar<A, B>(
  build: (weigh: (value: B) => number) => Stage<A, B>,
  { bytesOf, grows }: { bytesOf: (value: B) => number; grows: (value: B) => boolean },
): Stage<A, B> {
  let heaviest = 0;
  const stage = build((value) => {
    const bytes = bytesOf(value);
    if (bytes > heaviest && grows(value)) heaviest = bytes;
    return bytes;
  });
  const { itemBytes = 0 } = stage;
  return {
    ...stage,
    get itemBytes() {
      return Math.max(itemBytes, heaviest);
    },
  };
}

function hasClips({ messages }: Sample): boolean {
  return messages.some(({ content }) => content.some(({ type }) => type === 'audio'));
}

/** Bytes of a sample's media and text. */
function sampleBytes({ messages }: Sample): number {
  const parts = messages.flatMap(({ content }) => content);
  return parts.reduce((sum, part) => {
    if (part.type === 'text') return sum + 2 * part.text.length;
    const media = part.type === 'image' ? part.image : part.audio;
    return sum + (media instanceof Uint8Array ? media : media.data).byteLength;
  }, 0);
}

/** Bytes of an example's arrays, and of the picture that an evaluation keeps. */
function bytesOfExample(example: Example): number {
  return exampleBytes(example) + (example.target?.image?.data.byteLength ?? 0);
}
