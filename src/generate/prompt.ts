// The prompts of a batch: where each row's tokens are, and which position comes next.

import { ModelError } from '../errors.js';
import type { ModelInputs } from '../models/gemma3n/causal-lm.js';
import { type Tensor, tensor } from '../tensor/index.js';

export interface Prompt {
  readonly batch: number;
  readonly length: number;
  readonly device: string;
  /** The inputs of the first forward; its new tensors belong to the caller's scope. */
  readonly inputs: () => ModelInputs;
  /** Of each row's first new token; undefined where all rows continue at `length`. */
  readonly nextPositions: readonly number[] | undefined;
}

/** @throws {ModelError} when there is no prompt, or its padding is not on the left */
export function promptOf(inputs: ModelInputs): Prompt {
  const ids = inputs.inputIds ?? inputs.inputsEmbeds;
  const [batch = 0, length = 0] = ids?.shape ?? [];
  if (!ids || batch === 0 || length === 0) {
    throw new ModelError({
      where: 'generate',
      expected: 'inputIds of at least one token',
      received: ids ? `[${ids.shape.join(', ')}]` : 'none',
      remedy: 'encode a prompt with addGenerationPrompt',
    });
  }
  const prompt = { batch, length, device: ids.device };
  if (inputs.positionIds) {
    const last = hostNumbers(inputs.positionIds.select(1, length - 1));
    const next = Array.from({ length: batch }, (_, row) => (last[row] ?? last[0] ?? 0) + 1);
    return { ...prompt, inputs: () => inputs, nextPositions: next };
  }
  const mask = inputs.attentionMask && leftPadded(inputs.attentionMask, batch, length);
  if (!mask?.includes(0)) return { ...prompt, inputs: () => inputs, nextPositions: undefined };

  const positions = new BigInt64Array(batch * length);
  const next = Array.from({ length: batch }, (_, row) => {
    let count = 0;
    for (let t = 0; t < length; t++) {
      positions[row * length + t] = BigInt(count);
      if (mask[row * length + t] !== 0) count++;
    }
    return count;
  });
  return {
    ...prompt,
    inputs: () => ({ ...inputs, positionIds: tensor(positions, [batch, length], 'int64', ids.device) }),
    nextPositions: next,
  };
}

function leftPadded(attentionMask: Tensor, batch: number, length: number): number[] {
  const mask = hostNumbers(attentionMask);
  for (let row = 0; row < batch; row++) {
    const start = mask.slice(row * length, (row + 1) * length).findIndex((real) => real !== 0);
    const gap = start < 0 ? length - 1 : mask.slice(row * length + start, (row + 1) * length).indexOf(0);
    if (start >= 0 && gap < 0) continue;
    throw new ModelError({
      where: `generate: attentionMask of row ${row}`,
      expected: 'padding on the left, and then the prompt without a gap',
      received: start < 0 ? 'padding alone' : `padding at position ${start + gap}`,
      remedy: 'pad prompts on the left',
    });
  }
  return mask;
}

function hostNumbers(t: Tensor): number[] {
  return Array.from(t.toTypedArray() as ArrayLike<number | bigint>, Number);
}
