// What an adapter's folder holds, from its configuration and the header of its weights alone.

import { openAdapter, readStored } from './adapter-files.js';
import { type Quantisation, readQuantise } from './quantisation.js';

export interface AdapterFacts {
  /** As its file names the model that it belongs to. */
  readonly base: string | undefined;
  readonly kind: 'lora' | 'dora';
  readonly rank: number;
  readonly alpha: number;
  readonly rsLora: boolean;
  readonly dropout: number;
  /** Last names of the modules that it stands beside, with how many there are of each. */
  readonly targets: Readonly<Record<string, number>>;
  /** Modules that it stands beside. */
  readonly modules: number;
  /** Numbers of A, B and magnitudes. */
  readonly parameters: number;
  /** Weights that learnt whole, by their names, and their numbers. */
  readonly saved: readonly string[];
  readonly savedParameters: number;
  /** How its base was quantised while it learnt. */
  readonly quantised: Quantisation | undefined;
}

const PART = /^(?:base_model\.model\.)?(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.weight)?$/;

/** @param folder with adapter_config.json and adapter_model.safetensors
 *  @throws {CheckpointError} or {ConfigError} when one of them is missing or faulty */
export function adapterFacts(folder: string): AdapterFacts {
  const { base, kind, rank, alpha, rsLora, dropout } = readStored(folder);
  using file = openAdapter(folder);
  const modules = new Set<string>();
  const saved: string[] = [];
  let [parameters, savedParameters] = [0, 0];
  for (const [name, { shape }] of file.entries) {
    const numel = shape.reduce((all, size) => all * size, 1);
    const [, module] = PART.exec(name) ?? [];
    if (module === undefined) {
      saved.push(name.replace(/^base_model\.model\./, ''));
      savedParameters += numel;
    } else {
      modules.add(module);
      parameters += numel;
    }
  }
  const targets: Record<string, number> = {};
  for (const module of modules) {
    const last = module.slice(module.lastIndexOf('.') + 1);
    targets[last] = (targets[last] ?? 0) + 1;
  }
  return {
    ...{ base, kind, rank, alpha, rsLora, dropout, targets },
    ...{ modules: modules.size, parameters, saved: saved.sort(), savedParameters },
    quantised: readQuantise(folder),
  };
}
