// Stretches of a model that may be computed again in the backward pass instead of keeping what they compute (activation
// checkpointing, arXiv:1604.06174). A module names its stretches with `segment`; whether one is computed in the plain way
// is decided by whoever runs the model (tape.ts).

import { Tensor, scope } from '../tensor/index.js';

/** Tensors, and plain objects and arrays of them; other values go along. */
export type Tensors = unknown;

/** What may stand in for the plain way. */
export interface SegmentRunner {
  run<I extends Tensors, O extends Tensors>(part: string, inputs: I, compute: (inputs: I) => O): O;
  /** See `foundIn`. */
  foundIn(tensor: Tensor, source: Tensor, find: (source: Tensor) => Tensor): void;
}

let current: SegmentRunner | undefined;

/** Computes a stretch of a model, a layer at best.
 *
 *  Every tensor that it depends on and that may need a gradient, parameters aside, is among the inputs and used from there;
 *  so is every tensor that does not live as long as the model. Between two stretches nothing is computed that needs a
 *  gradient: a stretch's outputs go into others as they are.
 *  @param part of the model, to be chosen by
 *  @param compute may run twice, and does the same then
 *  @returns what it computes; all else that it made is freed */
export function segment<I extends Tensors, O extends Tensors>(
  part: string,
  inputs: I,
  compute: (inputs: I) => O,
): O {
  return current ? current.run(part, inputs, compute) : scope(() => compute(inputs));
}

/** Says that what a segment made is part of another thing that a segment made: who keeps both needs to keep one.
 *  @param find the same elements, out of the source; any view of it */
export function foundIn(tensor: Tensor, source: Tensor, find: (source: Tensor) => Tensor): void {
  current?.foundIn(tensor, source, find);
}

/** Runs `fn` with its segments computed by `runner`; undefined is the plain way. */
export function withSegments<T>(runner: SegmentRunner | undefined, fn: () => T): T {
  const before = current;
  current = runner;
  try {
    return fn();
  } finally {
    current = before;
  }
}

/** The same structure with every tensor exchanged. */
export function mapTensors<T extends Tensors>(value: T, exchange: (tensor: Tensor) => Tensor): T {
  return mapped(value, exchange) as T;
}

function mapped(value: unknown, exchange: (tensor: Tensor) => Tensor): unknown {
  if (value instanceof Tensor) return exchange(value);
  if (Array.isArray(value)) return value.map((element: unknown) => mapped(element, exchange));
  if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) {
    return value;
  }
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, mapped(one, exchange)]));
}
