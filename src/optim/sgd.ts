// Stochastic gradient descent as PyTorch's: momentum, Nesterov's look ahead, and decay added to the gradient.

import { z } from '../schema.js';
import { op } from '../tensor/index.js';
import { COMMON, countStep, Optimizer, STEP, type Rule } from './optimizer.js';
import { optimizerPart } from './part.js';

const SCHEMA = z
  .strictObject({
    lr: z.number().positive(),
    momentum: z.number().min(0).lt(1).default(0),
    /** Share of a new gradient that the momentum is spared. */
    dampening: z.number().min(0).max(1).default(0),
    nesterov: z.boolean().default(false),
    weightDecay: z.number().min(0).default(0),
    ...COMMON,
  })
  .refine(({ nesterov, momentum, dampening }) => !nesterov || (momentum > 0 && dampening === 0), {
    message: 'expected a momentum above 0 and no dampening with nesterov',
    path: ['nesterov'],
  });

export type SgdOptions = z.input<typeof SCHEMA>;

const addScaled = op('aten::add.Tensor');
const addScaled_ = op('aten::add_.Tensor');

/** g += weightDecay w; m = momentum m + (1 - dampening) g, but g at first; w -= lr (nesterov ? g + momentum m : m) */
function rule({ momentum, dampening, nesterov }: z.output<typeof SCHEMA>): Rule {
  return {
    kind: 'sgd',
    slots: ({ tensor }, dtype): ReturnType<Rule['slots']> =>
      momentum > 0 ? { momentum: { shape: tensor.shape, dtype }, step: { ...STEP, onHost: true } } : {},
    apply: (updates, weights) => {
      for (const update of updates) {
        const { lr, member, state } = update;
        weights.update(update, (weight, gradient) => {
          const own = member.weightDecay > 0 ? addScaled(gradient, weight, member.weightDecay) : gradient;
          const kept = state['momentum'];
          if (!kept) return void addScaled_(weight, own, -lr);
          const isFirst = countStep(state['step']!) === 1;
          if (isFirst) kept.copy_(own);
          else addScaled_(kept.mul_(momentum), own, 1 - dampening);
          addScaled_(weight, nesterov ? addScaled(own, kept, momentum) : kept, -lr);
        });
      }
    },
  };
}

/** Gradient descent; see `adamw` for how it is used. */
export const sgd = optimizerPart(
  'sgd',
  SCHEMA,
  (parameters, options) => new Optimizer(parameters, options, rule(options)),
);
