export { adafactor, type AdafactorOptions } from './adafactor.js';
export { adamw, type AdamWOptions, type AdamWPart } from './adamw.js';
export { adamw8bit, dynamicMap, type AdamW8BitOptions } from './adamw8bit.js';
export { EMA_OPTIONS, WeightAverage, emaDecay, type EmaOptions } from './average.js';
export { CLIP, Clipping, type ClipOptions, type Measured } from './clip.js';
export { clipGradNorm, gradNorm, gradNorms, squareSums } from './grad-norm.js';
export type { Parameters, TensorGroup } from './groups.js';
export { optimizerOf, type OptimizerOptions } from './kinds.js';
export { lion, type LionOptions } from './lion.js';
export { muon, orthogonalised, type MuonOptions } from './muon.js';
export { Optimizer, type GradientScale, type StateSource } from './optimizer.js';
export type { OptimizerPart } from './part.js';
export {
  constant,
  cosine,
  inverseSqrt,
  linear,
  scheduleFactor,
  scheduleFault,
  wsd,
  type Schedule,
  type ScheduleOptions,
} from './schedule.js';
export { sgd, type SgdOptions } from './sgd.js';
