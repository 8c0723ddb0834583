// The pictures and clips of a batch behind each other.

import { blankFloats, isBlank } from './blank.js';
import { CollateError } from './example-checks.js';
import type { Batch, Example, NdArray } from './types.js';

/** [images, 3, height, width] of all examples, in the order of their places; undefined when none has an image.
 *  @param order the examples' numbers in the order of the batch's rows
 *  @throws {CollateError} naming the example whose images have another size */
export function joinImages(
  examples: readonly Example[],
  order: Iterable<number> = examples.keys(),
): NdArray<Float32Array> | undefined {
  let size: readonly number[] | undefined;
  const parts: NdArray<Float32Array>[] = [];
  for (const index of order) {
    const { pixelValues } = examples[index]!;
    if (!pixelValues || pixelValues.data.length === 0) continue;
    const own = pixelValues.shape.slice(1);
    size ??= own;
    if (size.some((n, i) => n !== own[i])) {
      throw new CollateError(index, {
        expected: `images of shape [${size.join(', ')}], as the batch's first`,
        received: `[${own.join(', ')}]`,
        remedy: 'let the image processor resize all images to one size',
      });
    }
    parts.push(pixelValues);
  }
  if (!size) return undefined;
  const numValues = parts.reduce((sum, part) => sum + part.data.length, 0);
  const numImages = parts.reduce((sum, { shape }) => sum + shape[0]!, 0);
  const shape = [numImages, ...size];
  if (parts.every(({ data }) => isBlank(data))) return { data: blankFloats(numValues), shape };
  const data = new Float32Array(numValues);
  let offset = 0;
  for (const part of parts) {
    data.set(part.data, offset);
    offset += part.data.length;
  }
  return { data, shape };
}

/** Clips of all examples, [clips, frames, melBins], with their mask; nothing when none has a clip.
 *  @param order as for images
 *  @throws {CollateError} naming the example whose features have other mel bins */
export function joinClips(
  examples: readonly Example[],
  order: readonly number[] = [...examples.keys()],
): Pick<Batch, 'inputFeatures' | 'inputFeaturesMask'> {
  let numClips = 0;
  let frames = 0;
  let bins: number | undefined;
  for (const index of order) {
    const { inputFeatures } = examples[index]!;
    const [clips = 0, length = 0, own = 0] = inputFeatures?.shape ?? [];
    if (clips === 0) continue;
    numClips += clips;
    frames = Math.max(frames, length);
    bins ??= own;
    if (own === bins) continue;
    throw new CollateError(index, {
      expected: `features of ${bins} mel bins, as the batch's first`,
      received: String(own),
      remedy: 'give all samples of a stream to the same encode step',
    });
  }
  if (bins === undefined) return {};
  const blank = examples.every(({ inputFeatures }) => !inputFeatures || isBlank(inputFeatures.data));
  const numValues = numClips * frames * bins;
  const features = blank ? blankFloats(numValues) : new Float32Array(numValues);
  const mask = new Uint8Array(numClips * frames);
  let clip = 0;
  for (const index of order) {
    const { inputFeatures, inputFeaturesMask } = examples[index]!;
    if (!inputFeatures || !inputFeaturesMask) continue;
    const [clips, length] = inputFeatures.shape as readonly [number, number, number];
    for (let own = 0; own < clips; own++, clip++) {
      const begin = own * length;
      if (!blank)
        features.set(
          inputFeatures.data.subarray(begin * bins, (begin + length) * bins),
          clip * frames * bins,
        );
      mask.set(inputFeaturesMask.data.subarray(begin, begin + length), clip * frames);
    }
  }
  return {
    inputFeatures: { data: features, shape: [numClips, frames, bins] },
    inputFeaturesMask: { data: mask, shape: [numClips, frames] },
  };
}
