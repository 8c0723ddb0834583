// AdamW for TensorFlow.js, which has Adam alone: the moments are here, so that they can be saved and continued bit for bit
// (tfjs's own recomputes its powers of beta when it is loaded). Loshchilov and Hutter, arXiv 1711.05101.

import type * as Tf from '@tensorflow/tfjs';
import type { PlainArray } from '../data/arrays.js';
import type { AdamWOptions } from '../optim/index.js';
import type { Tfjs } from './tfjs-package.js';

export class TfjsAdamW {
  readonly #tf: Tfjs;
  readonly #variables: readonly Tf.Variable[];
  readonly #beta1: number;
  readonly #beta2: number;
  readonly #eps: number;
  readonly #decay: number;
  readonly #moments: { readonly m: Tf.Variable; readonly v: Tf.Variable }[];

  constructor(tf: Tfjs, variables: readonly Tf.Variable[], options: AdamWOptions) {
    const { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 } = options;
    this.#tf = tf;
    this.#variables = variables;
    [this.#beta1, this.#beta2] = betas;
    this.#eps = eps;
    this.#decay = weightDecay;
    const zeros = (like: Tf.Variable) => tf.tidy(() => tf.variable(tf.zerosLike(like), false));
    this.#moments = variables.map((variable) => ({ m: zeros(variable), v: zeros(variable) }));
  }

  /** @param gradients of the variables in their order; a variable without one stays as it is
   *  @param step of this update, from 1 */
  apply(gradients: readonly (Tf.Tensor | undefined)[], lr: number, step: number): void {
    const tf = this.#tf;
    tf.tidy(() => {
      for (const [i, gradient] of gradients.entries()) {
        if (!gradient) continue;
        const variable = this.#variables[i]!;
        const { m, v } = this.#moments[i]!;
        m.assign(m.mul(this.#beta1).add(gradient.mul(1 - this.#beta1)));
        v.assign(v.mul(this.#beta2).add(gradient.square().mul(1 - this.#beta2)));
        const root = v.div(1 - this.#beta2 ** step).sqrt();
        const change = m.div(1 - this.#beta1 ** step).div(root.add(this.#eps));
        variable.assign(variable.mul(1 - lr * this.#decay).sub(change.mul(lr)));
      }
    });
  }

  /** The moments by name, 'm/0' and 'v/0' of the first variable. */
  tensors(): Map<string, Tf.Variable> {
    return new Map(
      this.#moments.flatMap(({ m, v }, i) => [
        [`m/${i}`, m],
        [`v/${i}`, v],
      ]),
    );
  }

  dispose(): void {
    for (const tensor of this.tensors().values()) tensor.dispose();
  }
}

/** A copy of a tensor's values. float32, int32 or bool. */
export async function plainOf(tensor: Tf.Tensor): Promise<PlainArray> {
  return { data: (await tensor.data()).slice(), shape: tensor.shape };
}
