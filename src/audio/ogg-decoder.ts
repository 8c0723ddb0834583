// What every codec in Ogg does.

import type { OggPage } from './ogg-page.js';

/** One stream in Ogg being decoded, page by page. */
export interface OggDecoder {
  readonly sampleRateHz: number;
  /** Mono samples of the packets that end in this page. */
  push(page: OggPage): Float32Array[];
  /** What is still to come when no page follows. @throws {AudioError} where something is missing */
  finish(): Float32Array[];
  free(): void;
  /** Samples at `granule`, as far as the pages until now tell. */
  samplesAt(granule: number): number;
}
