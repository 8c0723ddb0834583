// Which positions of a batch stand for images, and which are hard tokens of another modality. Read on the host: the
// counts decide whether a batch is sound at all.

import { ModelError } from '../../errors.js';
import type { Tensor } from '../../tensor/index.js';

/** Token ids on the host, [batch, length]. */
export interface HostIds {
  readonly ids: ArrayLike<number | bigint>;
  readonly batch: number;
  readonly length: number;
}

/** Copies ids to the host; on a GPU this waits for it. */
export function hostIds(inputIds: Tensor): HostIds {
  const [batch = 0, length = 0] = inputIds.shape;
  return { ids: inputIds.toTypedArray(), batch, length };
}

/** Flat positions of the image placeholders, row by row.
 *  @param numImages 0 when the batch has none
 *  @throws {ModelError} naming the row whose placeholders are no whole images, or the rows' sum when it is not as many
 *          images as there are */
export function imagePositions(
  { ids, batch, length }: HostIds,
  imageTokenId: number,
  softTokens: number,
  numImages: number,
): BigInt64Array {
  const positions: bigint[] = [];
  const imagesOfRow: number[] = [];
  for (let row = 0; row < batch; row++) {
    const before = positions.length;
    for (let i = row * length; i < (row + 1) * length; i++) {
      if (Number(ids[i]) === imageTokenId) positions.push(BigInt(i));
    }
    const count = positions.length - before;
    if (count % softTokens !== 0) {
      throw new ModelError({
        where: `inputIds: row ${row}`,
        expected: `a multiple of ${softTokens} image placeholders (token ${imageTokenId}), ${softTokens} an image`,
        received: String(count),
        remedy: 'check that encoding expands each image, and that nothing cuts the row short',
      });
    }
    imagesOfRow.push(count / softTokens);
  }
  if (positions.length !== numImages * softTokens) {
    const rows = imagesOfRow.flatMap((count, row) =>
      count > 0 ? [`row ${row}: ${count * softTokens}`] : [],
    );
    throw new ModelError({
      where: 'inputIds: image placeholders',
      expected: `${numImages * softTokens}, ${softTokens} for each of ${numImages} images in pixelValues`,
      received: `${positions.length}${rows.length > 0 ? ` (${rows.slice(0, 16).join(', ')})` : ''}`,
      remedy: 'give one image for each that the chat template names, in the order of the rows',
    });
  }
  return BigInt64Array.from(positions);
}

/** Ids of one modality's hard tokens: first ... last. */
export interface HardRange {
  readonly name: string;
  readonly first: number;
  /** The last id that has an embedding. */
  readonly last: number;
  /** Ids below this one, from `first` on, belong to the modality. */
  readonly end: number;
}

/** Whether any id lies in the range.
 *  @throws {ModelError} when one belongs to the modality but has no embedding */
export function anyInRange({ ids, length }: HostIds, range: HardRange): boolean {
  let found = false;
  for (let i = 0; i < ids.length; i++) {
    const id = Number(ids[i]);
    if (id < range.first || id >= range.end) continue;
    if (id > range.last) {
      throw new ModelError({
        where: `inputIds: row ${Math.floor(i / length)}, position ${i % length}`,
        expected: `${range.name} tokens of ${range.first} to ${range.last}`,
        received: String(id),
        remedy: 'use the tokenizer that belongs to this model',
      });
    }
    found = true;
  }
  return found;
}
