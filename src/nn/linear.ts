// Linear: y = x W^T + b.

import { type Tensor, currentDefaults, empty, linear } from '../tensor/index.js';
import { placeOfNew } from './deferred.js';
import { Module, parameter } from './module.js';
import { type QuantisedWeight, refuseLearning } from './quantised-weight.js';
import { keptInSegment } from './segment.js';

/** What stands before a linear's own product, and may use it: an adapter. */
export interface LinearAdapter {
  /** @param x [..., inFeatures] @returns [..., outFeatures] */
  forward(x: Tensor, linear: Linear): Tensor;
  /** `forward` of an input whose output is known: the graph without the product. Undefined where only `forward` makes it. */
  graphOf?(x: Tensor, linear: Linear): ((output: Tensor) => Tensor) | undefined;
  /** Several linears of one input, of which this is the first one's adapter; undefined where it is no better than one by
   *  one. @returns [..., outFeatures] of each */
  together?(x: Tensor, linears: readonly Linear[]): Tensor[] | undefined;
}

/** What several linears make of one input. @param x [..., inFeatures] @returns [..., outFeatures] of each */
export function forwardAll(x: Tensor, linears: readonly Linear[]): Tensor[] {
  const together = linears[0]?.adapter?.together?.(x, linears);
  return together ?? linears.map((linear) => linear.forward(x));
}

/** Weights start uninitialised, with the dtype and device of `withDefaults`: a checkpoint or an initialiser fills them. */
export class Linear extends Module {
  /** [outFeatures, inFeatures] */
  weight: Tensor;
  /** Instead of it, where it is frozen and quantised: `weight` has no memory then. */
  quantised: QuantisedWeight | undefined;
  /** [outFeatures] */
  bias: Tensor | undefined;
  /** Not a field of the tree: an adapter's tensors have names of their own. */
  #adapter: LinearAdapter | undefined;
  readonly #place = currentDefaults();

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    options: { readonly bias?: boolean } = {},
  ) {
    super();
    this.weight = parameter(empty([outFeatures, inFeatures], placeOfNew('matrices')));
    this.bias = options.bias ? parameter(empty([outFeatures])) : undefined;
  }

  /** Whether `forward` is the product with `weight`, and `bias`, and nothing else: then others may compute it their way. */
  get isPlain(): boolean {
    return this.#adapter === undefined && this.forward === Linear.prototype.forward && this.isDense;
  }

  /** Whether `product` is the product with `weight`, and `bias`, and nothing else. */
  get isDense(): boolean {
    return this.product === Linear.prototype.product && this.quantised === undefined;
  }

  /** Where it computes. */
  get device(): string {
    const { device } = this.weight;
    return device === 'meta' ? this.#place.device : device;
  }

  get adapter(): LinearAdapter | undefined {
    return this.#adapter;
  }
  set adapter(adapter: LinearAdapter | undefined) {
    this.#adapter = adapter;
  }

  /** @param x [..., inFeatures] @returns [..., outFeatures] */
  forward(x: Tensor): Tensor {
    return this.#adapter ? this.#adapter.forward(x, this) : this.product(x);
  }

  /** `forward`, whose output is kept where a segment is computed twice, if its graph can be made without the product. */
  forwardOnce(x: Tensor): Tensor {
    return keptInSegment(() => this.forward(x), this.#adapter?.graphOf?.(x, this));
  }

  /** What the layer computes by itself, without an adapter. */
  product(x: Tensor): Tensor {
    const { quantised } = this;
    if (!quantised) return linear(x, this.weight, this.bias);
    refuseLearning(this.weight);
    return quantised.linear(x, this.bias);
  }

  /** Takes codes and scales for the weight, whose memory is freed. They belong to this module from now on. */
  useQuantised(quantised: QuantisedWeight): void {
    this.weight.dispose();
    this.weight = quantised.placeholder();
    this.quantised = quantised;
  }

  /** Memory for a weight that has none yet; uninitialised. */
  allocate(): void {
    if (this.quantised || this.weight.device !== 'meta') return;
    this.weight.dispose();
    this.weight = parameter(empty([this.outFeatures, this.inFeatures], this.#place));
  }
}
