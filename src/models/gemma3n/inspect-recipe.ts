// The most memory that a way to fine-tune takes, from what inspect-memory.ts counts: with layers computed again, with frozen
// weights of 4 bits, and with per-layer embeddings in their file.

import type { Gemma3nConfig, TextConfig } from './config.js';
import { dtypeBytes } from '../../tensor/index.js';
import type { Load } from './inspect-activations.js';
import { memoryFacts, type MemoryOptions } from './inspect-memory.js';
import type { ParameterCounts } from './inspect-parameters.js';

export type Method = 'full' | 'lora' | 'dora' | 'qlora';

export interface RecipeOptions extends MemoryOptions {
  readonly method: Method;
  /** Layers keep their inputs alone. */
  readonly checkpointing: boolean;
  /** Frozen per-layer embeddings stay in their file. */
  readonly mapped: boolean;
}

/** @param counts of the same configuration
 *  @returns bytes on the device at the fullest moment; activations are estimated */
export function recipePeak(config: Gemma3nConfig, counts: ParameterCounts, options: RecipeOptions): number {
  const { method, checkpointing, mapped } = options;
  const facts = memoryFacts(config, counts, options);
  const need = method === 'full' ? facts.full : method === 'qlora' ? facts.qlora[0]! : facts.lora;
  const peak = checkpointing
    ? mapped
      ? need.peakCheckpointedEmbeddingsOff
      : need.peakCheckpointed
    : mapped
      ? need.peakEmbeddingsOff
      : need.peak;
  return Math.round(peak + (method === 'dora' ? combinedWeight(config.text, options) : 0));
}

/** DoRA makes a weight and its update anew to measure them: the largest one, twice. */
function combinedWeight(text: TextConfig, { dtype }: Load): number {
  return 2 * text.hiddenSize * Math.max(...text.intermediateSize) * dtypeBytes(dtype);
}
