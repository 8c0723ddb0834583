// Which positions of a batch stand for images or clips, and which are hard tokens of another modality. Read on the host: the
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

/** Media whose features take the places of placeholders. */
export interface Medium {
  /** 'image', 'audio' */
  readonly name: string;
  /** One of them, and several. */
  readonly unit: readonly [string, string];
  /** The input that holds them. */
  readonly input: string;
  readonly tokenId: number;
  /** Placeholders that stand for one of them. */
  readonly softTokens: number;
}

/** Flat positions of a medium's placeholders, row by row.
 *  @param count of images, or clips, in the batch
 *  @throws {ModelError} naming the row whose placeholders are no whole number of them, or the rows' sum when it is not
 *          as many as there are */
export function placeholderPositions(
  { ids, batch, length }: HostIds,
  { name, unit, input, tokenId, softTokens }: Medium,
  count: number,
): BigInt64Array {
  const [one, several] = unit;
  const an = (noun: string): string => `${/^[aeiou]/.test(noun) ? 'an' : 'a'} ${noun}`;
  const positions: bigint[] = [];
  const placesOfRow: number[] = [];
  for (let row = 0; row < batch; row++) {
    const before = positions.length;
    for (let i = row * length; i < (row + 1) * length; i++) {
      if (Number(ids[i]) === tokenId) positions.push(BigInt(i));
    }
    const places = positions.length - before;
    if (places % softTokens !== 0) {
      throw new ModelError({
        where: `inputIds: row ${row}`,
        expected: `a multiple of ${softTokens} ${name} placeholders (token ${tokenId}), ${softTokens} ${an(one)}`,
        received: String(places),
        remedy: `check that encoding expands each ${one}, and that nothing cuts the row short`,
      });
    }
    placesOfRow.push(places);
  }
  if (positions.length !== count * softTokens) {
    const rows = placesOfRow.flatMap((places, row) => (places > 0 ? [`row ${row}: ${places}`] : []));
    throw new ModelError({
      where: `inputIds: ${name} placeholders`,
      expected: `${count * softTokens}, ${softTokens} for each of ${count} ${several} in ${input}`,
      received: `${positions.length}${rows.length > 0 ? ` (${rows.slice(0, 16).join(', ')})` : ''}`,
      remedy: `give one ${one} for each that the chat template names, in the order of the rows`,
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
