// The run-length and bit-packed hybrid in which Parquet writes levels and dictionary indices. hyparquet decodes it, but
// writes as many values as a run claims, two thousand million if need be; so the runs are read here first.

export interface Runs {
  /** The largest value; -1 when there are none. */
  readonly max: number;
  /** How many values equal `top`. */
  readonly numTop: number;
}

/** The widest value that hyparquet unpacks rightly. */
export const MAX_RUN_WIDTH = 24;

/** Reads `count` values of `width` bits from bytes[start, end).
 *  @param top the value to count
 *  @throws {RangeError} when the runs hold fewer values, or one claims more than `count` */
export function scanRuns(
  bytes: Uint8Array,
  start: number,
  end: number,
  width: number,
  count: number,
  top: number,
): Runs {
  if (width > MAX_RUN_WIDTH) throw new RangeError(`values of ${width} bits; ${MAX_RUN_WIDTH} is the most`);
  if (end > bytes.length) throw new RangeError(`runs up to byte ${end} of a page of ${bytes.length}`);
  const valueBytes = (width + 7) >> 3;
  const mask = 2 ** width - 1;
  let offset = start;
  let seen = 0;
  let max = -1;
  let numTop = 0;

  function byte(): number {
    if (offset >= end) throw new RangeError(`${seen} values where ${count} are announced`);
    return bytes[offset++]!;
  }

  while (seen < count) {
    let header = 0;
    for (let shift = 0; ; shift += 7) {
      if (shift > 28) throw new RangeError('a run of more than 2^32 values');
      const next = byte();
      header += (next & 0x7f) * 2 ** shift;
      if (next < 0x80) break;
    }
    if (header % 2 === 0) {
      const length = header / 2;
      if (length > count) throw new RangeError(`a run of ${length} values where ${count} are announced`);
      let value = 0;
      for (let i = 0; i < valueBytes; i++) value += byte() * 2 ** (8 * i);
      if (length > 0 && value > max) max = value;
      if (value === top) numTop += Math.min(length, count - seen);
      seen += length;
    } else {
      const length = ((header - 1) / 2) * 8;
      if (length > count + 8 * 512)
        throw new RangeError(`a run of ${length} values where ${count} are announced`);
      const used = Math.min(length, count - seen); // the last group is padded to eight
      if (offset + Math.ceil((used * width) / 8) > end) {
        throw new RangeError(`a run of ${length} values of ${width} bits in ${end - offset} bytes`);
      }
      for (let i = 0; i < used; i++) {
        const bit = i * width;
        const at = offset + (bit >> 3);
        const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
        const value = (word >>> (bit & 7)) & mask;
        if (value > max) max = value;
        if (value === top) numTop++;
      }
      seen += used;
      offset += (length * width) / 8;
    }
  }
  return { max, numTop };
}
