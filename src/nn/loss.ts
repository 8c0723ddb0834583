// Cross-entropy over a large vocabulary without its logits: only labelled rows are projected, a chunk at a time.
//
// Each chunk's gradient is computed together with its loss and over its logits, as Liger does (arXiv:2410.10989), so that
// nothing of the vocabulary's size outlives the chunk but the weight's gradient. Leaves out: second derivatives.

import { ModelError } from '../errors.js';
import type { QuantisedWeight } from './quantised-weight.js';
import { type Tensor, cat, linear, noGrad, op, scope, tensor, zeros } from '../tensor/index.js';

/** Labels of positions that are not learnt. */
export const IGNORED_LABEL = -100;

export interface LossSumOptions {
  /** c in c tanh(logits / c); without it the logits stay as they are. */
  readonly softcap?: number | undefined;
  /** Bytes that a chunk's float32 logits may take: 64 MiB on a CPU, 512 MiB elsewhere. */
  readonly chunkBytes?: number;
  /** Instead of the weight's numbers, which are not there: `weight` then has a shape alone. */
  readonly quantised?: QuantisedWeight | undefined;
}

export interface LossSum {
  /** float32 [], the sum over labelled positions. */
  readonly loss: Tensor;
  /** Labelled positions. The sum divided by their number in the whole step is the mean. */
  readonly numLabels: number;
}

const crossEntropyOp = op('aten::cross_entropy_loss');
const cappedCrossEntropy_ = op('sluice::capped_cross_entropy_');
const tieOp = op('sluice::tie');

/** c tanh(x / c), or x where there is no cap. */
export function softcap(x: Tensor, cap: number | undefined): Tensor {
  return cap === undefined ? x : x.div(cap).tanh().mul(cap);
}

/** Mean cross-entropy of whole logits, in float32; NaN when nothing is labelled, as PyTorch.
 *  @param logits [batch, length, vocab], of position t for the token at t + 1
 *  @param labels int64 [batch, length], unshifted; -100 is ignored */
export function crossEntropyMean(logits: Tensor, labels: Tensor): Tensor {
  const [batch = 0, length = 0, vocab = 0] = logits.shape;
  return scope(() => {
    const predictions = logits.narrow(1, 0, length - 1).reshape([batch * (length - 1), vocab]);
    const targets = labels.narrow(1, 1, length - 1).reshape([batch * (length - 1)]);
    return crossEntropyOp(toWide(predictions), targets.to(logits.device), undefined, 1, IGNORED_LABEL, 0);
  });
}

/** Summed cross-entropy of softcap(hidden weight^T), without ever holding the logits whole. Equal to the plain loss in
 *  value and gradient; zero with zero gradients when nothing is labelled.
 *  @param hidden [batch, length, size]
 *  @param weight [vocab, size], of the output head
 *  @param labels int64 [batch, length], unshifted, best on the CPU; position t is predicted from t - 1; -100 is ignored
 *  @throws {ModelError} when a label is no word of the vocabulary, or the shapes do not fit */
export function lossSum(
  hidden: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: LossSumOptions = {},
): LossSum {
  const [size = 1] = hidden.shape.slice(-1);
  const { rows, targets } = labelledRows(labels, hidden.shape, weight.shape[0] ?? 0);
  return scope(() => {
    const places = tensor(rows, [rows.length], 'int64', hidden.device);
    return lossSumOfRows(hidden.reshape([-1, size]).indexSelect(0, places), weight, targets, options);
  });
}

/** `lossSum` of labelled rows alone. @param rows [labels, size] @param targets each row's word */
export function lossSumOfRows(
  rows: Tensor,
  weight: Tensor,
  targets: BigInt64Array,
  options: LossSumOptions = {},
): LossSum {
  const loss = scope(() => {
    const wanted = { rows: rows.requiresGrad, weight: weight.view(weight.shape).requiresGrad };
    const sums = noGrad(() => sumChunks(rows, weight, targets, wanted, options));
    const loss = sums.rowsGrad ? tieOp(sums.loss, rows, sums.rowsGrad) : sums.loss;
    return sums.weightGrad ? tieOp(loss, weight, sums.weightGrad) : loss;
  });
  return { loss, numLabels: targets.length };
}

/** Which rows predict a labelled position, and what. */
export interface LabelledRows {
  /** Of [batch * length, ...], increasing. */
  readonly rows: BigInt64Array;
  /** Their words. */
  readonly targets: BigInt64Array;
}

/** @param labels int64 [batch, length], unshifted; position t is predicted from t - 1; -100 is ignored
 *  @param shape [batch, length, ...] of what is to be selected from
 *  @throws {ModelError} when a label is no word of the vocabulary, or the shapes do not fit */
export function labelledRows(labels: Tensor, shape: readonly number[], vocabSize: number): LabelledRows {
  const [batch = 0, length = 0] = labels.shape;
  if (labels.ndim !== 2 || shape[0] !== batch || shape[1] !== length) {
    throw new ModelError({
      where: 'lossSum: labels',
      expected: `[batch, length] as the tokens [${shape.join(', ')}]`,
      received: `[${labels.shape.join(', ')}]`,
      remedy: 'give one label a token',
    });
  }
  const values = labels.toTypedArray() as ArrayLike<number | bigint>;
  const rows: bigint[] = [];
  const targets: bigint[] = [];
  for (let b = 0; b < batch; b++) {
    for (let t = 1; t < length; t++) {
      const label = Number(values[b * length + t]);
      if (label === IGNORED_LABEL) continue;
      if (label < 0 || label >= vocabSize) {
        throw new ModelError({
          where: `lossSum: label of row ${b}, position ${t}`,
          expected: `-100 or a word below ${vocabSize}`,
          received: String(label),
          remedy: "encode with this model's tokenizer, and label media placeholders -100",
        });
      }
      rows.push(BigInt(b * length + t - 1));
      targets.push(BigInt(label));
    }
  }
  return { rows: BigInt64Array.from(rows), targets: BigInt64Array.from(targets) };
}

interface ChunkSums {
  readonly loss: Tensor;
  /** [rows, size] */
  readonly rowsGrad: Tensor | undefined;
  /** [vocab, size]; at least float32 where it is summed over several chunks. */
  readonly weightGrad: Tensor | undefined;
}

function sumChunks(
  rows: Tensor,
  weight: Tensor,
  targets: BigInt64Array,
  wanted: { readonly rows: boolean; readonly weight: boolean },
  options: LossSumOptions,
): ChunkSums {
  const { device, dtype } = rows;
  const wide = dtype === 'float64' ? 'float64' : 'float32';
  const [vocab = 1] = weight.shape;
  const {
    softcap: cap = 0,
    chunkBytes = device === 'cpu' ? 64 * 2 ** 20 : 512 * 2 ** 20,
    quantised,
  } = options;
  const chunkRows = Math.max(1, Math.floor(chunkBytes / (4 * vocab)));
  const wantsGrad = wanted.rows || wanted.weight;
  const isWhole = targets.length <= chunkRows;

  const loss = zeros([], { dtype: wide, device });
  const rowsGrads: Tensor[] = [];
  let weightGrad: Tensor | undefined;
  for (let start = 0; start < targets.length; start += chunkRows) {
    const chunk = targets.subarray(start, start + chunkRows);
    const grads = scope(() => {
      const x = rows.narrow(0, start, chunk.length);
      const logits = quantised ? quantised.linear(x) : linear(x, weight);
      loss.add_(
        cappedCrossEntropy_(logits, tensor(chunk, [chunk.length], 'int64', device), cap, wantsGrad).sum(),
      );
      const products = wanted.weight ? logits.transpose(0, 1).matmul(x) : undefined;
      return {
        rows: wanted.rows ? (quantised ? quantised.product(logits) : logits.matmul(weight)) : undefined,
        weight: isWhole ? products : products?.to(wide),
      };
    });
    if (grads.rows) rowsGrads.push(grads.rows);
    if (weightGrad && grads.weight) scope(() => weightGrad?.add_(grads.weight ?? 0));
    weightGrad ??= grads.weight;
    if (weightGrad !== grads.weight) grads.weight?.dispose();
  }
  const none = (shape: readonly number[]): Tensor => zeros(shape, { dtype, device });
  return {
    loss,
    rowsGrad: !wanted.rows ? undefined : rowsGrads.length > 0 ? cat(rowsGrads) : none(rows.shape),
    weightGrad: !wanted.weight ? undefined : (weightGrad ?? none(weight.shape)),
  };
}

function toWide(x: Tensor): Tensor {
  return x.dtype === 'float64' ? x : x.to('float32');
}
