// Choosing the next token of each row from its logits.

import { ModelError } from '../errors.js';
import { type Tensor, op, scope, softmax, tensor } from '../tensor/index.js';
import { filterScores, penalise } from './filters.js';
import { type SamplingOptions, rowSeeds, samples } from './options.js';
import { uniform } from './random.js';
import { SeenTokens } from './seen.js';

export interface Chooser extends Disposable {
  /** @param logits [rows, vocab] @returns an id a row
   *  @throws {ModelError} when a row's logits are not numbers */
  next(logits: Tensor): number[];
  /** Tells of tokens that rows hold: the prompts', then each step's. Undefined is no token. */
  saw(ids: readonly (readonly (number | undefined)[])[]): void;
}

const maxOp = op<[Tensor, Tensor]>('aten::max.dim');
const searchSorted = op('aten::searchsorted.Tensor');

/** @throws {ConfigError} when `seed` is a list of another length than there are rows */
export function chooser(
  options: SamplingOptions,
  { rows, vocab, device }: { readonly rows: number; readonly vocab: number; readonly device: string },
): Chooser {
  const { repetitionPenalty = 1 } = options;
  const streams = samples(options)
    ? rowSeeds(options.seed, rows).map(({ seed, stream }) => uniform(seed, stream))
    : undefined;
  const seen = repetitionPenalty === 1 ? undefined : new SeenTokens(rows, vocab, device);
  return {
    next: (logits) =>
      scope(() => {
        const scores = seen ? penalise(logits.to('float32'), seen.mask, repetitionPenalty) : logits;
        if (!streams) return likeliest(scores);
        return draw(filterScores(scores.to('float32'), options), streams);
      }),
    saw: (ids) => seen?.add(ids),
    [Symbol.dispose]: () => seen?.dispose(),
  };
}

function likeliest(scores: Tensor): number[] {
  const [values, ids] = maxOp(scores, -1);
  refuseNaN(values);
  return idsOf(ids);
}

/** @param scores float32 [rows, vocab] @param streams a row's uniform numbers each: every row takes one */
function draw(scores: Tensor, streams: readonly (() => number)[]): number[] {
  const [rows = 0, vocab = 1] = scores.shape;
  const upTo = softmax(scores, -1).to('float64').cumsum(-1);
  const total = upTo.narrow(1, vocab - 1, 1);
  refuseNaN(total);
  const u = tensor(
    Float64Array.from(streams, (next) => next()),
    [rows, 1],
    'float64',
    scores.device,
  );
  return idsOf(searchSorted(upTo, u.mul(total), false, true)); // the first token whose sum is above
}

function refuseNaN(ofRows: Tensor): void {
  const row = Array.from(ofRows.to('float32').toTypedArray(), Number).findIndex(Number.isNaN);
  if (row < 0) return;
  throw new ModelError({
    where: `generate: row ${row}`,
    expected: 'logits that are numbers',
    received: 'NaN',
    remedy: 'load the model in bfloat16 or float32, and check its weights with pipe inspect',
  });
}

function idsOf(ids: Tensor): number[] {
  return Array.from(ids.toTypedArray() as BigInt64Array, Number);
}
