export { removeFolder, replaceFile, replaceFolder, withFile, type ReplaceOptions } from './atomic.js';
export { bestFile, ranked, readBest, writeBest, type BestCheckpoints, type BestMode } from './best.js';
export { checkpointFault, listNames, quote, readFault, showShape, writeFault } from './faults.js';
export { elementBytes, engineDType, type StoredDType, type TensorEntry } from './header.js';
export { writeModelFiles, writtenAs, type ModelFiles, type WritableWeight } from './model-files.js';
export { encodeArrays, readArrays, type PlainTensor } from './plain-arrays.js';
export { readHeader, SafetensorsFile, type TensorSource } from './safetensors.js';
export { readStrictJson } from './json-file.js';
export { isObject } from './strict-json.js';
export { indexFile, isWeightFile, openWeights, readIndex, singleFile } from './shards.js';
export {
  checkpointFolder,
  latestCheckpoint,
  listCheckpoints,
  loadCheckpoint,
  openAverage,
  pruneCheckpoints,
  readState,
  saveCheckpoint,
  stateFile,
  type Checkpoint,
  type CheckpointParts,
  type TrainingState,
} from './training-state.js';
export {
  refuseFullDisk,
  writeJson,
  writeSafetensors,
  writeShards,
  type NamedSource,
  type NamedTensor,
  type StreamedTensor,
} from './writer.js';
