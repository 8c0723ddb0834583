// Examples into one padded batch: typed arrays that own their memory, ready to be transferred to the device thread.

import { DataError, type Fault } from '../errors.js';
import { blankFloats, isBlank } from './blank.js';
import type { Batch, Example, NdArray } from './types.js';

/** The label that the loss ignores. */
export const IGNORED = -100;

export interface CollateOptions {
  /** Fills the positions behind (or before) a row's tokens; they are masked. */
  readonly padTokenId: number;
  /** 'right' by default; 'left' for generation, where the next token must follow the last one. */
  readonly padSide?: 'right' | 'left';
}

/** An example that does not fit its batch. */
export class CollateError extends DataError {
  /** Its place in the batch: the flow's `batch` quarantines that one and collates the others. */
  readonly index: number | undefined;

  constructor(index: number | undefined, fault: Omit<Fault, 'where'>) {
    super({ where: `collate: ${index === undefined ? 'the batch' : `example ${index}`}`, ...fault });
    this.index = index;
  }
}

/** Pads to the batch's longest example and puts all images, and all clips, behind each other, in the order of the rows. Clips
 *  are padded to the longest with zeros, and masked there.
 *  Labels are padded with -100. With padding on the left the first token of a padded row is not learnt either:
 *  it would be predicted from padding.
 *  @throws {CollateError} naming the example, when there is none, one is empty, some have labels, images of other sizes or
 *  targets and others not */
export function collate(
  examples: readonly Example[],
  { padTokenId, padSide = 'right' }: CollateOptions,
): Batch {
  if (examples.length === 0) {
    throw new CollateError(undefined, {
      expected: 'at least one example',
      received: 'none',
      remedy: 'drop empty batches before they are collated',
    });
  }
  examples.forEach(checkExample);
  const allOrNone = <K extends keyof Example>(key: K) => presentInAll(examples, key);
  const hasLabels = allOrNone('labels');
  const hasTargets = allOrNone('target');

  const width = Math.max(...examples.map(({ inputIds }) => inputIds.length));
  const shape = [examples.length, width];
  const inputIds = new Int32Array(examples.length * width).fill(padTokenId);
  const attentionMask = new Uint8Array(examples.length * width);
  const labels = hasLabels ? new Int32Array(examples.length * width).fill(IGNORED) : undefined;
  for (const [row, example] of examples.entries()) {
    const padding = padSide === 'left' ? width - example.inputIds.length : 0;
    const start = row * width + padding;
    inputIds.set(example.inputIds, start);
    attentionMask.fill(1, start, start + example.inputIds.length);
    if (!labels || !example.labels) continue;
    labels.set(example.labels, start);
    if (padding > 0) labels[start] = IGNORED;
  }

  const pixelValues = joinImages(examples);
  const clips = joinClips(examples);
  return {
    inputIds: { data: inputIds, shape },
    attentionMask: { data: attentionMask, shape },
    ...(labels ? { labels: { data: labels, shape } } : {}),
    ...(pixelValues ? { pixelValues } : {}),
    ...clips,
    numTokens: examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0),
    numLabels: labels ? countLabels(labels, width) : 0,
    numSamples: examples.length,
    ...(hasTargets ? { targets: examples.map(({ target }) => target!) } : {}),
  };
}

/** Bytes of the batch's arrays. */
export function batchBytes(batch: Batch): number {
  return arraysOf(batch).reduce((sum, { data }) => sum + data.byteLength, 0);
}

/** The buffers of the batch's arrays, for `postMessage`'s transfer list. After that the batch is empty here.
 *  `targets` have none: send the batch without them. */
export function transferables(batch: Batch): ArrayBuffer[] {
  return [...new Set(arraysOf(batch).map(({ data }) => data.buffer as ArrayBuffer))];
}

function arraysOf({
  inputIds,
  attentionMask,
  labels,
  pixelValues,
  inputFeatures,
  inputFeaturesMask,
}: Batch): NdArray<Float32Array | Int32Array | Uint8Array>[] {
  const arrays = [inputIds, attentionMask, labels, pixelValues, inputFeatures, inputFeaturesMask];
  return arrays.filter((array) => array !== undefined);
}

function countLabels(labels: Int32Array, width: number): number {
  let count = 0;
  for (const [i, label] of labels.entries()) if (label !== IGNORED && i % width !== 0) count++;
  return count;
}

function checkExample({ inputIds, labels, ...media }: Example, index: number): void {
  if (inputIds.length === 0) {
    throw new CollateError(index, {
      expected: 'at least one token',
      received: 'none',
      remedy: 'check the chat template',
    });
  }
  if (labels && labels.length !== inputIds.length) {
    throw new CollateError(index, {
      expected: `${inputIds.length} labels, one a token`,
      received: `${labels.length}`,
      remedy: 'labels are not shifted: label i belongs to token i',
    });
  }
  const { pixelValues, inputFeatures, inputFeaturesMask } = media;
  if (pixelValues) checkShape(index, 'pixelValues', pixelValues, ['images', 'channels', 'height', 'width']);
  if (!inputFeatures && !inputFeaturesMask) return;
  if (inputFeatures) checkShape(index, 'inputFeatures', inputFeatures, ['clips', 'frames', 'melBins']);
  if (inputFeaturesMask) checkShape(index, 'inputFeaturesMask', inputFeaturesMask, ['clips', 'frames']);
  const [features, mask] = [inputFeatures, inputFeaturesMask].map((array) =>
    array?.shape.slice(0, 2).join(', '),
  );
  if (features === mask) return;
  throw new CollateError(index, {
    expected: 'inputFeatures and inputFeaturesMask of the same clips and frames',
    received: `[${features ?? 'none'}] and [${mask ?? 'none'}]`,
    remedy: 'pass both as the processor gave them',
  });
}

function checkShape(
  index: number,
  name: string,
  { shape, data }: NdArray<Float32Array | Uint8Array>,
  dims: readonly string[],
): void {
  if (shape.length === dims.length && shape.reduce((product, n) => product * n, 1) === data.length) return;
  throw new CollateError(index, {
    expected: `${name} of shape [${dims.join(', ')}]`,
    received: `shape [${shape.join(', ')}] with ${data.length} values`,
    remedy: `check the ${name === 'pixelValues' ? 'image processor' : 'feature extractor'}`,
  });
}

function presentInAll(examples: readonly Example[], key: keyof Example): boolean {
  const expected = examples[0]![key] !== undefined;
  const other = examples.findIndex((example) => (example[key] !== undefined) !== expected);
  if (other < 0) return expected;
  throw new CollateError(other, {
    expected: `${expected ? '' : 'no '}${key}, as in example 0`,
    received: expected ? 'none' : 'some',
    remedy: 'give all samples of a stream to the same encode step',
  });
}

/** [images, 3, height, width] of all examples; undefined when none has an image. */
function joinImages(examples: readonly Example[]): NdArray<Float32Array> | undefined {
  let size: readonly number[] | undefined;
  const parts: NdArray<Float32Array>[] = [];
  for (const [index, { pixelValues }] of examples.entries()) {
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

/** Clips of all examples, [clips, frames, melBins], with their mask; nothing when none has a clip. */
function joinClips(examples: readonly Example[]): Pick<Batch, 'inputFeatures' | 'inputFeaturesMask'> {
  let numClips = 0;
  let frames = 0;
  let bins: number | undefined;
  for (const [index, { inputFeatures }] of examples.entries()) {
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
  for (const { inputFeatures, inputFeaturesMask } of examples) {
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
