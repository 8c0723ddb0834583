// Sound: decode, resample, and the features that the audio tower takes.

export { clipLength, type ClipLength } from './clip-length.js';
export { decodeAudio, type DecodeOptions } from './decode.js';
export type { DecodedAudio } from './types.js';
export { featureSettings, maxFeatureBytes, type FeatureSettings } from './feature-settings.js';
export { audioFeaturesInThread } from './feature-thread.js';
export { audioFeatures, audioFeatureShape, type AudioFeatures } from './features.js';
