// Weights that compute and are zero throughout. Most tensors are told by a few of their elements; only those that are
// zero there are read whole.

import { type Tensor, noGrad, op, scope } from '../tensor/index.js';

/** Elements that are looked at first. */
const FIRST_ELEMENTS = 64;

const slice = op('aten::slice.Tensor');
const countNonzero = op('aten::count_nonzero');

/** Zero is what these start from, and no fault: biases, and the audio tower's scale a dimension, which is softplus of it. */
const BEGINS_AT_ZERO = /\.(bias|per_dim_scale)$/;

/** Names of those that are zero throughout. What begins at zero is left out, and so are quantised weights, which have codes
 *  in place of numbers. */
export function allZero(parameters: Iterable<[string, Tensor]>): string[] {
  const names: string[] = [];
  for (const [name, tensor] of parameters) {
    if (BEGINS_AT_ZERO.test(name) || tensor.numel === 0 || tensor.device === 'meta') continue;
    if (isZero(tensor)) names.push(name);
  }
  return names;
}

function isZero(tensor: Tensor): boolean {
  return noGrad(() =>
    scope(() => {
      const flat = tensor.detach().reshape([-1]);
      const stride = Math.max(1, Math.floor(flat.numel / FIRST_ELEMENTS));
      const few = slice(flat, 0, 0, flat.numel, stride);
      return countNonzero(few).item() === 0 && countNonzero(flat).item() === 0;
    }),
  );
}
