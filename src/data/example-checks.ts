// What examples of one batch must have in common, and each in itself.

import { DataError, type Fault } from '../errors.js';
import type { Example, NdArray } from './types.js';

/** An example that does not fit its batch. */
export class CollateError extends DataError {
  /** Its place in the batch: the flow's `batch` quarantines that one and collates the others. */
  readonly index: number | undefined;

  constructor(index: number | undefined, fault: Omit<Fault, 'where'>) {
    super({ where: `collate: ${index === undefined ? 'the batch' : `example ${index}`}`, ...fault });
    this.index = index;
  }
}

/** @param work what is done with them: 'collated'
 *  @throws {CollateError} when there is none, or the arrays of one do not fit each other */
export function checkExamples(examples: readonly Example[], work: string): void {
  if (examples.length === 0) {
    throw new CollateError(undefined, {
      expected: 'at least one example',
      received: 'none',
      remedy: `drop empty batches before they are ${work}`,
    });
  }
  examples.forEach(checkExample);
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

/** @returns whether the examples have it
 *  @throws {CollateError} when some have it and others not */
export function presentInAll(examples: readonly Example[], key: keyof Example): boolean {
  const expected = examples[0]![key] !== undefined;
  const other = examples.findIndex((example) => (example[key] !== undefined) !== expected);
  if (other < 0) return expected;
  throw new CollateError(other, {
    expected: `${expected ? '' : 'no '}${key}, as in example 0`,
    received: expected ? 'none' : 'some',
    remedy: 'give all samples of a stream to the same encode step',
  });
}
