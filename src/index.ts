// The public API: everything that pipeline files, scripts and notebooks import from 'sluice'.

// Pipeline files
export { pipeline, type PipelineSpec } from './train/pipeline.js';
export { gemma3n, sft, type ModelOptions, type StepOptions } from './train/options.js';
export { tfjsLearner } from './train/tfjs.js';
export {
  arrays,
  labelledImages,
  type ArrayBatch,
  type ArrayExample,
  type PlainArray,
} from './data/arrays.js';
export {
  guest,
  learningRate,
  type Guest,
  type GuestSpec,
  type Learner,
  type LearnerUpdate,
  type SavedLearner,
} from './train/guest.js';
export type { LearnerFacts } from './train/learner.js';
export { planPipeline, type PlanOptions } from './train/plan.js';
export type * from './train/plan-types.js';
export {
  forecastStalls,
  type StageTime,
  type Stall,
  type StallForecast,
  type StallOptions,
} from './train/plan-stalls.js';
export {
  WeightAverage,
  adafactor,
  adamw,
  adamw8bit,
  clipGradNorm,
  constant,
  cosine,
  inverseSqrt,
  linear,
  lion,
  muon,
  sgd,
  wsd,
  type EmaOptions,
} from './optim/index.js';
export { mix, type MixEntry, type MixOptions, type MixSource } from './data/mix.js';
export { arrow } from './data/arrow.js';
export { folder, type FolderRow, type MediaFile } from './data/folder.js';
export { jsonl } from './data/jsonl.js';
export { parquet } from './data/parquet.js';
export { rows } from './data/rows-of.js';
export { concat, cursorForShards, repeat, shard, skip, take, type Shard } from './data/source-parts.js';
export { assistant, audio, chat, image, system, text, user } from './data/chat.js';
export { decodeMedia, encode } from './data/stages.js';
export { cache, type CacheOptions } from './data/cache.js';
export { batch } from './data/batch.js';
export { pack, type PackOptions } from './data/pack.js';
export { filter, flatMap, lift, map, orderedMap, tee, unorderedMap } from './flow/index.js';
export { metrics } from './train/metrics.js';
export { checkpoints } from './train/checkpoints.js';
export {
  evaluation,
  exactMatch,
  promptAlone,
  promptAloneWords,
  rougeL,
  wordErrorRate,
} from './eval/index.js';
export { report } from './report/index.js';
export { definePart, type Part } from './parts.js';

// Data
export { loadProcessor, type Processor } from './data/processor.js';
export type * from './data/types.js';
export type { RunEvent, StepEvent } from './train/events.js';
export type { QuarantineOptions } from './train/quarantine-limit.js';
export type { RunContext, Sink, SinkOnError } from './train/sink.js';

// Models
export {
  fromConfig,
  fromPretrained,
  savePretrained,
  type Gemma3n,
  type RecomputedLoss,
  type RecomputedPart,
  type RecomputeOptions,
} from './models/gemma3n/index.js';
export { dora, lora, type AdapterPart, type LoraOptions } from './peft/index.js';
export {
  adapterNames,
  applyAdapter,
  disableAdapters,
  enableAdapters,
  loadAdapter,
  mergeAdapter,
  quantise,
  removeAdapter,
  saveAdapter,
  setAdapter,
  unmergeAdapter,
  type ApplyOptions,
  type LoadAdapterOptions,
  type QuantiseOptions,
} from './models/gemma3n/index.js';
export {
  Chat,
  generate,
  generateText,
  generateTexts,
  textStream,
  type EndReason,
  type GenerateOptions,
  type GeneratedText,
  type GenerateTextOptions,
  type TextOptions,
} from './generate/index.js';
export { resolveFolder, type DownloadProgress } from './hub/index.js';
export {
  inspectCheckpoint,
  sliceMatFormer,
  type Inspection,
  type InspectOptions,
  type MatFormerSlice,
} from './models/gemma3n/index.js';

// Tensors
export {
  Tensor,
  keep,
  liveTensors,
  manualSeed,
  noGrad,
  op,
  scope,
  setNumThreads,
  tensor,
  type DType,
} from './tensor/index.js';

export * from './errors.js';
