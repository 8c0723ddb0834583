// What a step's record tells of how training goes: the gradient's norm of each part before clipping, how far an update
// moves the weights, the share of clipped steps; and the warnings that come of watching them.

import { type Tensor, tensorMemory } from '../tensor/index.js';
import type { Gemma3n } from '../models/gemma3n/index.js';
import type { Measured } from '../optim/clip.js';
import {
  CLIPPED_WINDOW,
  PUBLISHED_SOFTCAP,
  STEPS_UNTIL_DEAD,
  type Warning,
  allClipped,
  deadParameters,
  otherSoftcap,
  zeroWeights,
  withoutLabels,
} from './dynamics-warnings.js';
import { type GradientPart, gradientPart, normsByPart } from './gradient-norms.js';
import { UpdateRatio } from './update-ratio.js';
import { allZero } from './zero-weights.js';

/** Steps from one comparison of weights before and after an update to the next. */
const RATIO_EVERY = 10;
/** Of a run that is shorter than the usual number, the fewest steps that tell of clipping, and of dead parameters. */
const SHORT_CLIPPED_WINDOW = 10;
const SHORT_UNTIL_DEAD = 3;

export interface DynamicsOptions {
  readonly clipNorm?: number | undefined;
  /** Compare weights at every so-manieth step and the first; 10 by default. */
  readonly ratioEvery?: number | undefined;
}

/** What a step's record holds beside loss, global norm and learning rate; a guest leaves out what it does not measure. */
export interface StepMeasures {
  /** Gradient norm of each part that has gradients, before clipping: see `gradientPart`. */
  readonly gradNorms?: Readonly<Record<string, number>>;
  /** Norm of the update over the norm of the weights, of each part; at the first step and every tenth. */
  readonly updateRatios?: Readonly<Record<string, number>>;
  /** Whether the gradient was scaled down. */
  readonly clipped: boolean;
  /** Of the last 100 steps with labels, this one included. */
  readonly clippedShare?: number;
  /** Bytes of tensors in the host's memory: now, and the most that they came to. */
  readonly memory?: { readonly used: number; readonly most: number };
  /** Floating point operations that the step needs, forward and backward, of this configuration for these samples: see
   *  `FlopCounter`. */
  readonly flops?: number;
  /** `flops` over the step's time, its waiting too, as a share of the peak in the `model` event. */
  readonly mfu?: number;
}

/** What is known once the update is made. */
export interface StepDynamics extends Omit<StepMeasures, 'flops' | 'mfu'> {
  /** To be told as events. */
  readonly warnings?: readonly Warning[];
}

/** What is wrong before the first step.
 *  @param weights of a model that was drawn, zeros are meant */
export function modelWarnings(model: Gemma3n, weights: 'pretrained' | 'random'): Warning[] {
  const zero = weights === 'random' ? [] : allZero(model.ownParameters());
  const softcap = model.config.text.finalLogitSoftcapping;
  return [
    ...(zero.length > 0 ? [zeroWeights(zero)] : []),
    ...(softcap === PUBLISHED_SOFTCAP ? [] : [otherSoftcap(softcap)]),
  ];
}

/** Watches the steps of one learner. A step is `beforeUpdate`, the update, `afterUpdate`. */
export class Dynamics {
  readonly #trainable: readonly (readonly [name: string, tensor: Tensor])[];
  readonly #parts: readonly GradientPart[];
  readonly #options: DynamicsOptions;
  readonly #ratio: UpdateRatio;
  /** Indices of parameters that have had no gradient but 0 so far, and whether there was one at all. */
  readonly #dead: Map<number, boolean>;
  readonly #told = new Set<Warning['kind']>();
  #labelledSteps = 0;
  #hasSkipped = false;
  /** Of the last steps with labels, newest last. */
  #clipped: boolean[] = [];
  #last: {
    readonly norm: number;
    readonly byPart: Partial<Record<GradientPart, number>>;
    readonly clipped: boolean;
  } = { norm: 0, byPart: {}, clipped: false };

  constructor(trainable: readonly (readonly [string, Tensor])[], options: DynamicsOptions = {}) {
    this.#trainable = trainable;
    this.#parts = trainable.map(([name]) => gradientPart(name));
    this.#options = options;
    this.#ratio = new UpdateRatio(trainable);
    this.#dead = new Map(trainable.map((_, i) => [i, false]));
  }

  /** Right before an update.
   *  @param step the one that is being made, from 1
   *  @param norms of each parameter's gradient of the mean loss, before clipping; undefined where it has none
   *  @param clipped whether the gradient was scaled down */
  beforeUpdate(step: number, { norm, norms, clipped }: Pick<Measured, 'norm' | 'norms' | 'clipped'>): void {
    this.#last = { norm, byPart: normsByPart(norms, this.#parts), clipped };
    if (norms.some((each) => each !== undefined)) {
      this.#labelledSteps += 1;
      this.#clipped.push(clipped);
      if (this.#clipped.length > CLIPPED_WINDOW) this.#clipped.shift();
      for (const [i] of this.#dead) {
        const each = norms[i];
        if (each === 0) this.#dead.set(i, true);
        else if (each !== undefined) this.#dead.delete(i);
      }
    }
    const { ratioEvery = RATIO_EVERY } = this.#options;
    if (ratioEvery < Infinity && (step === 1 || step % ratioEvery === 0)) this.#ratio.remember();
  }

  /** Right after it. @param skipped micro-batches without a label */
  afterUpdate(step: number, skipped: number): StepDynamics {
    const { byPart, clipped } = this.#last;
    const updateRatios = this.#ratio.ratios();
    const warnings = this.#warnings(CLIPPED_WINDOW, STEPS_UNTIL_DEAD);
    if (skipped > 0 && !this.#hasSkipped) warnings.push(withoutLabels(step, skipped));
    this.#hasSkipped ||= skipped > 0;
    return {
      gradNorms: byPart,
      ...(updateRatios && { updateRatios }),
      clipped,
      clippedShare: this.#clippedShare(),
      memory: tensorMemory(),
      ...(warnings.length > 0 && { warnings }),
    };
  }

  /** After the last update: what a run that was too short for it had not been told. Three steps are the fewest, as B of an
   *  adapter starts at zero, so that A has no gradient in the first. */
  finish(): Warning[] {
    return this.#warnings(SHORT_CLIPPED_WINDOW, SHORT_UNTIL_DEAD);
  }

  #warnings(clippedSteps: number, labelledSteps: number): Warning[] {
    const warnings = [this.#clipping(clippedSteps), this.#deadness(labelledSteps)];
    return warnings.filter((warning) => warning !== undefined);
  }

  #clippedShare(): number {
    return this.#clipped.filter(Boolean).length / Math.max(1, this.#clipped.length);
  }

  #clipping(fewest: number): Warning | undefined {
    if (this.#clipped.length < fewest || this.#clippedShare() < 1) return undefined;
    return this.#once('clipping', () => allClipped(this.#options.clipNorm, this.#last, this.#clipped.length));
  }

  #deadness(fewest: number): Warning | undefined {
    if (this.#labelledSteps < fewest || this.#dead.size === 0) return undefined;
    return this.#once('dead parameters', () => {
      const named = [...this.#dead].map(([i, isZero]) => [this.#trainable[i]?.[0] ?? '', isZero] as const);
      return deadParameters(named, this.#labelledSteps);
    });
  }

  #once(kind: Warning['kind'], make: () => Warning): Warning | undefined {
    if (this.#told.has(kind)) return undefined;
    this.#told.add(kind);
    return make();
  }
}
