// Examples as a model takes them: padded on the left, on its device.

import { collate } from '../data/collate.js';
import type { Example, NdArray } from '../data/types.js';
import type { CausalLm, ModelInputs } from '../models/gemma3n/causal-lm.js';
import { adoptArray, scope } from '../tensor/index.js';

/** The tensors belong to the scope that this is called in, else to the caller. */
export function inputsOf(model: CausalLm, examples: readonly Example[], padTokenId: number): ModelInputs {
  const { device } = model.languageModel.perLayerModelProjection.weight;
  const batch = collate(examples, { padTokenId, padSide: 'left' });
  const move = (
    array: NdArray<Float32Array | Int32Array | Uint8Array> | undefined,
    dtype: 'int64' | 'bool' | 'float32',
  ) => array && adoptArray(array.data, array.shape).to(dtype).to(device);
  return scope(() => ({
    inputIds: move(batch.inputIds, 'int64'),
    attentionMask: move(batch.attentionMask, 'bool'),
    pixelValues: move(batch.pixelValues, 'float32'),
    inputFeatures: move(batch.inputFeatures, 'float32'),
    inputFeaturesMask: move(batch.inputFeaturesMask, 'bool'),
  }));
}

export function disposeInputs(inputs: ModelInputs): void {
  for (const tensor of Object.values(inputs)) (tensor as { dispose(): void } | undefined)?.dispose();
}
