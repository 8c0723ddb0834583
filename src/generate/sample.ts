// Choosing the next token of each row from its logits.

import { type Tensor, op, scope, softmax, tensor, topk } from '../tensor/index.js';
import type { GenerateOptions } from './options.js';

/** @param logits [rows, vocab] @returns an id a row */
export type Chooser = (logits: Tensor) => number[];

const cumsumOp = op('aten::cumsum');
const countOp = op('aten::sum.dim_IntList');

/** Greedy, or drawn by temperature, then top-k, then top-p. */
export function chooser(options: GenerateOptions): Chooser {
  if (!options.doSample) return (logits) => idsOf(logits.argmax(-1));
  const random = uniform(options.seed ?? Math.floor(Math.random() * 2 ** 32));
  return (logits) => draw(logits, options, random);
}

function draw(
  logits: Tensor,
  { temperature = 1, topK, topP }: GenerateOptions,
  random: () => number,
): number[] {
  return scope(() => {
    const [rows = 0, vocab = 0] = logits.shape;
    const scaled = logits.to('float32').div(temperature);
    const sorted = topK !== undefined || topP !== undefined;
    const [values, ids] = sorted ? topk(scaled, Math.min(topK ?? vocab, vocab)) : [scaled, undefined];

    let probs = softmax(values, -1, 'float64');
    if (topP !== undefined && topP < 1) {
      const before = cumsumOp(probs, -1).sub(probs); // what the likelier tokens hold; none for the likeliest
      probs = probs.maskedFill(before.ge(topP), 0);
    }
    const upTo = cumsumOp(probs, -1);
    const total = upTo.narrow(1, upTo.shape[1]! - 1, 1);
    const u = tensor(Float64Array.from({ length: rows }, random), [rows, 1], 'float64', logits.device);
    const index = countOp(upTo.le(u.mul(total)), [-1], true);
    return idsOf(ids ? ids.gather(1, index) : index);
  });
}

function idsOf(ids: Tensor): number[] {
  return Array.from(ids.toTypedArray() as BigInt64Array, Number);
}

/** Uniform on [0, 1): mulberry32. */
function uniform(seed: number): () => number {
  let state = (seed ^ (seed / 2 ** 32)) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}
