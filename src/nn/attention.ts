// Grouped-query attention over libtorch's kernels. On a CPU the queries are taken in blocks, each against the keys that
// it can reach alone: libtorch's kernel there computes every score and hides what the mask forbids. In bfloat16 that
// kernel is also far slower than two products and a softmax, which are then what is used; and where the processor has no
// instructions for bfloat16, float32 is faster than either.

import { type Tensor, arange, cat, hasFastBfloat16, op, scope, softmax, zeros } from '../tensor/index.js';

export interface AttendOptions {
  /** bool [batch or 1, 1, queries, keys], true takes part. Without one attention is causal. */
  readonly mask?: Tensor;
  /** How many keys a query reaches back to, itself included. A mask of several queries must hide the keys before: beside
   *  one it only saves work. */
  readonly window?: number;
  readonly scale?: number;
  readonly dropout?: number;
}

/** A run of places in the sequence. */
export interface Span {
  readonly start: number;
  readonly length: number;
}

const attention = op('aten::scaled_dot_product_attention');
const attendLast = op('sluice::attend_last');
const baddbmm = op('aten::baddbmm');
const bmm = op('aten::bmm');
const anyOf = op('aten::any.dim');

/** What hides a score: finite, so that a query with nothing to see yields no NaN. */
const HIDDEN = -1e38;
const MOST_BLOCKS = 16;
/** Of the scores that the product form keeps for the backward pass, a layer. */
const MOST_SCORE_BYTES = 2 ** 28;

/** softmax(q k^T scale) v in each head; a query that may see nothing yields zeros. The last query is the last key's, and
 *  several queries never see keys after their own.
 *  @param q [batch, heads, queries, headDim]
 *  @param k [batch, kvHeads, keys, headDim], kvHeads dividing heads
 *  @param v as k
 *  @returns [batch, heads, queries, headDim] */
export function attend(q: Tensor, k: Tensor, v: Tensor, options: AttendOptions = {}): Tensor {
  const { mask, window = Infinity, dropout = 0 } = options;
  const [batch = 1, heads = 1, numQueries = 1, headDim = 1] = q.shape;
  const numKeys = k.shape[2] ?? 1;
  const { scale = headDim ** -0.5 } = options;
  if (numQueries === 1) {
    const near = (x: Tensor, dim: number): Tensor =>
      numKeys > window ? x.narrow(dim, numKeys - window, window) : x;
    const [keys, values, sees] = [near(k, 2), near(v, 2), mask && near(mask, 3)];
    if (q.device !== 'cpu' || dropout > 0) return fused(q, keys, values, sees, options);
    return attendLast(q, keys, values, sees, scale);
  }
  if (q.device !== 'cpu' || dropout > 0) return fused(q, k, v, mask, options);
  if (q.dtype === 'bfloat16' && !hasFastBfloat16()) {
    return scope(() => {
      const [wide, keys, values] = [q, k, v].map((x) => x.to('float32')) as [Tensor, Tensor, Tensor];
      return attend(wide, keys, values, { ...options, scale }).to(q.dtype);
    });
  }

  const scores = batch * heads * numQueries * Math.min(numKeys, window);
  const isProduct = q.dtype === 'bfloat16' && 2 * scores <= MOST_SCORE_BYTES;
  const size = Math.max(isProduct ? 128 : 64, 32 * Math.ceil(numQueries / MOST_BLOCKS / 32));
  if (!isProduct && numQueries <= size && (mask || numKeys <= window)) {
    // Without a mask libtorch's kernel takes a query whose scores are all NaN for one that may see nothing: zeros, which
    // would hide weights that have broken.
    return scope(() => {
      const place = { start: numKeys - numQueries, length: numQueries };
      const sees = mask ?? causalMask(place, { start: 0, length: numKeys }, window, q.device);
      return fused(q, k, v, sees, options);
    });
  }

  return scope(() => {
    const outputs: Tensor[] = [];
    for (let start = 0; start < numQueries; start += size) {
      const length = Math.min(size, numQueries - start);
      const place = numKeys - numQueries + start;
      const first = 32 * Math.floor(Math.max(0, place - window + 1) / 32);
      const keys = { start: first, length: place + length - first };
      const sees = mask
        ? mask.narrow(2, start, length).narrow(3, first, keys.length)
        : causalMask({ start: place, length }, keys, window, q.device);
      const rows = q.narrow(2, start, length);
      const [near, nearValues] = [k.narrow(2, first, keys.length), v.narrow(2, first, keys.length)];
      const output = isProduct
        ? product(rows, near, nearValues, sees, scale)
        : fused(rows, near, nearValues, sees, options);
      outputs.push(output.transpose(1, 2));
    }
    return cat(outputs, 1).transpose(1, 2);
  });
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

function fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | undefined, options: AttendOptions): Tensor {
  const { scale, dropout = 0 } = options;
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

/** A group's heads as further rows of one product. */
function product(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, scale: number): Tensor {
  const [batch = 1, heads = 1, length = 1, headDim = 1] = q.shape;
  const [, kvHeads = 1, numKeys = 1] = k.shape;
  const groups = heads / kvHeads;
  const flat = (x: Tensor, rows: number): Tensor => x.reshape([batch * kvHeads, rows, headDim]);

  const bias = zeros(sees.shape, { dtype: q.dtype }).maskedFill(sees.logicalNot(), HIDDEN);
  const isShared = sees.shape[0] !== batch;
  const spread = isShared
    ? bias.expand([1, groups, length, numKeys])
    : bias.unsqueeze(1).expand([batch, kvHeads, groups, length, numKeys]);
  const scores = baddbmm(
    spread.reshape([-1, groups * length, numKeys]),
    flat(q, groups * length),
    flat(k, numKeys).transpose(1, 2),
    1,
    scale,
  );
  const output = bmm(softmax(scores, -1), flat(v, numKeys)).view([batch, heads, length, headDim]);
  return isShared ? output : output.mul(anyOf(sees, -1, true).to(q.dtype));
}

function repeatHeads(x: Tensor, times: number): Tensor {
  const [batch = 1, heads = 1, length = 1, dim = 1] = x.shape;
  return x
    .unsqueeze(2)
    .expand([batch, heads, times, length, dim])
    .reshape([batch, heads * times, length, dim]);
}
