// What may be drawn: the reference's logits processors (transformers 5.23, generation/logits_process.py), on scores of
// [rows, vocab] in float32. A token that is filtered out has -inf.

import { type Tensor, cat, ones, op, scope, softmax, sort, topk, where, zeros } from '../tensor/index.js';
import type { SamplingOptions } from './options.js';

/** Of these many likeliest tokens the nucleus is looked for first: sorting a vocabulary of 262k takes as long as a layer. */
const FEW = 1024;

const flip = op('aten::flip');
const scatter = op('aten::scatter.src');
const sumOp = op('aten::sum.dim_IntList');
const minimum = op('aten::amin');
const indexCopy = op('aten::index_copy');
const nonzero = op('aten::nonzero');

/** Temperature, top-k, top-p, min-p, in this order. A row's outcome depends on that row alone. */
export function filterScores(scores: Tensor, options: SamplingOptions): Tensor {
  const { temperature = 1, topK, topP = 1, minP } = options;
  return scope(() => {
    let kept = temperature === 1 ? scores : scores.div(temperature);
    if (topK !== undefined) kept = likeliest(kept, topK);
    if (topP < 1) kept = nucleus(kept, topP);
    if (minP !== undefined) kept = nearTheLikeliest(kept, minP);
    return kept;
  });
}

/** Scores of tokens that were seen, times or over the penalty, whichever lowers them for a penalty above 1.
 *  @param seen bool [rows, vocab] */
export function penalise(scores: Tensor, seen: Tensor, penalty: number): Tensor {
  return scope(() => {
    const penalised = where(scores.lt(0), scores.mul(penalty), scores.div(penalty));
    return where(seen, penalised, scores);
  });
}

/** Those not below the k-th. */
function likeliest(scores: Tensor, k: number): Tensor {
  const [values] = topk(scores, Math.min(k, scores.shape[1] ?? 1));
  const least = values.narrow(1, (values.shape[1] ?? 1) - 1, 1);
  return scores.maskedFill(scores.lt(least), -Infinity);
}

/** Without the unlikeliest, as long as these hold no more than 1 - p together; the likeliest stays. */
function nucleus(scores: Tensor, p: number): Tensor {
  const [, vocab = 1] = scores.shape;
  if (vocab <= FEW) return nucleusOfAll(scores, p);
  const { kept, open } = nucleusOfFew(scores, p);
  if (open.shape[0] === 0) return kept;
  return indexCopy(kept, 0, open, nucleusOfAll(scores.indexSelect(0, open), p));
}

function nucleusOfAll(scores: Tensor, p: number): Tensor {
  const [values, order] = sort(scores, -1);
  const sorted = removable(softmax(values, -1).cumsum(-1), p);
  return scores.maskedFill(scatter(sorted, 1, order, sorted), -Infinity);
}

/** As `nucleusOfAll`, but sorts the likeliest alone.
 *  @returns int64 `open`, the rows for which these are too few: their nucleus has all of them, or a token that is not
 *    among them is as likely as its unlikeliest */
function nucleusOfFew(scores: Tensor, p: number): { kept: Tensor; open: Tensor } {
  const probs = softmax(scores, -1);
  const [values, ids] = topk(scores, FEW).map((few) => flip(few, [1])) as [Tensor, Tensor];
  const sorted = probs.gather(1, ids).to('float64');
  const rest = sumOp(probs, [-1], true, 'float64')
    .sub(sumOp(sorted, [-1], true))
    .clamp({ min: 0 });

  const remove = removable(sorted.cumsum(-1).add(rest).to('float32'), p);
  const least = minimum(values.maskedFill(remove, Infinity), [-1], true);
  const isOpen = least.le(values.narrow(1, 0, 1)).squeeze(1);
  const all = ones(scores.shape, { dtype: 'bool', device: scores.device });
  const removeAll = scatter(all, 1, ids, remove);
  return { kept: scores.maskedFill(removeAll, -Infinity), open: nonzero(isOpen).squeeze(1) };
}

/** @param sums of probabilities, likelier and likelier */
function removable(sums: Tensor, p: number): Tensor {
  const [rows = 0, length = 1] = sums.shape;
  const likeliestStays = zeros([rows, 1], { dtype: 'bool', device: sums.device });
  return cat([sums.narrow(1, 0, length - 1).le(1 - p), likeliestStays], 1);
}

function nearTheLikeliest(scores: Tensor, minP: number): Tensor {
  const probs = softmax(scores, -1);
  return scores.maskedFill(probs.lt(probs.amax(-1, true).mul(minP)), -Infinity);
}
