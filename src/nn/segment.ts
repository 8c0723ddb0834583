// Stretches of a model that may be computed again in the backward pass instead of keeping what they compute (activation
// checkpointing, arXiv:1604.06174). A module names its stretches with `segment`; whether one is computed in the plain way
// is decided by whoever runs the model (tape.ts).

import { Tensor, own, scope } from '../tensor/index.js';

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

/** One of the two passes over a stretch that is computed again. */
export interface Pass {
  /** The second: the first one's graph is dropped. */
  readonly isAgain: boolean;
  /** What the first keeps for the second beside the stretch's inputs, in order; undefined where nothing may be. */
  readonly kept: Tensor[] | undefined;
}

let pass: Pass | undefined;

/** Whether a stretch is computed again: then nobody reads the elements of what it gives, which only hands on gradients. */
export function isComputedAgain(): boolean {
  return pass?.isAgain ?? false;
}

/** A place in a stretch where the graph so far may go, if it is going to be dropped anyway: it need not wait for the
 *  stretch's end. @param made what later parts of the stretch use of earlier ones; it is used up @returns the same elements */
export function firstPassEnds<T extends Tensors>(made: T): T {
  if (!pass || pass.isAgain) return made;
  return mapTensors(made, (tensor) => {
    const result = tensor.detach();
    result.requiresGrad = tensor.requiresGrad;
    tensor.dispose();
    return result;
  });
}

/** A tensor in a stretch that takes long to compute for its size: it is kept for when the stretch is computed again.
 *  @param again the same tensor with its graph, made of its elements; undefined where that cannot be */
export function keptInSegment(
  compute: () => Tensor,
  again: ((elements: Tensor) => Tensor) | undefined,
): Tensor {
  if (!pass?.kept || !again) return compute();
  if (!pass.isAgain) {
    const result = compute();
    pass.kept.push(own(result.detach()));
    return result;
  }
  const elements = pass.kept.shift();
  if (!elements) throw new Error('a stretch that did not do the same the second time');
  return again(elements);
}

/** Runs a stretch's computation as this pass over it. */
export function withPass<T>(now: Pass | undefined, compute: () => T): T {
  const before = pass;
  pass = now;
  try {
    return compute();
  } finally {
    pass = before;
  }
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
