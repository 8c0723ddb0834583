// Activation checkpointing of a model: which parts are computed again in the backward pass, and what may be done between
// their layers.

import { ModelError } from '../../errors.js';
import { Tape } from '../../nn/index.js';
import { Tensor, keep } from '../../tensor/index.js';

/** Parts of a model whose layers may be computed again. */
export const RECOMPUTED_PARTS = ['text', 'vision', 'audio'] as const;
export type RecomputedPart = (typeof RECOMPUTED_PARTS)[number];

export interface RecomputeOptions {
  /** Whose layers keep their inputs alone: all parts by default, none with false. */
  readonly checkpointing?: boolean | readonly RecomputedPart[] | undefined;
  /** Moves what is kept to the host's memory until it is needed. On a CPU it is there already: nothing is done. */
  readonly offload?: boolean | undefined;
}

/** A forward pass that waits for its backward pass, which may come after the scope that it was made in. */
export interface RecomputedLoss {
  /** float32 [], the sum over labelled positions. Without a graph: its backward pass is `backward`, which frees it. */
  readonly loss: Tensor;
  readonly numLabels: number;
  /** Adds to the parameters' gradients, from the last layer to the first, and frees what was kept.
   *  @param afterEach called after each layer and what stands before and behind the layers: the gradients of all parameters
   *    met so far are whole, but those of `sharedTable`; `isLast` when they are too
   *  @throws {ModelError} when nothing learns */
  readonly backward: (afterEach?: (isLast: boolean) => void) => void;
  /** Frees what is kept for a backward pass that will not be. */
  readonly dispose: () => void;
}

/** The parameter that both the first segment and the last one use: the embedding that is the output head too. */
export function sharedTable(model: {
  readonly lmHead: unknown;
  readonly outputWeight: Tensor;
}): Tensor | undefined {
  return model.lmHead ? undefined : model.outputWeight;
}

/** @throws {ModelError} when an input asks for a gradient: it would get none */
export function recomputedLoss<I extends object>(
  model: { lossSum(inputs: I): { readonly loss: Tensor; readonly numLabels: number } },
  inputs: I,
  { checkpointing = true, offload = false }: RecomputeOptions,
): RecomputedLoss {
  for (const [name, input] of Object.entries(inputs) as [string, unknown][]) {
    if (input instanceof Tensor && input.requiresGrad) throw asksForGradient(name);
  }
  const parts = checkpointing === true ? RECOMPUTED_PARTS : checkpointing === false ? [] : checkpointing;
  const tape = new Tape({ parts: new Set<string>(parts), offload });
  const dispose = (): void => tape.dispose();
  try {
    const { loss, numLabels } = tape.record(() => model.lossSum(inputs));
    keep(loss);
    const end = (): void => {
      dispose();
      loss.dispose();
    };
    const backward = (afterEach?: (isLast: boolean) => void): void => {
      try {
        if (!loss.requiresGrad) throw nothingLearns();
        tape.backward(loss, afterEach);
      } finally {
        end();
      }
    };
    return { loss, numLabels, backward, dispose: end };
  } catch (error) {
    dispose();
    throw error;
  }
}

function asksForGradient(name: string): ModelError {
  return new ModelError({
    where: `lossSumBackward: ${name}`,
    expected: 'an input that needs no gradient of its own',
    received: 'requiresGrad',
    remedy: 'detach it, or use lossSum and backward()',
  });
}

function nothingLearns(): ModelError {
  return new ModelError({
    where: 'lossSumBackward',
    expected: 'a parameter that learns in what the batch uses',
    received: 'none',
    remedy: 'leave parts out of freeze, or apply an adapter',
  });
}
