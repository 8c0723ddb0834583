// Grouped-query attention: on a CPU the addon's own kernels, elsewhere libtorch's.

import { type Tensor, arange, op, scope } from '../tensor/index.js';

export interface AttendOptions {
  /** bool [batch or 1, 1, queries or 1, keys], true takes part. On other devices than a CPU one of several queries must hide
   *  whatever they do not see. */
  readonly mask?: Tensor | undefined;
  /** int32 [batch or 1, queries]: the first key of the sequence that a query belongs to, where several share a row. */
  readonly starts?: Tensor | undefined;
  /** How many keys a query reaches back to, itself included. */
  readonly window?: number;
  readonly scale?: number;
  readonly dropout?: number;
}

/** A run of places in the sequence. */
export interface Span {
  readonly start: number;
  readonly length: number;
}

const attendAll = op('sluice::attend');
const attendLast = op('sluice::attend_last');

/** softmax(q k^T scale) v in each head; a query that may see nothing yields zeros. The last query is the last key's, and
 *  none sees keys after its own.
 *  @param q [batch, heads, queries, headDim]
 *  @param k [batch, kvHeads, keys, headDim], kvHeads dividing heads
 *  @param v as k
 *  @returns [batch, heads, queries, headDim] */
export function attend(q: Tensor, k: Tensor, v: Tensor, options: AttendOptions = {}): Tensor {
  const { mask, starts, window = Infinity, dropout = 0 } = options;
  const [, , numQueries = 1, headDim = 1] = q.shape;
  const numKeys = k.shape[2] ?? 1;
  const { scale = headDim ** -0.5 } = options;
  const reach = Math.min(window, numKeys);
  if (numQueries > 1 || starts) return attendAll(q, k, v, mask, starts, reach, scale, dropout);

  const near = (x: Tensor, dim: number): Tensor =>
    numKeys > reach ? x.narrow(dim, numKeys - reach, reach) : x;
  const [keys, values, sees] = [near(k, 2), near(v, 2), mask && near(mask, 3)];
  if (q.device === 'cpu' && dropout === 0) return attendLast(q, keys, values, sees, scale);
  return attendAll(q, keys, values, sees, undefined, reach, scale, dropout);
}

/** bool [1, 1, queries, keys]: keys at the query's place and before, within the window. */
export function causalMask(queries: Span, keys: Span, window: number, device: string): Tensor {
  return scope(() => {
    const places = ({ start, length }: Span): Tensor => arange(start, start + length, 1, { device });
    const distance = places(queries).unsqueeze(1).sub(places(keys).unsqueeze(0));
    const causal = distance.ge(0);
    const reaches = queries.start + queries.length - keys.start <= window;
    return (reaches ? causal : causal.logicalAnd(distance.lt(window))).unsqueeze(0).unsqueeze(0);
  });
}
