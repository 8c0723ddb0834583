// AdamW with both means in 8 bits (Dettmers et al., arXiv 2110.02861), in blocks of 256 numbers, each an index into a
// dynamic map times the block's largest. Two bytes a weight in place of eight. Weights decay before the update, as in
// AdamW.

import { z } from '../schema.js';
import { keep, op, type Tensor } from '../tensor/index.js';
import { adamwRule, BETA } from './adamw.js';
import { COMMON, numbers, Optimizer, STEP, type Rule, type Update } from './optimizer.js';
import { optimizerPart } from './part.js';

const SCHEMA = z.strictObject({
  lr: z.number().positive(),
  betas: z.tuple([BETA, BETA]).default([0.9, 0.999]),
  eps: z.number().positive().default(1e-8),
  weightDecay: z.number().min(0).default(0.01),
  /** Smaller tensors keep their means in float32. */
  minSize: z.int().min(0).default(4096),
  ...COMMON,
});

export type AdamW8BitOptions = z.input<typeof SCHEMA>;

const BLOCK = 256;
const adamw8bit_ = op('sluice::adamw8bit_');

/** The dynamic map: 256 rising numbers, the spacing of which falls tenfold towards 0.
 *  @param signed from -1 to 1, else from 0 to 1 */
export function dynamicMap(signed: boolean): number[] {
  const values = [0, 1];
  for (let exponent = 0; exponent < 7; exponent++) {
    const count = 2 ** (signed ? exponent : exponent + 1);
    for (let i = 0; i < count; i++) {
      const value = 10 ** (exponent - 6) * (0.1 + (0.9 * (i + 0.5)) / count);
      values.push(value);
      if (signed) values.push(-value);
    }
  }
  return values.sort((a, b) => a - b);
}

function rule(options: z.output<typeof SCHEMA>): Rule {
  const { betas, eps, minSize } = options;
  const wide = adamwRule(options);
  const isWide = ({ tensor }: { tensor: Tensor }) => tensor.numel < minSize;
  let map: Tensor | undefined;
  return {
    kind: 'adamw8bit',
    slots: (member, dtype) => {
      if (isWide(member)) return wide.slots(member, dtype);
      const codes = { shape: member.tensor.shape, dtype: 'uint8' } as const;
      const largest = { shape: [Math.ceil(member.tensor.numel / BLOCK)], dtype: 'float32' } as const;
      return {
        exp_avg_8bit: codes,
        exp_avg_sq_8bit: codes,
        exp_avg_max: largest,
        exp_avg_sq_max: largest,
        step: STEP,
      };
    },
    apply: (updates, weights) => {
      const keys = new Map(weights.keysOf(updates).map((key, i) => [updates[i]!, key]));
      const [small, large] = [
        updates.filter(({ member }) => isWide(member)),
        updates.filter(({ member }) => !isWide(member)),
      ];
      const keysOf = (some: readonly Update[]) =>
        keys.size > 0 ? some.map((update) => keys.get(update)!) : [];
      if (small.length > 0) wide.apply(small, { ...weights, keysOf });
      if (large.length === 0) return;
      map ??= keep(numbers([...dynamicMap(true), ...dynamicMap(false)]));
      const part = (name: string) => large.map(({ state }) => state[name]!);
      adamw8bit_(
        large.map(({ member }) => member.tensor),
        large.map(({ gradient }) => gradient),
        part('exp_avg_8bit'),
        part('exp_avg_sq_8bit'),
        part('exp_avg_max'),
        part('exp_avg_sq_max'),
        map,
        large.map(({ state, member }) => state['master'] ?? member.tensor),
        part('step'),
        large.map(({ lr }) => lr),
        large.map(({ member }) => member.weightDecay),
        large.map(({ scale }) => scale),
        betas[0],
        betas[1],
        eps,
        keysOf(large),
      );
    },
  };
}

/** AdamW with 8-bit state; see `adamw`. */
export const adamw8bit = optimizerPart(
  'adamw8bit',
  SCHEMA,
  (parameters, options) => new Optimizer(parameters, options, rule(options)),
);
