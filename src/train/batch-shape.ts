// What of a batch the count of its operations depends on: see `FlopCounter`.

import type { Batch } from '../data/types.js';
import { type BatchShape, textLoad } from '../models/gemma3n/index.js';

/** @param window of sliding layers */
export function batchShape(batch: Batch, window: number): BatchShape {
  const [images = 0, , height = 0, width = 0] = batch.pixelValues?.shape ?? [];
  return {
    ...textLoad(sampleLengths(batch), window),
    labels: batch.numLabels,
    images,
    imageSize: [height, width],
    clips: clipFrames(batch),
  };
}

/** Real tokens of each sample: of each row, or of each that is packed into one. */
export function sampleLengths({ attentionMask, positionIds }: Batch): number[] {
  const [rows = 0, width = 0] = attentionMask.shape;
  const lengths: number[] = [];
  for (let row = 0; row < rows; row++) {
    let length = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      if (attentionMask.data[i] === 0) continue;
      if (positionIds?.data[i] === 0 && length > 0) {
        lengths.push(length);
        length = 0;
      }
      length += 1;
    }
    if (length > 0) lengths.push(length);
  }
  return lengths;
}

function clipFrames({ inputFeatures, inputFeaturesMask }: Batch): number[] {
  const [clips = 0, frames = 0] = inputFeatures?.shape ?? [];
  return Array.from({ length: clips }, (_, clip) => {
    if (!inputFeaturesMask) return frames;
    let real = 0;
    for (let i = clip * frames; i < (clip + 1) * frames; i++) real += inputFeaturesMask.data[i] ? 1 : 0;
    return real;
  });
}
