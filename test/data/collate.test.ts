import { describe, expect, test } from 'vitest';
import { batchBytes, collate, CollateError, transferables } from '../../src/data/collate.js';
import type { Example } from '../../src/data/types.js';

const ids = (...values: number[]): Int32Array => Int32Array.from(values);

function images(count: number, value: number, [height, width] = [2, 2]): NonNullable<Example['pixelValues']> {
  return {
    data: new Float32Array(count * 3 * height * width).fill(value),
    shape: [count, 3, height, width],
  };
}

const long: Example = {
  inputIds: ids(2, 5, 6, 7),
  labels: ids(-100, -100, 6, 7),
  pixelValues: images(1, 0.5),
};
const short: Example = { inputIds: ids(2, 9), labels: ids(2, 9), pixelValues: images(2, 0.25) };

describe('collate', () => {
  test('pads on the right to the longest, masked and not learnt', () => {
    const batch = collate([long, short], { padTokenId: 99 });
    expect(batch.inputIds).toEqual({ data: ids(2, 5, 6, 7, 2, 9, 99, 99), shape: [2, 4] });
    expect(batch.attentionMask).toEqual({ data: Uint8Array.from([1, 1, 1, 1, 1, 1, 0, 0]), shape: [2, 4] });
    expect(batch.labels).toEqual({ data: ids(-100, -100, 6, 7, 2, 9, -100, -100), shape: [2, 4] });
    expect([batch.numTokens, batch.numSamples]).toEqual([6, 2]);
  });

  test("counts labels that the loss counts: none at a row's first position", () => {
    expect(collate([long, short], { padTokenId: 0 }).numLabels).toBe(3);
    expect(collate([short], { padTokenId: 0 }).numLabels).toBe(1);
  });

  test('pads on the left, where the first token is not learnt either', () => {
    const batch = collate([long, short], { padTokenId: 99, padSide: 'left' });
    expect(batch.inputIds.data).toEqual(ids(2, 5, 6, 7, 99, 99, 2, 9));
    expect(batch.attentionMask.data).toEqual(Uint8Array.from([1, 1, 1, 1, 0, 0, 1, 1]));
    expect(batch.labels!.data).toEqual(ids(-100, -100, 6, 7, -100, -100, -100, 9));
    expect(batch.numLabels).toBe(collate([long, short], { padTokenId: 99 }).numLabels);
  });

  test('puts images behind each other in the order of the rows', () => {
    const { pixelValues } = collate([long, { ...short, pixelValues: images(0, 1) }, short], {
      padTokenId: 0,
    });
    expect(pixelValues!.shape).toEqual([3, 3, 2, 2]);
    expect(pixelValues!.data).toEqual(
      Float32Array.from([...Array<number>(12).fill(0.5), ...Array<number>(24).fill(0.25)]),
    );
  });

  test('pads clips of different lengths, in the order of the rows', () => {
    const clips = (count: number, frames: number, value: number): Partial<Example> => ({
      inputFeatures: {
        data: new Float32Array(count * frames * 2).map((_, i) => value + i),
        shape: [count, frames, 2],
      },
      inputFeaturesMask: { data: new Uint8Array(count * frames).fill(1), shape: [count, frames] },
    });
    const { inputIds } = short;
    const batch = collate(
      [
        { inputIds, ...clips(2, 1, 10) },
        { inputIds },
        { inputIds, ...clips(0, 5, 0) },
        { inputIds, ...clips(1, 3, 50) },
      ],
      { padTokenId: 0 },
    );
    expect(batch.inputFeatures).toEqual({
      data: Float32Array.of(10, 11, 0, 0, 0, 0, 12, 13, 0, 0, 0, 0, 50, 51, 52, 53, 54, 55),
      shape: [3, 3, 2],
    });
    expect(batch.inputFeaturesMask).toEqual({
      data: Uint8Array.of(1, 0, 0, 1, 0, 0, 1, 1, 1),
      shape: [3, 3],
    });
    expect(batchBytes(batch)).toBe(8 * 4 + 8 + 18 * 4 + 9);
    expect(transferables(batch)).toHaveLength(4);
    expect(collate([{ inputIds }], { padTokenId: 0 })).not.toHaveProperty('inputFeatures');

    const other: Example = {
      inputIds,
      inputFeatures: { data: new Float32Array(9), shape: [1, 3, 3] },
      inputFeaturesMask: { data: new Uint8Array(3), shape: [1, 3] },
    };
    expect(() => collate([{ inputIds, ...clips(1, 1, 0) }, other], { padTokenId: 0 })).toThrow(
      "collate: example 1: expected features of 2 mel bins, as the batch's first, received 3;",
    );
    expect(() =>
      collate([{ ...other, inputFeaturesMask: { data: new Uint8Array(4), shape: [1, 4] } }], {
        padTokenId: 0,
      }),
    ).toThrow(
      'collate: example 0: expected inputFeatures and inputFeaturesMask of the same clips and frames, received [1, 3] and [1, 4];',
    );
    expect(() => collate([{ inputIds, inputFeatures: other.inputFeatures! }], { padTokenId: 0 })).toThrow(
      'received [1, 3] and [none];',
    );
    expect(() =>
      collate([{ ...other, inputFeatures: { data: new Float32Array(8), shape: [1, 3, 3] } }], {
        padTokenId: 0,
      }),
    ).toThrow(
      'expected inputFeatures of shape [clips, frames, melBins], received shape [1, 3, 3] with 8 values; check the feature extractor',
    );
  });

  test('samples without images may stand beside samples with them', () => {
    const { inputIds, labels } = short;
    expect(collate([{ inputIds, labels: labels! }, long], { padTokenId: 0 }).pixelValues!.shape[0]).toBe(1);
    expect(collate([{ inputIds }], { padTokenId: 0 })).not.toHaveProperty('pixelValues');
    expect(collate([{ inputIds }], { padTokenId: 0 })).not.toHaveProperty('labels');
    expect(collate([{ inputIds }], { padTokenId: 0 }).numLabels).toBe(0);
  });

  test('keeps the targets of an evaluation, one a row', () => {
    const target = { prompt: 'p', reference: 'r', tags: {} };
    const { inputIds } = short;
    expect(
      collate(
        [
          { inputIds, target },
          { inputIds, target },
        ],
        { padTokenId: 0 },
      ).targets,
    ).toEqual([target, target]);
  });

  test('its arrays own their memory: examples can be collated again after a transfer', () => {
    const batch = collate([long], { padTokenId: 0 });
    const buffers = transferables(batch);
    expect(buffers.length).toBe(4);
    expect(batchBytes(batch)).toBe(4 * 4 + 4 + 4 * 4 + 12 * 4);
    expect(buffers.reduce((sum, { byteLength }) => sum + byteLength, 0)).toBe(batchBytes(batch));
    structuredClone(batch, { transfer: buffers });
    expect(batch.inputIds.data.length).toBe(0);
    expect(collate([long], { padTokenId: 0 }).inputIds.data).toEqual(long.inputIds);
  });

  test.each<[string, Example[], number | undefined, string]>([
    [
      'no example',
      [],
      undefined,
      'collate: the batch: expected at least one example, received none; drop empty batches before they are collated',
    ],
    [
      'an empty example',
      [long, { inputIds: ids() }],
      1,
      'collate: example 1: expected at least one token, received none; check the chat template',
    ],
    [
      'too few labels',
      [{ inputIds: ids(1, 2), labels: ids(1) }],
      0,
      'collate: example 0: expected 2 labels, one a token, received 1; labels are not shifted: label i belongs to token i',
    ],
    [
      'labels on some only',
      [long, { inputIds: ids(1) }],
      1,
      'collate: example 1: expected labels, as in example 0, received none; give all samples of a stream to the same encode step',
    ],
    [
      'targets on some only',
      [{ inputIds: ids(1) }, { inputIds: ids(1), target: { prompt: '', reference: '', tags: {} } }],
      1,
      'collate: example 1: expected no target, as in example 0, received some; give all samples of a stream to the same encode step',
    ],
    [
      'images of another size',
      [long, { ...short, pixelValues: images(1, 0, [2, 3]) }],
      1,
      "collate: example 1: expected images of shape [3, 2, 2], as the batch's first, received [3, 2, 3]; let the image processor resize all images to one size",
    ],
    [
      'a shape that does not fit its data',
      [{ ...long, pixelValues: { data: new Float32Array(5), shape: [1, 3, 2, 2] } }],
      0,
      'collate: example 0: expected pixelValues of shape [images, channels, height, width], received shape [1, 3, 2, 2] with 5 values; check the image processor',
    ],
  ])('%s is an error that names the example', (_, examples, index, message) => {
    let thrown: unknown;
    try {
      collate(examples, { padTokenId: 0 });
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(CollateError);
    expect((thrown as CollateError).message).toBe(message);
    expect((thrown as CollateError).index).toBe(index);
  });
});
