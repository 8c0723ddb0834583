// The most memory that a way to fine-tune takes, from what inspect-memory.ts counts: with layers computed again, with frozen
// weights of 4 bits, and with per-layer embeddings in their file.

import type { Gemma3nConfig, TextConfig } from './config.js';
import { dtypeBytes, keptForBackward, type Load } from './inspect-activations.js';
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
  const { method, mapped } = options;
  const facts = memoryFacts(config, counts, options);
  const need = method === 'full' ? facts.full : method === 'qlora' ? facts.qlora[0]! : facts.lora;
  const peak = mapped ? need.peakEmbeddingsOff : need.peak;
  return Math.round(
    peak -
      (options.checkpointing ? savedByCheckpointing(config.text, options) : 0) +
      (method === 'dora' ? combinedWeight(config.text, options) : 0),
  );
}

/** What all layers keep, without their inputs, the keys and values that others share, and one layer's own. */
function savedByCheckpointing(text: TextConfig, load: Load): number {
  const { hiddenSize, altupNumInputs, hiddenSizePerLayerInput, numHiddenLayers } = text;
  const tokens = load.batch * load.length;
  const around = tokens * (6 * altupNumInputs * hiddenSize + 3 * numHiddenLayers * hiddenSizePerLayerInput);
  const inLayers = keptForBackward(text, load) - around * dtypeBytes(load.dtype);
  const inputs = tokens * numHiddenLayers * altupNumInputs * hiddenSize;
  const shared = 2 * 2 * tokens * text.numKeyValueHeads * text.headDim;
  const left = (inputs + shared) * dtypeBytes(load.dtype) + (1.5 * inLayers) / numHiddenLayers;
  return Math.max(0, inLayers - left);
}

/** DoRA makes a weight and its update anew to measure them: the largest one, twice. */
function combinedWeight(text: TextConfig, { dtype }: Load): number {
  return 2 * text.hiddenSize * Math.max(...text.intermediateSize) * dtypeBytes(dtype);
}
