// The backward pass a segment at a time, driven from here. Forward keeps each segment's inputs, and the little that it asks
// to be kept beside them; backward goes from the last segment to the first, computes each again with its graph, and derives
// it with the gradients of its outputs, which gives those of its inputs and adds to the parameters'. What several segments
// use (keys and values that layers share) has the sum of their gradients when its own segment's turn comes.
//
// A segment is recorded in the forward pass too, and its graph dropped: kernels that are chosen where nothing is recorded
// round otherwise, and only so is it known exactly whether anything in it learns. Of one where nothing does, nothing is kept.

import {
  type Tensor,
  backwardTaking,
  enableGrad,
  own,
  noGrad,
  ones,
  randomState,
  scope,
  setRandomState,
} from '../tensor/index.js';
import {
  type Pass,
  type SegmentRunner,
  type Tensors,
  mapTensors,
  withPass,
  withSegments,
} from './segment.js';
import { TapeValue } from './tape-value.js';

export interface TapeOptions {
  /** The parts whose segments are computed again; others keep their graphs. */
  readonly parts: ReadonlySet<string>;
  /** Moves what is kept to the host's memory until it is needed. On a CPU it is there already: nothing is done. */
  readonly offload?: boolean;
}

interface Segment {
  readonly inputs: readonly TapeValue[];
  /** Of those outputs that learn, by their places among all tensors of the result. */
  readonly outputs: ReadonlyMap<number, TapeValue>;
  /** What it computes again: all tensors of its result. */
  readonly again?: (leaves: readonly Tensor[]) => Tensor[];
  /** What it kept of itself for that. */
  readonly kept?: Tensor[] | undefined;
  /** The generators' states before it, where it draws. */
  readonly random?: Uint8Array | undefined;
  /** Instead of computing again: what the forward pass kept. */
  readonly graph?: { readonly leaves: readonly Tensor[]; readonly results: readonly Tensor[] };
}

/** One forward and one backward pass. Its tensors live until `dispose`. */
export class Tape implements SegmentRunner {
  readonly #options: TapeOptions;
  readonly #segments: Segment[] = [];
  /** Of every tensor that a segment made or used. */
  readonly #values = new Map<Tensor, TapeValue>();

  constructor(options: TapeOptions) {
    this.#options = options;
  }

  /** Runs a forward pass whose segments are kept here. */
  record<T>(forward: () => T): T {
    return withSegments(this, () => enableGrad(forward));
  }

  run<I extends Tensors, O extends Tensors>(part: string, inputs: I, compute: (inputs: I) => O): O {
    const again = this.#options.parts.has(part);
    const given = tensorsOf(inputs).map((tensor) => this.#valueOf(tensor));
    return scope(() => {
      const before = randomState();
      const leaves = given.map((value) => value.leaf());
      const kept: Tensor[] = [];
      // It would stay where it is: of a device that has to be spared nothing is kept.
      const first = again ? { isAgain: false, kept: this.#options.offload ? undefined : kept } : undefined;
      const result = orDispose(kept, () =>
        scope(() => withPass(first, () => withSegments(undefined, () => compute(replaced(inputs, leaves))))),
      );
      const results = tensorsOf(result);

      const learning = results.map((tensor) => tensor.requiresGrad);
      const outputs = new Map<number, TapeValue>();
      const handed = results.map((tensor, i) => {
        const learns = learning[i] ?? false;
        const own = tensor.detach();
        own.requiresGrad = learns;
        const value = new TapeValue(own, learns);
        this.#values.set(own, value);
        if (learns) outputs.set(i, value);
        return own;
      });
      if (outputs.size > 0) {
        const segment = { inputs: given, outputs };
        if (again) {
          for (const value of given) value.store(this.#segments.length, this.#options.offload ?? false);
          this.#segments.push({
            ...segment,
            again: (fresh) => tensorsOf(compute(replaced(inputs, fresh))),
            kept: first?.kept,
            random: isEqual(before, randomState()) ? undefined : before,
          });
        } else {
          this.#segments.push({
            ...segment,
            graph: { leaves: leaves.map(own), results: results.map(own) },
          });
        }
      } else {
        disposeAll(kept);
      }
      return replaced(result, handed);
    });
  }

  foundIn(tensor: Tensor, source: Tensor, find: (source: Tensor) => Tensor): void {
    const [value, other] = [this.#values.get(tensor), this.#values.get(source)];
    if (value && other && value !== other) value.isFoundIn(other, find);
  }

  /** Derives a single element that a segment made: adds to the gradients of all parameters that it depends on.
   *  @param afterEach called after each segment, when all parameters that no earlier one uses have their whole gradients;
   *    `isLast` after the last of them, the first of the forward pass */
  backward(loss: Tensor, afterEach?: (isLast: boolean) => void): void {
    try {
      scope(() =>
        this.#values.get(loss)?.accumulate(ones(loss.shape, { dtype: loss.dtype, device: loss.device })),
      );
      for (let i = this.#segments.length - 1; i >= 0; i--) {
        const segment = this.#segments[i];
        if (!segment) continue;
        scope(() => derive(segment));
        for (const value of segment.inputs) value.release(i);
        this.#segments.pop();
        afterEach?.(i === 0);
      }
    } finally {
      this.dispose();
    }
  }

  /** Frees all that is kept. */
  dispose(): void {
    for (const segment of this.#segments) disposeGraph(segment);
    for (const value of this.#values.values()) value.dispose();
    this.#segments.length = 0;
    this.#values.clear();
  }

  #valueOf(tensor: Tensor): TapeValue {
    const known = this.#values.get(tensor);
    if (known) return known;
    if (tensor.requiresGrad) throw new Error('a tensor that needs a gradient was made outside all segments');
    const value = new TapeValue(tensor, false);
    this.#values.set(tensor, value);
    return value;
  }
}

function derive(segment: Segment): void {
  const gradients = [...segment.outputs].flatMap(([place, value]) => {
    const gradient = value.takeGradient();
    return gradient ? [{ place, gradient }] : [];
  });
  if (gradients.length > 0) {
    const leaves = segment.graph?.leaves ?? segment.inputs.map((value) => value.leaf());
    const results = segment.graph?.results ?? computedAgain(segment, leaves);
    disposeAll(segment.kept ?? []); // the graph holds them until it has no more use for them
    const derived = gradients.map(({ place }) => {
      const result = results[place];
      if (!result?.requiresGrad) throw new Error('a segment that did not do the same the second time');
      // An input that is handed on is needed still.
      return leaves.includes(result) ? enableGrad(() => result.view(result.shape)) : result;
    });
    backwardTaking(
      derived,
      gradients.map(({ gradient }) => gradient),
    );
    for (const [i, value] of segment.inputs.entries()) {
      const gradient = value.learns ? leaves[i]?.grad : undefined;
      if (gradient) noGrad(() => value.accumulate(gradient));
    }
  }
  disposeGraph(segment);
}

/** Draws what it drew the first time, and leaves the generator as it was. */
function computedAgain({ again, kept, random }: Segment, leaves: readonly Tensor[]): Tensor[] {
  const pass: Pass = { isAgain: true, kept: kept && [...kept] };
  const compute = (): Tensor[] =>
    enableGrad(() => scope(() => withPass(pass, () => withSegments(undefined, () => again?.(leaves) ?? []))));
  if (!random) return compute();
  const now = randomState();
  setRandomState(random);
  try {
    return compute();
  } finally {
    setRandomState(now);
  }
}

function disposeGraph({ graph, kept = [] }: Segment): void {
  disposeAll([...kept, ...(graph?.leaves ?? []), ...(graph?.results ?? [])]);
}

/** @param tensors freed when it fails */
function orDispose<T>(tensors: readonly Tensor[], compute: () => T): T {
  try {
    return compute();
  } catch (error) {
    disposeAll(tensors);
    throw error;
  }
}

function disposeAll(tensors: readonly Tensor[]): void {
  for (const tensor of tensors) tensor.dispose();
}

function tensorsOf(value: Tensors): Tensor[] {
  const found: Tensor[] = [];
  mapTensors(value, (tensor) => {
    found.push(tensor);
    return tensor;
  });
  return found;
}

/** Tensors in the order of `tensorsOf`. */
function replaced<T extends Tensors>(value: T, tensors: readonly Tensor[]): T {
  let next = 0;
  return mapTensors(value, (tensor) => tensors[next++] ?? tensor);
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
