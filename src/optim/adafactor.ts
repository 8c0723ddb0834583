// Adafactor (Shazeer and Stern, arXiv 1804.04235) as PyTorch's: the squares of a matrix are kept by row and column alone,
// and a step is relative to the weights' own size. `lr` bounds the relative step, which else falls as 1 / sqrt(t).

import { z } from '../schema.js';
import { op, type Tensor } from '../tensor/index.js';
import { COMMON, countStep, Optimizer, STEP, type Rule } from './optimizer.js';
import { optimizerPart } from './part.js';

const SCHEMA = z.strictObject({
  lr: z.number().positive().default(1e-2),
  /** The share of new squares in their mean is t^beta2Decay. */
  beta2Decay: z.number().max(0).default(-0.8),
  /** Least root of the mean squares; by default 2^-23, the spacing of float32 at 1. */
  eps1: z
    .number()
    .positive()
    .default(2 ** -23),
  /** Least size of the weights that a step is relative to. */
  eps2: z.number().positive().default(1e-3),
  /** The root mean square of an update, over which it is scaled down. */
  clipThreshold: z.number().positive().default(1),
  weightDecay: z.number().min(0).default(0),
  ...COMMON,
});

export type AdafactorOptions = z.input<typeof SCHEMA>;

const vectorNorm = op('aten::linalg_vector_norm');
const lerp_ = op('aten::lerp_.Scalar');
const addScaled_ = op('aten::add_.Tensor');
const clampMin = op('aten::clamp_min');

function rootMeanSquare(x: Tensor): number {
  return vectorNorm(x, 2).item() / Math.sqrt(x.numel);
}

function rule({ beta2Decay, eps1, eps2, clipThreshold }: z.output<typeof SCHEMA>): Rule {
  return {
    kind: 'adafactor',
    slots: ({ tensor }, dtype): ReturnType<Rule['slots']> => {
      const { shape } = tensor;
      const step = { ...STEP, onHost: true };
      if (shape.length < 2) return { variance: { shape, dtype }, step };
      const rows = { shape: [...shape.slice(0, -1), 1], dtype };
      return { row_var: rows, col_var: { shape: [...shape.slice(0, -2), 1, shape.at(-1)!], dtype }, step };
    },
    apply: (updates, weights) => {
      for (const update of updates) {
        const { lr, member, state } = update;
        weights.update(update, (weight, gradient) => {
          const step = countStep(state['step']!);
          const fresh = step ** beta2Decay;
          const size = Math.max(eps2, rootMeanSquare(weight)) * Math.min(lr, 1 / Math.sqrt(step));
          if (member.weightDecay > 0) weight.mul_(1 - lr * member.weightDecay);
          const change = clampMin(squaresOf(state, gradient, fresh, eps1), eps1 * eps1)
            .rsqrt()
            .mul(gradient);
          const clip = Math.max(1, rootMeanSquare(change) / clipThreshold);
          addScaled_(weight, change, -size / clip);
        });
      }
    },
  };
}

/** The running mean of the squares: kept whole for a vector, else the outer product of rows and columns by the mean. */
function squaresOf(
  { row_var: rows, col_var: columns, variance }: Readonly<Record<string, Tensor>>,
  gradient: Tensor,
  fresh: number,
  eps1: number,
): Tensor {
  if (variance) return lerp_(variance, gradient.square(), fresh);
  const meanOver = (dim: -1 | -2) =>
    vectorNorm(gradient, 2, [dim], true).square().div(gradient.shape.at(dim)!);
  lerp_(rows, meanOver(-1), fresh);
  lerp_(columns, meanOver(-2), fresh);
  return rows!.matmul(columns!).div(clampMin(rows!.mean(-2, true), eps1));
}

/** Adafactor; see `adamw` for how it is used. */
export const adafactor = optimizerPart(
  'adafactor',
  SCHEMA,
  (parameters, options) => new Optimizer(parameters, options, rule(options)),
);
