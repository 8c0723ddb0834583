// AdamW (Loshchilov and Hutter, arXiv 1711.05101), one native call for all tensors. A tensor of 16 bits has a float32
// master copy that is updated and rounded into it: an update smaller than the last bit of a bfloat16, which is a 256th of
// its value, would otherwise be lost.

import { z } from '../schema.js';
import { op, type Tensor } from '../tensor/index.js';
import { type Parameters } from './groups.js';
import { COMMON, Optimizer, STEP, type Rule } from './optimizer.js';
import { optimizerPart, type OptimizerPart } from './part.js';

export const BETA = z.number().min(0).lt(1);

const SCHEMA = z.strictObject({
  /** Learning rate; a schedule scales it. */
  lr: z.number().positive(),
  /** Decay of the running mean of gradients and of their squares. */
  betas: z.tuple([BETA, BETA]).default([0.9, 0.999]),
  eps: z.number().positive().default(1e-8),
  /** Each update shrinks a weight by lr * weightDecay of itself. */
  weightDecay: z.number().min(0).default(0.01),
  ...COMMON,
});

export type AdamWOptions = z.input<typeof SCHEMA>;

const adamw_ = op('sluice::adamw_');

/** What the update itself needs. */
export interface AdamWNumbers {
  readonly betas: readonly [number, number];
  readonly eps: number;
}

/** m = lerp(m, g, 1 - beta1), v = beta2 v + (1 - beta2) g^2,
 *  w = (1 - lr weightDecay) w - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps) */
export function adamwRule({ betas, eps }: AdamWNumbers): Rule {
  return {
    kind: 'adamw',
    slots: ({ tensor }, dtype) => ({
      exp_avg: { shape: tensor.shape, dtype },
      exp_avg_sq: { shape: tensor.shape, dtype },
      step: STEP,
    }),
    apply: (updates, weights) =>
      void adamw_(
        updates.map(({ member }): Tensor => member.tensor),
        updates.map(({ gradient }) => gradient),
        updates.map(({ state }) => state['exp_avg']!),
        updates.map(({ state }) => state['exp_avg_sq']!),
        updates.map(({ state, member }) => state['master'] ?? member.tensor),
        updates.map(({ state }) => state['step']!),
        updates.map(({ lr }) => lr),
        updates.map(({ member }) => member.weightDecay),
        updates.map(({ scale }) => scale),
        betas[0],
        betas[1],
        eps,
        weights.keysOf(updates),
      ),
  };
}

/** What `adamw(options)` is: a part of the pipeline file, and a function that makes the optimizer of some tensors. */
export type AdamWPart = OptimizerPart<AdamWOptions>;

/** AdamW as PyTorch's, with float32 master weights for tensors of 16 bits.
 *
 *      const optimizer = adamw({ lr: 1e-4 })(tensors);
 *      loss.backward();
 *      optimizer.step();
 *      optimizer.zeroGrad();
 *
 *  Options are checked when the optimizer is made, or with the whole pipeline file. */
export const adamw = optimizerPart(
  'adamw',
  SCHEMA,
  (parameters: Parameters, options) => new Optimizer(parameters, options, adamwRule(options)),
);
