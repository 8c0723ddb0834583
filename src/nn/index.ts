export { activation, gated, type ActivationName } from './activation.js';
export { attend, causalMask, type AttendOptions, type Span } from './attention.js';
export { placeOfNew, withDeferred, type Deferral } from './deferred.js';
export { Embedding, mappedAs, type EmbeddingOptions } from './embedding.js';
export { Linear, forwardAll, type LinearAdapter } from './linear.js';
export {
  BLOCK_SIZES,
  QuantisedWeight,
  refuseLearning,
  WEIGHT_FORMATS,
  type RowsOf,
  type WeightFacts,
  type WeightFormat,
  type WeightQuantisation,
} from './quantised-weight.js';
export {
  crossEntropyMean,
  labelledRows,
  lossSum,
  lossSumOfRows,
  softcap,
  type LabelledRows,
  type LossSum,
  type LossSumOptions,
} from './loss.js';
export { Module, buffer, parameter } from './module.js';
export { sequenceLengths, sequenceStarts } from './packed.js';
export { RmsNorm } from './rms-norm.js';
export { roundTo } from './round.js';
export {
  firstPassEnds,
  foundIn,
  isComputedAgain,
  keptInSegment,
  mapTensors,
  segment,
  withSegments,
  type SegmentRunner,
} from './segment.js';
export { Tape, type TapeOptions } from './tape.js';
