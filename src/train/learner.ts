// The training step on the device thread: forward, summed loss, backward, clip, update. It owns model and optimizer.

import type { Batch } from '../data/types.js';
import { toTensors } from '../device/batch-tensors.js';
import { TrainError } from '../errors.js';
import { generate } from '../generate/index.js';
import {
  type Gemma3n,
  fromPretrained,
  loadConfig,
  fromConfig,
  whitenProjector,
} from '../models/gemma3n/index.js';
import { type AdamW, adamw, gradNorm as normOf, scheduleFactor } from '../optim/index.js';
import { type Tensor, manualSeed, op, scope, setNumThreads } from '../tensor/index.js';
import { freeze } from './freeze.js';
import type { ModelOptions, StepOptions } from './options.js';

/** What the host sends to make a learner. */
export interface LearnerSpec {
  readonly model: ModelOptions;
  /** Left out, the model only evaluates. */
  readonly step?: StepOptions;
  readonly seed: number;
  readonly threads?: number;
}

export interface LearnerFacts {
  readonly numParameters: number;
  readonly numTrainable: number;
}

export interface UpdateResult {
  readonly step: number;
  readonly loss: number;
  readonly numLabels: number;
  readonly gradNorm: number;
  readonly lr: number;
  readonly stepMs: number;
  readonly waitMs: number;
}

/** One model being trained. Steps are `accumulate` once or more, then `update`. */
export class Learner {
  readonly #model: Gemma3n;
  readonly #spec: LearnerSpec;
  readonly #trainable: readonly [string, Tensor][];
  readonly #optimizer: AdamW | undefined;
  #step = 0;
  #lossSum = 0;
  #numLabels = 0;
  #stepMs = 0;
  #waitMs = 0;
  #idleSince = performance.now();
  #projectorPending: boolean;
  /** Set by the first non-finite number: calls that were queued behind it must change nothing. */
  #broken: TrainError | undefined;

  private constructor(model: Gemma3n, spec: LearnerSpec) {
    this.#model = model;
    this.#spec = spec;
    this.#trainable = freeze(model.namedParameters(), spec.model.freeze);
    this.#projectorPending = spec.model.projector === 'whitened';
    if (spec.step) {
      const { kind: _kind, ...options } = spec.step.optimizer;
      this.#optimizer = adamw(options)(this.#trainable.map(([, tensor]) => tensor));
    }
  }

  /** Loads or draws the model. */
  static async open(spec: LearnerSpec): Promise<Learner> {
    if (spec.threads !== undefined) setNumThreads(spec.threads);
    manualSeed(spec.seed);
    const { path, dtype, device, weights } = spec.model;
    const model =
      weights === 'random'
        ? fromConfig(await loadConfig(path), { seed: spec.seed, dtype, device })
        : await fromPretrained(path, { dtype, device });
    return new Learner(model, spec);
  }

  get model(): Gemma3n {
    return this.#model;
  }
  get step(): number {
    return this.#step;
  }
  get optimizer(): AdamW | undefined {
    return this.#optimizer;
  }
  get trainable(): readonly [string, Tensor][] {
    return this.#trainable;
  }

  facts(): LearnerFacts {
    const sizes = (tensors: Iterable<[string, Tensor]>) =>
      [...tensors].reduce((sum, [, tensor]) => sum + tensor.numel, 0);
    return { numParameters: sizes(this.#model.namedParameters()), numTrainable: sizes(this.#trainable) };
  }

  /** Forward and backward of one micro-batch: adds the gradient of its summed loss.
   *  @param rows the rows in the batch, for the error
   *  @throws {TrainError} when the loss is not finite */
  accumulate(batch: Batch, rows: readonly string[]): void {
    const begun = this.#begin();
    this.#refuseIfBroken();
    scope(() => {
      const inputs = toTensors(batch, this.#spec.model.device);
      if (this.#projectorPending && inputs.pixelValues) {
        whitenProjector(this.#model, inputs.pixelValues);
        this.#projectorPending = false;
      }
      this.#model.train();
      const { loss, numLabels } = this.#model.lossSum(inputs);
      const value = loss.item();
      if (!Number.isFinite(value)) throw this.#notFinite('loss', value, rows);
      if (numLabels > 0) loss.backward();
      this.#lossSum += value;
      this.#numLabels += numLabels;
    });
    this.#end(begun);
  }

  /** Clips and updates with what was accumulated, the gradient divided by the number of labels.
   *  @throws {TrainError} when a gradient is not finite; nothing is updated then */
  update(rows: readonly string[]): UpdateResult {
    const optimizer = this.#optimizer;
    const { step: options } = this.#spec;
    if (!optimizer || !options)
      throw new TrainError('update: expected a learner with a step; give one in the spec');
    const begun = this.#begin();
    this.#refuseIfBroken();
    const count = Math.max(1, this.#numLabels);
    const tensors = this.#trainable.map(([, tensor]) => tensor);
    const gradNorm = scope(() => {
      const gradients = tensors.map((tensor) => tensor.grad).filter((gradient) => gradient !== null);
      const norm = normOf(gradients) / count;
      if (!Number.isFinite(norm)) throw this.#notFinite('gradient norm', norm, rows);
      const clip = options.clipNorm === undefined ? 1 : Math.min(1, options.clipNorm / (norm + 1e-6));
      if (gradients.length > 0) scaleInPlace(gradients, clip / count);
      return norm;
    });
    const lr = options.optimizer.lr * scheduleFactor(options.schedule, this.#step, options.maxSteps);
    optimizer.lr = lr;
    optimizer.step();
    optimizer.zeroGrad();
    this.#step += 1;
    this.#end(begun);
    const result: UpdateResult = {
      step: this.#step,
      loss: this.#lossSum / count,
      numLabels: this.#numLabels,
      gradNorm,
      lr,
      stepMs: this.#stepMs,
      waitMs: this.#waitMs,
    };
    this.#lossSum = this.#numLabels = this.#stepMs = this.#waitMs = 0;
    return result;
  }

  /** Greedy decoding of left-padded prompts: the new tokens of each row. */
  async generate(
    batch: Batch,
    options: { maxNewTokens: number; eosTokenIds: number[] },
  ): Promise<number[][]> {
    this.#model.eval();
    const inputs = toTensors(batch, this.#spec.model.device);
    try {
      return await generate(this.#model, inputs, { ...options, doSample: false });
    } finally {
      for (const tensor of Object.values(inputs)) (tensor as Tensor).dispose();
      this.#idleSince = performance.now();
    }
  }

  /** The step that a resumed run continues after. */
  resumeAt(step: number): void {
    this.#step = step;
    this.#projectorPending = false;
  }

  #notFinite(what: string, value: number, rows: readonly string[]): TrainError {
    const shown = rows.slice(0, 8).join(', ') + (rows.length > 8 ? ` and ${rows.length - 8} more` : '');
    this.#broken = new TrainError({
      where: `step ${this.#step + 1}, ${what}`,
      expected: 'a finite number',
      received: String(value),
      remedy:
        'the model was not updated and the last checkpoint is intact; lower the learning rate or look at the rows of ' +
        `this step: ${shown}`,
    });
    return this.#broken;
  }

  #refuseIfBroken(): void {
    if (this.#broken) throw this.#broken;
  }

  #begin(): number {
    const now = performance.now();
    this.#waitMs += now - this.#idleSince;
    return now;
  }

  #end(begun: number): void {
    this.#idleSince = performance.now();
    this.#stepMs += this.#idleSince - begun;
  }
}

const foreachMul_ = op('aten::_foreach_mul_.Scalar');

function scaleInPlace(tensors: readonly Tensor[], factor: number): void {
  if (factor !== 1) foreachMul_(tensors, factor);
}
