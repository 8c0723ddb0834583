// Rotary position embedding (arXiv:2104.09864), halves rotated against each other as Hugging Face stores them.

import type { RmsNorm } from '../../nn/index.js';
import { type Tensor, arange, cat, op, scope } from '../../tensor/index.js';
import type { DType } from '../../tensor/index.js';
import type { LayerType, RopeConfig, TextConfig } from './config.js';

/** Cosine and sine of every position's angles. */
export interface Rotation {
  /** [batch or 1, length, 1, headDim] */
  readonly cos: Tensor;
  /** The same; its first half is negated, so that the halves need only be swapped. */
  readonly signedSin: Tensor;
}

export type Rotations = Readonly<Partial<Record<LayerType, Rotation>>>;

const powScalar = op('aten::pow.Scalar');
const normRotateOp = op('sluice::rms_norm_rotate');

/** A rotation for each kind of layer that the configuration has. Angles are float32, the tables of the given dtype.
 *  @param positionIds int64 [batch or 1, length] */
export function rotations(config: TextConfig, positionIds: Tensor, dtype: DType): Rotations {
  const tables: Partial<Record<LayerType, Rotation>> = {};
  for (const kind of new Set(config.layerTypes)) {
    tables[kind] = rotation(config.rope[kind], config.headDim, positionIds, dtype);
  }
  return tables;
}

function rotation(rope: RopeConfig, headDim: number, positionIds: Tensor, dtype: DType): Rotation {
  return scope(() => {
    const exponents = arange(0, headDim, 2, { device: positionIds.device }).to('float32').div(headDim);
    const frequencies = powScalar(rope.theta, exponents).pow(-1).div(rope.factor);
    const angles = positionIds.to('float32').unsqueeze(-1).mul(frequencies).unsqueeze(2);
    const [cos, sin] = [angles.cos(), angles.sin()];
    return { cos: cat([cos, cos], -1).to(dtype), signedSin: cat([sin.neg(), sin], -1).to(dtype) };
  });
}

/** Of the last position alone. */
export function lastRotation({ cos, signedSin }: Rotation): Rotation {
  const last = (table: Tensor): Tensor => table.narrow(1, (table.shape[1] ?? 1) - 1, 1);
  return { cos: last(cos), signedSin: last(signedSin) };
}

/** Each head normed and, with a rotation, rotated.
 *  @param x [batch, length, heads * headDim] @returns [batch, heads, length, headDim] */
export function normRotate(
  x: Tensor,
  { weight, eps }: RmsNorm,
  rotation: Rotation | undefined,
  heads: number,
): Tensor {
  return normRotateOp(x, weight, rotation?.cos, rotation?.signedSin, eps, heads);
}
