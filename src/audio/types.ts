// What decoding of sound takes and gives.

/** Sound as decoded: one channel, float32, full scale at -1 and 1. */
export interface DecodedAudio {
  /** [samples] */
  readonly data: Float32Array;
  readonly sampleRateHz: number;
  /** Length of the whole clip where `data` is its beginning alone. */
  readonly cutFromSeconds?: number;
}

/** A clip being decoded: one channel at the clip's own rate, in pieces, so that no more is decoded than is wanted. */
export interface Stream {
  readonly sampleRateHz: number;
  /** Mono samples in order. @throws {AudioError} where the file is damaged, or at its end when something is missing */
  readonly pieces: AsyncIterable<Float32Array>;
  /** Samples (a channel) as the header tells where it can be trusted without decoding, and how many of them are there. */
  readonly length?: { readonly stated: number; readonly there: number };
  /** Length of the whole clip as far as headers tell; undefined where they do not. Asked only of clips that are cut. */
  totalSeconds(): Promise<number | undefined>;
}

/** Rates outside are taken for a damaged header. */
export const MIN_RATE_HZ = 1_000;
export const MAX_RATE_HZ = 768_000;
/** Clips of more channels are refused: what is held at a time grows with their number. */
export const MAX_CHANNELS = 64;
