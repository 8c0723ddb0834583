// `tfjsLearner`: a TensorFlow.js model in a pipeline file, in place of `gemma3n`.

import { join } from 'node:path';
import { readArrays } from '../checkpoint/index.js';
import { ConfigError } from '../errors.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { Guest, GuestPart } from './guest.js';
import { TfjsLearner, type TfjsOptions } from './tfjs-learner.js';
import { installedAt, loadTfjs, tfjsPath } from './tfjs-package.js';

const fn = <F>() => z.custom<F>((value) => typeof value === 'function', 'expected a function');

const OPTIONS = z.strictObject({
  build: fn<TfjsOptions['build']>(),
  classes: z.array(z.string().min(1)).min(2).optional(),
  loss: fn<NonNullable<TfjsOptions['loss']>>().optional(),
  toTensors: fn<NonNullable<TfjsOptions['toTensors']>>().optional(),
  predict: fn<NonNullable<TfjsOptions['predict']>>().optional(),
  /** A checkpoint's folder to begin with. */
  weights: z.string().min(1).optional(),
});

const tfjsPart = definePart({
  role: 'model',
  kind: 'tfjs',
  schema: OPTIONS,
  create: ({ weights, ...options }): Guest => ({
    check: ({ step }) => {
      tfjsPath(installedAt);
      if (!step) return;
      const { kind } = step.optimizer as { readonly kind: string };
      if (kind !== 'adamw') refuse('step.optimizer', 'adamw(...), which a tfjs model learns by', kind);
      if (step.clip !== undefined) refuse('step.clip', 'clipNorm, by which a tfjs model is clipped', 'clip');
    },
    open: async (spec) => {
      const learner = new TfjsLearner(await loadTfjs(installedAt), options, spec);
      if (weights !== undefined) learner.loadWeights(readArrays(join(weights, 'model.safetensors')));
      return learner;
    },
  }),
});

/** Trains a TensorFlow.js model in the same flow with the same sinks. It needs one of @tensorflow/tfjs-node-gpu,
 *  @tensorflow/tfjs-node and @tensorflow/tfjs, the first that is installed, and no libtorch. It runs on the host's thread,
 *  since what `build` makes cannot be sent to another.
 *  @example tfjsLearner({ build: (tf) => tf.sequential({ layers: [...] }), classes: ['red', 'blue'] }) */
export function tfjsLearner(
  options: TfjsOptions & {
    /** A checkpoint's folder to begin with; drawn by default. */
    readonly weights?: string | undefined;
  },
): GuestPart {
  const { classes, ...rest } = options;
  return tfjsPart({ ...rest, ...(classes && { classes: [...classes] }) });
}

function refuse(where: string, expected: string, received: string): never {
  throw new ConfigError({ where, expected, received, remedy: 'change it, or train a gemma3n model' });
}
