// Lion (Chen et al., arXiv 2302.06675): the sign of a momentum. A third to a tenth of AdamW's rate suits it.

import { z } from '../schema.js';
import { op } from '../tensor/index.js';
import { BETA } from './adamw.js';
import { COMMON, Optimizer, type Rule } from './optimizer.js';
import { optimizerPart } from './part.js';

const SCHEMA = z.strictObject({
  lr: z.number().positive(),
  /** Shares of the momentum in the update, and in what is kept of it. */
  betas: z.tuple([BETA, BETA]).default([0.9, 0.99]),
  weightDecay: z.number().min(0).default(0),
  ...COMMON,
});

export type LionOptions = z.input<typeof SCHEMA>;

const lerp = op('aten::lerp.Scalar');
const lerp_ = op('aten::lerp_.Scalar');
const sign_ = op('aten::sign_');
const addScaled_ = op('aten::add_.Tensor');

/** w = (1 - lr weightDecay) w - lr sign(lerp(m, g, 1 - beta1)), m = lerp(m, g, 1 - beta2) */
function rule({ betas }: z.output<typeof SCHEMA>): Rule {
  return {
    kind: 'lion',
    slots: ({ tensor }, dtype) => ({ momentum: { shape: tensor.shape, dtype } }),
    apply: (updates, weights) => {
      for (const update of updates) {
        const { lr, member, state } = update;
        weights.update(update, (weight, gradient) => {
          const momentum = state['momentum']!;
          weight.mul_(1 - lr * member.weightDecay);
          addScaled_(weight, sign_(lerp(momentum, gradient, 1 - betas[0])), -lr);
          lerp_(momentum, gradient, 1 - betas[1]);
        });
      }
    },
  };
}

/** Lion; see `adamw` for how it is used. */
export const lion = optimizerPart(
  'lion',
  SCHEMA,
  (parameters, options) => new Optimizer(parameters, options, rule(options)),
);
