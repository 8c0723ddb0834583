export { removeFolder, replaceFile, replaceFolder, withFile, type ReplaceOptions } from './atomic.js';
export { checkpointFault, listNames, quote, readFault, showShape, writeFault } from './faults.js';
export { elementBytes, engineDType, type StoredDType, type TensorEntry } from './header.js';
export { readHeader, SafetensorsFile, type TensorSource } from './safetensors.js';
export { indexFile, isWeightFile, openWeights, readIndex, singleFile } from './shards.js';
export {
  latestCheckpoint,
  listCheckpoints,
  loadCheckpoint,
  readState,
  saveCheckpoint,
  type Checkpoint,
  type CheckpointParts,
  type TrainingState,
} from './training-state.js';
export {
  writeJson,
  writeSafetensors,
  writeShards,
  type NamedSource,
  type NamedTensor,
  type StreamedTensor,
} from './writer.js';
