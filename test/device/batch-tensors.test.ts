import { expect, test } from 'vitest';
import { toTensors } from '../../src/device/batch-tensors.js';
import type { Batch } from '../../src/data/types.js';
import { scope } from '../../src/tensor/index.js';

const words: Batch = {
  inputIds: { data: Int32Array.of(2, 7, 0), shape: [1, 3] },
  attentionMask: { data: Uint8Array.of(1, 1, 0), shape: [1, 3] },
  numTokens: 2,
  numLabels: 0,
  numSamples: 1,
};

test('a batch of words becomes ids and a mask, nothing else', () => {
  scope(() => {
    const { inputIds, attentionMask, ...rest } = toTensors(words, 'cpu');
    expect([inputIds.dtype, attentionMask?.dtype]).toEqual(['int64', 'bool']);
    expect(Array.from(inputIds.toTypedArray(), Number)).toEqual([2, 7, 0]);
    expect(rest).toEqual({});
  });
});

test('pictures and clips become floats, the mask of clips bools', () => {
  scope(() => {
    const { pixelValues, inputFeatures, inputFeaturesMask } = toTensors(
      {
        ...words,
        pixelValues: { data: new Float32Array(12).fill(0.5), shape: [1, 3, 2, 2] },
        inputFeatures: { data: Float32Array.of(-1, -2, -3, -4), shape: [1, 2, 2] },
        inputFeaturesMask: { data: Uint8Array.of(1, 0), shape: [1, 2] },
      },
      'cpu',
    );
    expect(pixelValues!.shape).toEqual([1, 3, 2, 2]);
    expect(inputFeatures!.dtype).toBe('float32');
    expect(inputFeatures!.toTypedArray()).toEqual(Float32Array.of(-1, -2, -3, -4));
    expect(inputFeaturesMask!.dtype).toBe('bool');
    expect(inputFeaturesMask!.toTypedArray()).toEqual(Uint8Array.of(1, 0));
  });
});

test('packed rows go with their positions, and without a mask', () => {
  scope(() => {
    const positionIds = { data: Int32Array.of(0, 1, 0), shape: [1, 3] };
    const { positionIds: given, ...rest } = toTensors({ ...words, positionIds }, 'cpu');
    expect(given?.dtype).toBe('int64');
    expect(Array.from(given!.toTypedArray(), Number)).toEqual([0, 1, 0]);
    expect(Object.keys(rest)).toEqual(['inputIds']);
  });
});
