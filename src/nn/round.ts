// Constants as a dtype holds them: sqrt(3072) is 55.5 in bfloat16, and the reference multiplies by that.

import { type DType, scope, tensor } from '../tensor/index.js';

const known = new Map<string, number>();

/** The number nearest to `value` that `dtype` can hold. */
export function roundTo(value: number, dtype: DType): number {
  if (dtype === 'float64') return value;
  const key = `${dtype} ${value}`;
  let rounded = known.get(key);
  if (rounded === undefined) {
    rounded = scope(() => tensor([value], [], 'float32').to(dtype).item());
    known.set(key, rounded);
  }
  return rounded;
}
