// Examples into one padded batch: typed arrays that own their memory, ready to be transferred to the device thread.

import { CollateError, checkExamples, presentInAll } from './example-checks.js';
import { joinClips, joinImages } from './join-media.js';
import type { Batch, Example, NdArray } from './types.js';

export { CollateError };

/** The label that the loss ignores. */
export const IGNORED = -100;

export interface CollateOptions {
  /** Fills the positions behind (or before) a row's tokens; they are masked. */
  readonly padTokenId: number;
  /** 'right' by default; 'left' for generation, where the next token must follow the last one. */
  readonly padSide?: 'right' | 'left';
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
  checkExamples(examples, 'collated');
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

const ARRAYS = [
  'inputIds',
  'attentionMask',
  'positionIds',
  'labels',
  'pixelValues',
  'inputFeatures',
  'inputFeaturesMask',
] as const;

function arraysOf(batch: Batch): NdArray<Float32Array | Int32Array | Uint8Array>[] {
  return ARRAYS.map((key) => batch[key]).filter((array) => array !== undefined);
}

function countLabels(labels: Int32Array, width: number): number {
  let count = 0;
  for (const [i, label] of labels.entries()) if (label !== IGNORED && i % width !== 0) count++;
  return count;
}
