// The global norm of gradients, and clipping by it.

import { ConfigError } from '../errors.js';
import { noGrad, op, scope, type Tensor } from '../tensor/index.js';

const foreachNorm = op<Tensor[]>('aten::_foreach_norm.Scalar');
const squareSumsOp = op('sluice::square_sums');
const foreachMul_ = op('aten::_foreach_mul_.Scalar');
const stack = op('aten::stack');
const vectorNorm = op('aten::linalg_vector_norm');

/** sqrt(sum of squares) over all elements, summed in float32 or wider; 0 for no tensors, not finite when one is not. */
export function gradNorm(gradients: readonly Tensor[]): number {
  if (gradients.length === 0) return 0;
  return scope(() =>
    noGrad(() => {
      if (gradients.every(({ device }) => device === 'cpu')) return Math.sqrt(sumOf(squareSums(gradients)));
      const norms = [
        ...groupBy(gradients, (gradient) => `${gradient.device} ${gradient.dtype}`).values(),
      ].flatMap((group) => foreachNorm(group, 2, group[0]!.dtype === 'float64' ? 'float64' : 'float32'));
      const home = norms[0]!.device;
      const together = norms.map((norm) => (norm.device === home ? norm : norm.to(home)).to('float64'));
      return vectorNorm(stack(together), 2).item();
    }),
  );
}

/** The norm of each, in their order, in one pass over all of a dtype and device; not finite where one is not. */
export function gradNorms(gradients: readonly Tensor[]): number[] {
  if (gradients.length === 0) return [];
  if (gradients.every(({ device }) => device === 'cpu')) return squareSums(gradients).map(Math.sqrt);
  return scope(() =>
    noGrad(() => {
      const norms = gradients.map(() => 0);
      const groups = groupBy(gradients.entries(), ([, { device, dtype }]) => `${device} ${dtype}`);
      for (const group of groups.values()) {
        const members = group.map(([, gradient]) => gradient);
        const wide = members[0]!.dtype === 'float64' ? 'float64' : 'float32';
        const values = stack(foreachNorm(members, 2, wide)).toTypedArray();
        for (const [i, [index]] of group.entries()) norms[index] = Number(values[i]);
      }
      return norms;
    }),
  );
}

/** The sum of squares of each, in float64, in one pass over all of them. */
export function squareSums(tensors: readonly Tensor[]): number[] {
  return scope(() => noGrad(() => Array.from(squareSumsOp(tensors).toTypedArray(), Number)));
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** Scales the gradients of `tensors` down so that their global norm is at most `max`, as torch.nn.utils.clip_grad_norm_
 *  does. Tensors without a gradient take no part.
 *  @param max above 0; Infinity only measures
 *  @returns the norm before clipping; when it is not finite the gradients are left as they are, and the caller stops
 *  @throws {ConfigError} when max is not above 0 */
export function clipGradNorm(tensors: Iterable<Tensor>, max: number): number {
  if (!(max > 0)) {
    throw new ConfigError({
      where: 'clipGradNorm',
      expected: 'a largest norm above 0',
      received: String(max),
      remedy: 'give Infinity to measure without clipping',
    });
  }
  return scope(() => {
    const gradients = Array.from(tensors, (tensor) => tensor.grad).filter((gradient) => gradient !== null);
    const norm = gradNorm(gradients);
    const factor = max / (norm + 1e-6);
    if (Number.isFinite(norm) && factor < 1) {
      noGrad(() => {
        for (const group of groupBy(
          gradients,
          (gradient) => `${gradient.device} ${gradient.dtype}`,
        ).values()) {
          foreachMul_(group, factor);
        }
      });
    }
    return norm;
  });
}

/** Elements by key, in order of first appearance. */
export function groupBy<T>(elements: Iterable<T>, keyOf: (element: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const element of elements) {
    const key = keyOf(element);
    const group = groups.get(key);
    if (group) group.push(element);
    else groups.set(key, [element]);
  }
  return groups;
}
