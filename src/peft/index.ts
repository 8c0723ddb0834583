export {
  Adapters,
  adaptersOf,
  createAdapter,
  disposeAdapter,
  originalOf,
  parametersOf,
  type Adapter,
  type SavedParameter,
} from './adapters.js';
export {
  decodeAdapter,
  dora,
  lora,
  type AdapterConfig,
  type AdapterPart,
  type LoraOptions,
} from './config.js';
export { LoraLayer } from './lora-layer.js';
export { adapterConfigText, readAdapterConfig, type StoredConfig } from './stored-config.js';
export { select, type NamedModules, type Selection, type SelectOptions, type Target } from './targets.js';
