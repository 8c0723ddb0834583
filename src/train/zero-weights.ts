// Weights that compute and are zero throughout. Most tensors are told by a few of their elements; only those that are
// zero there are read whole.

import { type Tensor, noGrad, op, scope } from '../tensor/index.js';

/** Elements that are looked at first. */
const FIRST_ELEMENTS = 64;

const slice = op('aten::slice.Tensor');
const countNonzero = op('aten::count_nonzero');

/** Names of those that are zero throughout. Biases are left out: zero is what they start from. So are quantised weights,
 *  which have codes in place of numbers. */
export function allZero(parameters: Iterable<[string, Tensor]>): string[] {
  const names: string[] = [];
  for (const [name, tensor] of parameters) {
    if (name.endsWith('.bias') || tensor.numel === 0 || tensor.device === 'meta') continue;
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
