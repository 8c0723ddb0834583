// Counts the floating point operations of matrix products and convolutions as a walk through a model meets them, forward
// and backward. All else (norms, activations, embeddings' rows) is left out, as torch's FlopCounterMode leaves it out.

import type { Linear, Module } from '../../nn/index.js';
import { type LoraLayer, adaptersOf } from '../../peft/index.js';
import type { Tensor } from '../../tensor/index.js';

/** A factor that needs a gradient, or not: a backward pass makes a product for each that does. */
type Needs = boolean;

/** What learns in a model, and which adapters stand beside its linear modules, as it is when this is made. */
export class Learning {
  readonly #tensors: ReadonlySet<Tensor>;
  readonly #adapters = new Map<Linear, LoraLayer[]>();

  constructor(model: Module) {
    this.#tensors = new Set(
      Array.from(model.namedParameters(), ([, tensor]) => tensor).filter(({ requiresGrad }) => requiresGrad),
    );
    const adapters = adaptersOf(model);
    if (!adapters || adapters.isMerged) return;
    for (const name of adapters.active) {
      for (const layer of adapters.get(name).layers.values()) {
        this.#adapters.set(layer.linear, [...(this.#adapters.get(layer.linear) ?? []), layer]);
      }
    }
  }

  has(...tensors: readonly (Tensor | undefined)[]): Needs {
    return tensors.some((tensor) => tensor !== undefined && this.#tensors.has(tensor));
  }

  adaptersOf(linear: Linear): readonly LoraLayer[] {
    return this.#adapters.get(linear) ?? [];
  }
}

/** One account. Each method adds an operation and says whether its result needs a gradient. */
export class Products {
  #forward = 0;
  #backward = 0;
  #attended = 0;

  constructor(readonly learning: Learning) {}

  get forward(): number {
    return this.#forward;
  }
  get backward(): number {
    return this.#backward;
  }
  /** Of both, what attention computes for pairs of a query and a key. */
  get attended(): number {
    return this.#attended;
  }

  /** A product of two factors. @param terms multiplications: rows x columns x inner size */
  product(terms: number, left: Needs, right: Needs): Needs {
    this.#forward += 2 * terms;
    this.#backward += 2 * terms * (Number(left) + Number(right));
    return left || right;
  }

  /** y = x W^T + b, and the adapters beside it. @param rows of x */
  linear(linear: Linear, rows: number, x: Needs): Needs {
    const { inFeatures, outFeatures, weight, bias } = linear;
    const { learning } = this;
    let result = this.product(rows * inFeatures * outFeatures, x, learning.has(weight));
    result ||= learning.has(bias);
    for (const { a, b, magnitude, options } of learning.adaptersOf(linear)) {
      const down = this.product(rows * inFeatures * options.rank, x, learning.has(a));
      result = this.product(rows * options.rank * outFeatures, down, learning.has(b)) || result;
      // DoRA's norms of W + s B A: once, whatever the rows, and a constant to the gradient.
      if (!magnitude) continue;
      this.product(options.rank * inFeatures * outFeatures, false, false);
      result ||= learning.has(magnitude);
    }
    return result;
  }

  /** @param places that the kernel stands at: positions of the result, of all images */
  convolution(weight: Tensor, bias: Tensor | undefined, places: number, x: Needs): Needs {
    return this.product(places * weight.numel, x, this.learning.has(weight)) || this.learning.has(bias);
  }

  /** softmax(Q K^T + B) V. @param terms multiplications of each of the two products: pairs x heads x head size
   *  @param bias whether B needs a gradient */
  attention(terms: number, q: Needs, k: Needs, v: Needs, bias = false): Needs {
    const probabilities = this.ofPairs(terms, q, k) || bias;
    return this.ofPairs(terms, probabilities, v);
  }

  /** A product of attention's. */
  ofPairs(terms: number, left: Needs, right: Needs): Needs {
    const before = this.#forward + this.#backward;
    const result = this.product(terms, left, right);
    this.#attended += this.#forward + this.#backward - before;
    return result;
  }
}
