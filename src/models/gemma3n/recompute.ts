// Activation checkpointing of a model: which parts are computed again in the backward pass, and what may be done between
// their layers.

import { ModelError } from '../../errors.js';
import { type Module, Tape } from '../../nn/index.js';
import { Tensor, keep, noGrad, scope } from '../../tensor/index.js';
import type { Gemma3nConfig } from './config.js';

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
   *    met so far are whole, but those of `sharedParameters`; `isLast` when they are too
   *  @throws {ModelError} when nothing learns */
  readonly backward: (afterEach?: (isLast: boolean) => void) => void;
  /** Frees what is kept for a backward pass that will not be. */
  readonly dispose: () => void;
}

/** Those of the parts that a model has. */
export function recomputedPartsOf({ config }: { readonly config: Gemma3nConfig }): RecomputedPart[] {
  const has = { text: true, vision: config.vision !== undefined, audio: config.audio !== undefined };
  return RECOMPUTED_PARTS.filter((part) => has[part]);
}

/** What of a model more than one segment may use. */
interface SharingModel {
  readonly lmHead: unknown;
  readonly outputWeight: Tensor;
  readonly projectors: readonly Module[];
}

/** Parameters that more than one segment uses, by which their gradients come in parts: the embedding that is the output
 *  head too, and projectors, which embed both features and a tower's own words. */
export function sharedParameters(model: SharingModel): Tensor[] {
  const table = model.lmHead ? [] : [model.outputWeight];
  return [
    ...table,
    ...model.projectors.flatMap((one) => Array.from(one.namedParameters(), ([, tensor]) => tensor)),
  ];
}

/** @throws {ModelError} when an input asks for a gradient: it would get none */
export function recomputedLoss<I extends object>(
  model: SharingModel & { lossSum(inputs: I): { readonly loss: Tensor; readonly numLabels: number } },
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
        const putBack = setAside(sharedParameters(model));
        try {
          tape.backward(loss, afterEach);
        } finally {
          putBack();
        }
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

/** Takes gradients of before away: the engine adds a pass's own parts up first, and so must they be here.
 *  @returns what adds them again */
function setAside(parameters: readonly Tensor[]): () => void {
  const before = parameters.flatMap((parameter) => {
    const { grad } = parameter;
    if (!grad) return [];
    parameter.grad = null;
    return [{ parameter, grad: keep(grad) }];
  });
  return () => {
    for (const { parameter, grad } of before) {
      scope(() => {
        const own = parameter.grad;
        if (own) noGrad(() => grad.add_(own));
        parameter.grad = grad;
      });
      grad.dispose();
    }
  };
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
