// Grouped-query attention over libtorch's fused kernels.

import { type Tensor, op } from '../tensor/index.js';

export interface AttendOptions {
  /** bool [batch or 1, 1, queries, keys], true takes part. Without one attention is causal, or whole for one query. */
  readonly mask?: Tensor;
  readonly scale?: number;
  readonly dropout?: number;
}

const attention = op('aten::scaled_dot_product_attention');

/** softmax(q k^T scale) v in each head; a query that may see nothing yields zeros.
 *  @param q [batch, heads, queries, headDim]
 *  @param k [batch, kvHeads, keys, headDim], kvHeads dividing heads
 *  @param v as k
 *  @returns [batch, heads, queries, headDim] */
export function attend(q: Tensor, k: Tensor, v: Tensor, options: AttendOptions = {}): Tensor {
  const { mask, scale, dropout = 0 } = options;
  const isCausal = mask === undefined && (q.shape[2] ?? 1) > 1;
  const groups = (q.shape[1] ?? 1) / (k.shape[1] ?? 1);
  const isGrouped = groups > 1;

  // CUDA's fused kernels take grouped heads only without a mask; with one they would fall back to the plain product.
  const repeats = isGrouped && mask !== undefined && q.device !== 'cpu';
  return attention(
    q,
    repeats ? repeatHeads(k, groups) : k,
    repeats ? repeatHeads(v, groups) : v,
    mask,
    dropout,
    isCausal,
    scale,
    isGrouped && !repeats,
  );
}

function repeatHeads(x: Tensor, times: number): Tensor {
  const [batch = 1, heads = 1, length = 1, dim = 1] = x.shape;
  return x
    .unsqueeze(2)
    .expand([batch, heads, times, length, dim])
    .reshape([batch, heads * times, length, dim]);
}
