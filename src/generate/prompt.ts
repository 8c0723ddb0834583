// The prompts of a batch: where each row's tokens are, which position comes next, and how many may follow.

import { ModelError } from '../errors.js';
import type { ModelInputs } from '../models/gemma3n/causal-lm.js';
import { type Tensor, scope, tensor } from '../tensor/index.js';

export interface Prompt {
  readonly batch: number;
  readonly length: number;
  readonly device: string;
  /** The inputs of the first forward; its new tensors belong to the caller's scope. */
  readonly inputs: () => ModelInputs;
  /** Of each row's first new token; undefined where all rows continue at `length`. */
  readonly nextPositions: readonly number[] | undefined;
  /** Each row's ids, undefined for padding; no ids where embeddings are given. */
  readonly ids: () => (number | undefined)[][];
}

/** @throws {ModelError} when there is no prompt, or its padding is not on the left */
export function promptOf(inputs: ModelInputs): Prompt {
  const given = inputs.inputIds ?? inputs.inputsEmbeds;
  const [batch = 0, length = 0] = given?.shape ?? [];
  if (!given || batch === 0 || length === 0) {
    throw new ModelError({
      where: 'generate',
      expected: 'inputIds of at least one token',
      received: given ? `[${given.shape.join(', ')}]` : 'none',
      remedy: 'encode a prompt with addGenerationPrompt',
    });
  }
  const mask = inputs.attentionMask && leftPadded(inputs.attentionMask, batch, length);
  const prompt = {
    batch,
    length,
    device: given.device,
    ids: () => idsOf(inputs.inputIds, batch, length, mask),
  };
  if (inputs.positionIds) {
    const { positionIds } = inputs;
    const last = scope(() => hostNumbers(positionIds.select(1, length - 1)));
    const next = Array.from({ length: batch }, (_, row) => (last[row] ?? last[0] ?? 0) + 1);
    return { ...prompt, inputs: () => inputs, nextPositions: next };
  }
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
    inputs: () => ({ ...inputs, positionIds: tensor(positions, [batch, length], 'int64', given.device) }),
    nextPositions: next,
  };
}

/** How many tokens may follow each row's prompt, its context being full then.
 *  @param before tokens of the context that precede the prompt
 *  @throws {ModelError} naming the first row whose prompt leaves room for none */
export function roomAfter({ batch, length, nextPositions }: Prompt, context: number, before = 0): number[] {
  return Array.from({ length: batch }, (_, row) => {
    const taken = nextPositions?.[row] ?? before + length;
    if (taken < context) return context - taken;
    throw new ModelError({
      where: `generate: prompt of row ${row}`,
      expected: `fewer tokens than the model's context of ${context}, so that an answer can follow`,
      received: String(taken),
      remedy: 'shorten the prompt, or leave earlier turns, pictures or clips out',
    });
  });
}

function idsOf(
  inputIds: Tensor | undefined,
  batch: number,
  length: number,
  mask: readonly number[] | undefined,
): (number | undefined)[][] {
  const ids = inputIds ? hostNumbers(inputIds) : [];
  return Array.from({ length: batch }, (_, row) =>
    ids
      .slice(row * length, (row + 1) * length)
      .map((id, t) => (mask && mask[row * length + t] === 0 ? undefined : id)),
  );
}

function leftPadded(attentionMask: Tensor, batch: number, length: number): number[] {
  const mask = hostNumbers(attentionMask);
  if (mask.length !== batch * length) {
    throw new ModelError({
      where: 'generate: attentionMask',
      expected: `[${batch}, ${length}], as the tokens`,
      received: `[${attentionMask.shape.join(', ')}]`,
      remedy: 'give 1 for every token and 0 for padding',
    });
  }
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
