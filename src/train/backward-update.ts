// The update within the backward pass: a layer's parameters are updated when its gradients are whole, and the gradients
// freed before the next layer's are made, so that they are never there all at once.

import type { Measured } from '../optim/clip.js';
import type { Clipping, Optimizer } from '../optim/index.js';
import { type Tensor, keep, noGrad, scope } from '../tensor/index.js';

export interface BackwardUpdateOptions {
  readonly optimizer: Optimizer;
  /** What asks for one norm over all would clip each layer by itself: the caller refuses it. */
  readonly clipping: Clipping;
  /** Used by more than one segment: updated after all. */
  readonly shared: readonly Tensor[];
}

/** One backward pass with its updates. Its result is bit for bit that of an update after the pass. */
export class BackwardUpdate {
  readonly #options: BackwardUpdateOptions;
  /** What the gradient is divided by. */
  readonly #count: number;
  readonly #held = new Map<Tensor, Tensor>();
  #norms: (number | undefined)[] = [];
  #clipped = false;

  constructor(options: BackwardUpdateOptions, count: number) {
    this.#options = options;
    this.#count = count;
  }

  /** Of all gradients so far, before clipping. */
  get measured(): Pick<Measured, 'norm' | 'norms' | 'clipped'> {
    const norm = Math.sqrt(this.#norms.reduce<number>((sum, each = 0) => sum + each ** 2, 0));
    return { norm, norms: this.#norms, clipped: this.#clipped };
  }

  /** To be called after each segment of the backward pass.
   *  @returns false when a gradient is not finite: nothing is updated with it then, but later layers have been */
  afterSegment(isLast: boolean): boolean {
    return scope(() => {
      if (isLast) this.#giveBack();
      else this.#withhold();
      const { optimizer, clipping } = this.#options;
      const { norm, norms, scale, clipped } = clipping.measure(this.#count);
      this.#norms = norms.map((each, i) => each ?? this.#norms[i]);
      if (!Number.isFinite(norm)) return false;
      this.#clipped ||= clipped;
      optimizer.step({ scale });
      optimizer.zeroGrad();
      return true;
    });
  }

  /** Frees what is withheld, where the pass did not come to its end. */
  dispose(): void {
    for (const gradient of this.#held.values()) gradient.dispose();
    this.#held.clear();
  }

  #withhold(): void {
    for (const parameter of this.#options.shared) {
      const gradient = parameter.grad;
      if (!gradient) continue;
      const held = this.#held.get(parameter);
      if (held) noGrad(() => held.add_(gradient));
      else this.#held.set(parameter, keep(gradient));
      parameter.grad = null;
    }
  }

  #giveBack(): void {
    for (const [parameter, held] of this.#held) {
      const gradient = parameter.grad;
      if (gradient) noGrad(() => held.add_(gradient));
      parameter.grad = held;
    }
    this.dispose();
  }
}
