// What an example takes of a batch, and what a batch has to give: tokens, images, clips.

import { DataError } from '../errors.js';
import type { Origin } from '../flow/types.js';
import type { Media } from './media.js';
import type { Example } from './types.js';

/** What one example takes. */
export interface Measure {
  readonly tokens: number;
  readonly images: number;
  readonly clips: number;
}

/** The most that a batch takes. */
export interface Budget {
  /** Of one row. */
  readonly tokens: number;
  readonly images?: number | undefined;
  readonly clips?: number | undefined;
}

/** What the processor knows of the media of an example. */
export interface MediaWeights {
  readonly media?: Media;
  /** Of one image; 0 where there are none, or of no one size. */
  readonly imageBytes?: number;
  /** Of the longest clip. */
  readonly clipBytes?: number;
}

/** An example's ids and labels, in bytes a token. */
export const TOKEN_BYTES = 2 * Int32Array.BYTES_PER_ELEMENT;

export function measureOf({ inputIds, pixelValues, inputFeatures }: Example): Measure {
  return {
    tokens: inputIds.length,
    images: pixelValues?.shape[0] ?? 0,
    clips: inputFeatures?.shape[0] ?? 0,
  };
}

/** Measures an example that is to stand in a batch.
 *  @param stage names the batching stage
 *  @throws {DataError} when the example has no tokens, or alone exceeds the budget */
export function measureWithin(budget: Budget, example: Example, stage: string, origin: Origin): Measure {
  const measure = measureOf(example);
  const where = `${stage}: ${origin.file} row ${origin.row}`;
  if (measure.tokens === 0) {
    throw new DataError({
      where,
      expected: 'at least one token',
      received: 'none',
      remedy: 'check the chat template',
    });
  }
  for (const key of ['tokens', 'images', 'clips'] as const) {
    const most = budget[key] ?? Infinity;
    if (measure[key] <= most) continue;
    throw new DataError({
      where,
      expected: `an example of at most ${most} ${key}`,
      received: String(measure[key]),
      remedy: `raise ${stage}'s ${key}, or ${key === 'tokens' ? 'shorten' : 'show fewer in'} or filter such samples before`,
    });
  }
  return measure;
}

/** The sums of what has been taken of a batch's media. */
export class MediaTaken {
  private images = 0;
  private clips = 0;

  constructor(private readonly budget: Budget) {}

  hasRoom({ images, clips }: Measure): boolean {
    const { images: mostImages = Infinity, clips: mostClips = Infinity } = this.budget;
    return this.images + images <= mostImages && this.clips + clips <= mostClips;
  }

  add({ images, clips }: Measure): void {
    this.images += images;
    this.clips += clips;
  }
}

/** The most bytes that the media of a batch weigh; undefined where that cannot be told.
 *  @param places tokens in which their placeholders would have to stand; left out, only the budget bounds them */
export function mediaBytes(
  { images, clips }: Budget,
  { media = {}, imageBytes = 0, clipBytes = 0 }: MediaWeights,
  places = Infinity,
): number | undefined {
  const most = (medium: Media['image'] | Media['audio'], budget: number): number =>
    medium ? Math.min(budget, Math.floor(places / medium.softTokens)) : 0;
  const numImages = most(media.image, images ?? Infinity);
  const numClips = most(media.audio, clips ?? Infinity);
  if (numImages > 0 && imageBytes === 0) return undefined;
  const bytes = numImages * imageBytes + numClips * clipBytes;
  return Number.isFinite(bytes) ? bytes : undefined;
}

/** Bytes of an example's arrays. */
export function exampleBytes({
  inputIds,
  labels,
  pixelValues,
  inputFeatures,
  inputFeaturesMask,
}: Example): number {
  const arrays = [inputIds, labels, pixelValues?.data, inputFeatures?.data, inputFeaturesMask?.data];
  return arrays.reduce((sum, array) => sum + (array?.byteLength ?? 0), 0);
}
