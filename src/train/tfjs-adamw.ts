// AdamW for TensorFlow.js, which has Adam alone: the moments are here, so that they can be saved and continued bit for bit
// (tfjs's own recomputes its powers of beta when it is loaded). Loshchilov and Hutter, arXiv 1711.05101.

import type { PlainArray } from '../data/arrays.js';
import type { AdamWOptions } from '../optim/index.js';
import type { Tfjs, TfTensor, TfVariable } from './tfjs-package.js';

export class TfjsAdamW {
  readonly #tf: Tfjs;
  readonly #variables: readonly TfVariable[];
  readonly #beta1: number;
  readonly #beta2: number;
  readonly #eps: number;
  /** Of each variable. */
  readonly #decays: readonly number[];
  readonly #moments: { readonly m: TfVariable; readonly v: TfVariable }[];
  /** Updates made, a scalar. */
  readonly #count: TfVariable;

  constructor(tf: Tfjs, variables: readonly TfVariable[], options: AdamWOptions) {
    const { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, decay = 'all' } = options;
    this.#tf = tf;
    this.#variables = variables;
    [this.#beta1, this.#beta2] = betas;
    this.#eps = eps;
    this.#decays = variables.map(({ rank }) => (decay === 'all' || rank >= 2 ? weightDecay : 0));
    this.#count = tf.tidy(() => tf.variable(tf.scalar(0), false));
    const zeros = (like: TfVariable) => tf.tidy(() => tf.variable(tf.zerosLike(like), false));
    this.#moments = variables.map((variable) => ({ m: zeros(variable), v: zeros(variable) }));
  }

  /** @param gradients of the variables in their order; a variable without one stays as it is */
  apply(gradients: readonly (TfTensor | undefined)[], lr: number): void {
    const tf = this.#tf;
    tf.tidy(() => {
      this.#count.assign(this.#count.add(1));
      const [step = 1] = this.#count.dataSync();
      for (const [i, gradient] of gradients.entries()) {
        if (!gradient) continue;
        const variable = this.#variables[i]!;
        const { m, v } = this.#moments[i]!;
        m.assign(m.mul(this.#beta1).add(gradient.mul(1 - this.#beta1)));
        v.assign(v.mul(this.#beta2).add(gradient.square().mul(1 - this.#beta2)));
        const root = v.div(1 - this.#beta2 ** step).sqrt();
        const change = m.div(1 - this.#beta1 ** step).div(root.add(this.#eps));
        variable.assign(variable.mul(1 - lr * this.#decays[i]!).sub(change.mul(lr)));
      }
    });
  }

  /** The number of updates, 'count', and the moments by name, 'm/0' and 'v/0' of the first variable. */
  tensors(): Map<string, TfVariable> {
    const moments = this.#moments.flatMap(({ m, v }, i): [string, TfVariable][] => [
      [`m/${i}`, m],
      [`v/${i}`, v],
    ]);
    return new Map([['count', this.#count], ...moments]);
  }

  dispose(): void {
    for (const tensor of this.tensors().values()) tensor.dispose();
  }
}

/** A copy of a tensor's values. float32, int32 or bool. */
export async function plainOf(tensor: TfTensor): Promise<PlainArray> {
  return { data: (await tensor.data()).slice(), shape: tensor.shape };
}
