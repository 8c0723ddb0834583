// The optimizers by name, for a thread that a pipeline's options have crossed to.

import { ConfigError } from '../errors.js';
import { adafactor, type AdafactorOptions } from './adafactor.js';
import { adamw, type AdamWOptions } from './adamw.js';
import { adamw8bit, type AdamW8BitOptions } from './adamw8bit.js';
import type { Parameters } from './groups.js';
import { lion, type LionOptions } from './lion.js';
import { muon, type MuonOptions } from './muon.js';
import type { Optimizer } from './optimizer.js';
import { sgd, type SgdOptions } from './sgd.js';

/** An optimizer as plain values. */
export type OptimizerOptions =
  | ({ readonly kind: 'adamw' } & AdamWOptions)
  | ({ readonly kind: 'adamw8bit' } & AdamW8BitOptions)
  | ({ readonly kind: 'adafactor' } & AdafactorOptions)
  | ({ readonly kind: 'lion' } & LionOptions)
  | ({ readonly kind: 'muon' } & MuonOptions)
  | ({ readonly kind: 'sgd' } & SgdOptions);

const builders = { adamw, adamw8bit, adafactor, lion, muon, sgd };

/** The optimizer that plain values describe. @throws {ConfigError} when they are out of range, or of no kind */
export function optimizerOf(options: OptimizerOptions, parameters: Parameters): Optimizer {
  const { kind, ...own } = options;
  if (!Object.hasOwn(builders, kind)) {
    throw new ConfigError({
      where: 'step.optimizer',
      expected: Object.keys(builders).join(', '),
      received: kind,
      remedy: 'use one of them: the optimizer is made anew on the device thread',
    });
  }
  const build = builders[kind] as (options: never) => (parameters: Parameters) => Optimizer;
  return build(own as never)(parameters);
}
