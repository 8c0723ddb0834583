// What test/reference/adapters.py recorded, and the small models it is of.

import { join } from 'node:path';
import { fromPretrained, type Gemma3n } from '../../src/models/gemma3n/index.js';
import { type Tensor, setNumThreads } from '../../src/tensor/index.js';
import { readJson, readSafetensors, referencePath, toTensor } from '../models/text-reference.js';

export interface AdapterReference {
  /** The adapter in PEFT's layout. */
  readonly folder: string;
  /** The model that it is for. */
  readonly base: string;
  readonly steps: number;
  readonly lr: number;
  readonly weightDecay: number;
  readonly names: readonly string[];
  readonly value: (name: string) => Tensor;
}

export function adapterReference(name: string): AdapterReference {
  setNumThreads(1);
  const folder = referencePath(`peft-${name}`);
  const values = readSafetensors(join(folder, 'values.safetensors'));
  const meta = readJson(join(folder, 'values.json')) as {
    base: string;
    steps: number;
    lr: number;
    weightDecay: number;
  };
  const value = (key: string): Tensor => {
    const stored = values.get(key);
    if (!stored) throw new Error(`${folder}: no value ${key}`);
    return toTensor(stored);
  };
  return { ...meta, folder, base: referencePath(meta.base), names: [...values.keys()], value };
}

/** A small text model: 6 layers, of which 3 share keys and values. */
export function smallModel(name = 'sharing', dtype: 'float32' | 'bfloat16' = 'float32'): Promise<Gemma3n> {
  setNumThreads(1);
  return fromPretrained(referencePath(`text-${name}`), { dtype });
}

/** PEFT's name of a tensor in a file, from its name in a model with one adapter, 'default'. */
export function storedName(name: string): string {
  return `base_model.model.${name.replace('.default.weight', name.includes('magnitude') ? '' : '.weight')}`;
}
