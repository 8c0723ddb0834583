// How far an update moves the weights: the norm of the change over the norm of the weights, for each part of the model.
// Of every tensor only some elements are looked at, so that it costs neither memory nor time that would be felt.

import { type Tensor, noGrad, op, scope } from '../tensor/index.js';
import { gradNorms } from '../optim/index.js';
import { type GradientPart, gradientPart, normsByPart } from './gradient-norms.js';

/** Elements of a tensor that are compared, spread evenly over it. */
export const SAMPLED_ELEMENTS = 4096;

const slice = op('aten::slice.Tensor');
const foreachSub_ = op('aten::_foreach_sub_.List');

/** Compares the weights before and after an update. The samples before are float32 copies, disposed with `ratios`. */
export class UpdateRatio {
  readonly #tensors: readonly Tensor[];
  readonly #parts: readonly GradientPart[];
  #before: readonly Tensor[] = [];

  constructor(trainable: readonly (readonly [name: string, tensor: Tensor])[]) {
    this.#tensors = trainable.map(([, tensor]) => tensor);
    this.#parts = trainable.map(([name]) => gradientPart(name));
  }

  /** Right before an update. */
  remember(): void {
    this.#forget();
    this.#before = this.#samples();
  }

  /** Right after it: each part's ratio as its weights show it in their own dtype; of a part that is zero throughout, none.
   *  undefined where nothing was remembered. */
  ratios(): Partial<Record<GradientPart, number>> | undefined {
    if (this.#before.length === 0) return undefined;
    const after = this.#samples();
    const weights = normsByPart(gradNorms(this.#before), this.#parts);
    noGrad(() => scope(() => foreachSub_(after, this.#before)));
    const changes = normsByPart(gradNorms(after), this.#parts);
    for (const tensor of after) tensor.dispose();
    this.#forget();
    return Object.fromEntries(
      Object.entries(changes).flatMap(([part, change]) => {
        const weight = weights[part as GradientPart] ?? 0;
        return weight > 0 ? [[part, change / weight]] : [];
      }),
    );
  }

  #samples(): Tensor[] {
    return noGrad(() => scope(() => this.#tensors.map((tensor) => sampleOf(tensor))));
  }

  #forget(): void {
    for (const tensor of this.#before) tensor.dispose();
    this.#before = [];
  }
}

/** float32 [n], a copy of at most about `SAMPLED_ELEMENTS` elements. */
function sampleOf(tensor: Tensor): Tensor {
  const flat = tensor.detach().reshape([-1]);
  const stride = Math.max(1, Math.floor(flat.numel / SAMPLED_ELEMENTS));
  const some = slice(flat, 0, 0, flat.numel, stride);
  return some.dtype === 'float32' ? some.clone() : some.to('float32');
}
