// Sound: decode and resample.

export { decodeAudio, type DecodeOptions } from './decode.js';
export type { DecodedAudio } from './types.js';
