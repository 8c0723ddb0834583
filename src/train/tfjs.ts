// `tfjsLearner`: a TensorFlow.js model in a pipeline file, in place of `gemma3n`.

import { join } from 'node:path';
import { readArrays } from '../checkpoint/index.js';
import { ConfigError } from '../errors.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { Guest, GuestPart } from './guest.js';
import type { StepOptions } from './options.js';
import { TfjsLearner, type TfjsOptions } from './tfjs-learner.js';
import { installedAt, loadTfjs, tfjsPath } from './tfjs-package.js';

const fn = <F>() => z.custom<F>((value) => typeof value === 'function', 'expected a function');

const OPTIONS = z.strictObject({
  model: z.custom<TfjsOptions['model']>(
    (value) => typeof value === 'function' || isLayersModel(value),
    'expected a LayersModel of TensorFlow.js, or a function that builds one: (tf) => tf.sequential({ ... })',
  ),
  classes: z.array(z.string().min(1)).min(2).optional(),
  loss: fn<NonNullable<TfjsOptions['loss']>>().optional(),
  toTensors: fn<NonNullable<TfjsOptions['toTensors']>>().optional(),
  predict: fn<NonNullable<TfjsOptions['predict']>>().optional(),
  /** A checkpoint's folder to begin with. */
  weights: z.string().min(1).optional(),
});

function isLayersModel(value: unknown): boolean {
  const { apply, save, trainableWeights } = (value ?? {}) as Record<string, unknown>;
  return typeof apply === 'function' && typeof save === 'function' && Array.isArray(trainableWeights);
}

const tfjsPart = definePart({
  role: 'model',
  kind: 'tfjs',
  schema: OPTIONS,
  create: ({ weights, ...options }): Guest => ({
    check: ({ step }) => {
      tfjsPath(installedAt);
      if (step) refuseUnknown(step);
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
 *  since a model cannot be sent to another. It learns by `adamw` with any schedule, `accumulate` and `clipNorm`; what else a
 *  step may have is refused. Layers that are not `trainable` stay as they are.
 *  @param model what builds it, or a LayersModel, which then is trained in place from the weights that it has
 *  @example tfjsLearner((tf) => tf.sequential({ layers: [...] }), { classes: ['red', 'blue'] }) */
export function tfjsLearner(
  model: TfjsOptions['model'],
  options: Omit<TfjsOptions, 'model'> & {
    /** A checkpoint's folder to begin with; drawn by default. */
    readonly weights?: string | undefined;
  } = {},
): GuestPart {
  const { classes, ...rest } = options;
  return tfjsPart({ model, ...rest, ...(classes && { classes: [...classes] }) });
}

/** What this learner does not do must not be passed over. */
function refuseUnknown({ optimizer, clip, checkpointing, offload, optimizerInBackward }: StepOptions): void {
  const { kind } = optimizer as { readonly kind: string };
  if (optimizer.kind !== 'adamw') {
    refuse('step.optimizer', 'adamw(...), which a tfjs model learns by', kind);
  }
  const { groups, noDecay, rounding } = optimizer;
  if (groups) refuse('step.optimizer.groups', 'none: all weights of a tfjs model learn alike', 'some');
  if (noDecay) refuse('step.optimizer.noDecay', "none, or decay: 'matrices'", [noDecay].flat().join(', '));
  if (rounding === 'stochastic') {
    refuse(
      'step.optimizer.rounding',
      "'nearest', since weights of a tfjs model are float32",
      `'${rounding}'`,
    );
  }
  if (clip && !('norm' in clip)) {
    refuse('step.clip', '{ norm }, by which a tfjs model is clipped', `{ ${Object.keys(clip).join()} }`);
  }
  const none = 'none: TensorFlow.js makes the whole backward pass by itself';
  const isAsked = Array.isArray(checkpointing) ? checkpointing.length > 0 : checkpointing === true;
  if (isAsked) refuse('step.checkpointing', none, JSON.stringify(checkpointing));
  if (offload) refuse('step.offload', none, 'true');
  if (optimizerInBackward) refuse('step.optimizerInBackward', none, 'true');
}

function refuse(where: string, expected: string, received: string): never {
  throw new ConfigError({
    where,
    expected,
    received,
    remedy: 'leave it out or change it, or train a gemma3n model',
  });
}
