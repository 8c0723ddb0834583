export {
  DEFAULT_ADAPTER,
  adapterNames,
  applyAdapter,
  disableAdapters,
  enableAdapters,
  mergeAdapter,
  removeAdapter,
  setAdapter,
  unmergeAdapter,
  type ApplyOptions,
} from './adapters.js';
export {
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  adapterFiles,
  isAdapterFile,
  loadAdapter,
  refillAdapter,
  saveAdapter,
  type LoadAdapterOptions,
} from './adapter-files.js';
export { setBase, type BaseModel } from './base-model.js';
export { isAdapterFolder, placeOf, type ModelPlace } from './model-place.js';
export type { LabelledInputs, ModelInputs, ModelOutputs } from './causal-lm.js';
export { decodeConfig, type Gemma3nConfig } from './config.js';
export {
  companionsOf,
  endTokenIds,
  fromConfig,
  fromPretrained,
  loadConfig,
  type DrawOptions,
  type LoadOptions,
} from './load.js';
export { FlopCounter, textLoad, type BatchShape, type Flops } from './flops.js';
export { EMBEDDINGS, mappedTables, refuseLearningTables } from './mapped-embeddings.js';
export { createGemma3n, type Gemma3n } from './model.js';
export { whitenProjector } from './projector.js';
export {
  RECOMPUTED_PARTS,
  recomputedPartsOf,
  sharedParameters,
  type RecomputeOptions,
  type RecomputedLoss,
  type RecomputedPart,
} from './recompute.js';
export {
  QUANTISE,
  quantisationOf,
  refuseMappedAndQuantised,
  type Quantisation,
  type QuantiseOptions,
} from './quantisation.js';
export { quantise } from './quantise.js';
export { modelFiles, savePretrained, type SaveOptions } from './save.js';
export { loadWeights, namedWeights } from './weights.js';
export { inspectCheckpoint, recipePredictor, type Inspection, type InspectOptions } from './inspect.js';
export type { Method } from './inspect-recipe.js';
export { publishedConfig } from './published-configs.js';
export { sliceMatFormer, type SliceOptions, type SliceResult } from './matformer.js';
export type { MatFormerSlice } from './matformer-plan.js';
export { MATFORMER_PRESETS, type MatFormerPreset } from './matformer-presets.js';
