export { activation, gated, type ActivationName } from './activation.js';
export { attend, causalMask, type AttendOptions, type Span } from './attention.js';
export { Embedding, mappedAs, withDeferredTables, type EmbeddingOptions } from './embedding.js';
export { Linear, type LinearAdapter } from './linear.js';
export { crossEntropyMean, lossSum, softcap, type LossSum, type LossSumOptions } from './loss.js';
export { Module, buffer, parameter } from './module.js';
export { attendPacked, packedRuns, sequenceLengths, type PackedRuns } from './packed.js';
export { RmsNorm } from './rms-norm.js';
export { roundTo } from './round.js';
