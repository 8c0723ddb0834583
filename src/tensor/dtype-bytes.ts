// How much memory elements take, known without a tensor.

import type { DType } from './tensor.js';

/** Of one element. */
export function dtypeBytes(dtype: DType): number {
  if (dtype === 'bool' || /int8$/.test(dtype)) return 1;
  return Number(/\d+$/.exec(dtype)![0]) / 8;
}
