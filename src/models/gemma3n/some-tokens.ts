// Some of a batch's tokens: all that later computation needs.

import type { Tensor } from '../../tensor/index.js';

/** [batch, length, ...] -> [batch, 1, ...] */
export function lastToken(x: Tensor): Tensor {
  return x.narrow(1, (x.shape[1] ?? 1) - 1, 1);
}

/** [batch, length, ...] -> [1, rows, ...] @param rows int64 [rows], places in [batch * length] */
export function tokensAt(x: Tensor, rows: Tensor): Tensor {
  return x
    .reshape([-1, ...x.shape.slice(2)])
    .indexSelect(0, rows)
    .unsqueeze(0);
}
