// Batch -> tensors on the device, viewing the transferred arrays where the dtype allows.

import type { Batch, NdArray } from '../data/types.js';
import { type Tensor, adoptArray, scope } from '../tensor/index.js';

/** What the model takes. int64 ids, positions and labels [batch, length]; bool mask; float pixels [images, 3, height, width], float
 *  log-mel [clips, frames, melBins] with its bool mask. */
export interface BatchTensors {
  readonly inputIds: Tensor;
  /** Of padded rows. Packed ones go without: their positions tell samples apart, and padding as one more of them. */
  readonly attentionMask?: Tensor;
  /** Of packed rows. */
  readonly positionIds?: Tensor;
  readonly labels?: Tensor;
  readonly pixelValues?: Tensor;
  readonly inputFeatures?: Tensor;
  readonly inputFeaturesMask?: Tensor;
}

/** The tensors belong to the scope that this is called in, else to the caller. The batch's arrays must not change
 *  afterwards. */
export function toTensors(batch: Batch, device: string): BatchTensors {
  const move = (
    array: NdArray<Float32Array | Int32Array | Uint8Array>,
    dtype: 'int64' | 'bool' | 'float32',
  ) => adoptArray(array.data, array.shape).to(dtype).to(device);
  return scope(() => ({
    inputIds: move(batch.inputIds, 'int64'),
    ...(batch.positionIds
      ? { positionIds: move(batch.positionIds, 'int64') }
      : { attentionMask: move(batch.attentionMask, 'bool') }),
    ...(batch.labels && { labels: move(batch.labels, 'int64') }),
    ...(batch.pixelValues && { pixelValues: move(batch.pixelValues, 'float32') }),
    ...(batch.inputFeatures && { inputFeatures: move(batch.inputFeatures, 'float32') }),
    ...(batch.inputFeaturesMask && { inputFeaturesMask: move(batch.inputFeaturesMask, 'bool') }),
  }));
}
