// The training step on the device thread: forward, summed loss, backward, clip, update. It owns model and optimizer.

import { resolve } from 'node:path';
import type { Batch } from '../data/types.js';
import { toTensors } from '../device/batch-tensors.js';
import { TrainError } from '../errors.js';
import { generate } from '../generate/index.js';
import {
  FlopCounter,
  type Gemma3n,
  type LabelledInputs,
  type RecomputedLoss,
  applyAdapter,
  fromPretrained,
  loadAdapter,
  loadConfig,
  fromConfig,
  mappedTables,
  recomputedPartsOf,
  refuseLearningTables,
  setBase,
  saveAdapter,
  savePretrained,
  sharedParameters,
  whitenProjector,
} from '../models/gemma3n/index.js';
import {
  Clipping,
  type Measured,
  type Optimizer,
  WeightAverage,
  optimizerOf,
  scheduleFactor,
} from '../optim/index.js';
import {
  type Tensor,
  manualSeed,
  randomState,
  scope,
  setNumThreads,
  setRandomState,
} from '../tensor/index.js';
import { BackwardUpdate } from './backward-update.js';
import { batchShape } from './batch-shape.js';
import { Dynamics, type StepMeasures, modelWarnings } from './dynamics.js';
import type { Warning } from './dynamics-warnings.js';
import { freeze, isFrozen } from './freeze.js';
import {
  gradientPlace,
  moduleOfGradient,
  notFinite,
  nothingLearns,
  placeOf,
  refuseMissingParts,
} from './learner-faults.js';
import { findGradientFault } from './gradient-search.js';
import { findNotFinite } from './nan-search.js';
import type { ModelOptions, StepOptions } from './options.js';
import { peakFlops } from './peak.js';
import { RecentBatches } from './recent-batches.js';

type Forwarded = Omit<RecomputedLoss, 'dispose'> & Partial<RecomputedLoss>;

/** What the host sends to make a learner. */
export interface LearnerSpec {
  readonly model: ModelOptions;
  /** Left out, the model only evaluates. */
  readonly step?: StepOptions;
  readonly seed: number;
  readonly threads?: number;
  /** Keeps what this machine's products reach, from run to run: see `peakFlops`. */
  readonly peakFile?: string;
}

export interface LearnerFacts {
  readonly numParameters: number;
  readonly numTrainable: number;
  /** What the loss caps logits at; see `ModelEvent`. */
  readonly softcap?: number;
  /** Of this machine, in the model's dtype: see `ModelEvent`. */
  readonly peakFlops?: number;
  /** To be told as events before the first step. */
  readonly warnings?: readonly Warning[];
}

export interface UpdateResult extends StepMeasures {
  readonly step: number;
  readonly loss: number;
  readonly numLabels: number;
  readonly gradNorm: number;
  /** Micro-batches without any label, which taught nothing. */
  readonly skipped: number;
  readonly lr: number;
  readonly stepMs: number;
  readonly waitMs: number;
  /** To be told as events. */
  readonly warnings?: readonly Warning[];
}

/** What a learner goes on from beside weights and optimizer, as it was after an update: a step that has begun and is given
 *  up leaves no trace in it. */
export interface LearnerState {
  /** Updates made. */
  readonly step: number;
  /** Of the engine's generator. */
  readonly random: Uint8Array;
  /** The projector still waits for its first images. */
  readonly projectorPending: boolean;
}

/** One model being trained. Steps are `accumulate` once or more, then `update`. */
export class Learner {
  readonly #model: Gemma3n;
  readonly #spec: LearnerSpec;
  readonly #trainable: readonly [string, Tensor][];
  readonly #optimizer: Optimizer | undefined;
  readonly #clipping: Clipping | undefined;
  readonly #average: WeightAverage | undefined;
  readonly #dynamics: Dynamics;
  readonly #peakRate: number = 0;
  readonly #flops: FlopCounter;
  readonly #peakFlops: number | undefined;
  #step = 0;
  #lossSum = 0;
  #numLabels = 0;
  #skipped = 0;
  /** The step's newest, to be looked at again when its gradient is not finite. */
  readonly #batches = new RecentBatches();
  #numFlops = 0;
  #stepMs = 0;
  #waitMs = 0;
  #idleSince = performance.now();
  #projectorPending: boolean;
  /** A forward pass whose backward pass makes the update. */
  #pending: Forwarded | undefined;
  #state: LearnerState;
  /** The first failure: calls that were queued behind it must change nothing. */
  #broken: { readonly error: unknown } | undefined;

  /** @param peak floating point operations a second, where it is known: see `peakFlops`
   *  @throws {ConfigError} when `freeze` names nothing, or leaves nothing to a step */
  constructor(model: Gemma3n, spec: LearnerSpec, peak?: number) {
    this.#model = model;
    this.#spec = spec;
    this.#trainable = freeze(model.namedParameters(), spec.model.freeze);
    this.#dynamics = new Dynamics(this.#trainable, {
      clipNorm: spec.step?.clipNorm,
      // weights are updated before the step's norms are known
      ...(spec.step?.optimizerInBackward && { ratioEvery: Infinity }),
    });
    this.#flops = new FlopCounter(model);
    this.#peakFlops = peak;
    this.#projectorPending = spec.model.projector === 'whitened';
    this.#state = this.#present();
    if (spec.step) {
      const tables = [...mappedTables(model).keys()];
      refuseLearningTables(
        tables.filter((name) => !isFrozen(name, spec.model.freeze) && spec.model.adapter === undefined),
      );
      if (this.#trainable.length === 0) throw nothingLearns(spec.model.freeze);
      const { optimizer, clip, clipNorm, ema, checkpointing } = spec.step;
      refuseMissingParts(checkpointing, recomputedPartsOf(model));
      this.#optimizer = optimizerOf(optimizer, this.#trainable);
      this.#peakRate = this.#optimizer.lr;
      this.#clipping = new Clipping(this.#trainable, clip ?? { norm: clipNorm ?? Infinity });
      if (ema) {
        const { decay, warmup, every } = ema;
        this.#average = new WeightAverage(this.#trainable, { decay, warmup, every });
      }
    }
  }

  /** Loads or draws the model. */
  static async open(spec: LearnerSpec): Promise<Learner> {
    if (spec.threads !== undefined) setNumThreads(spec.threads);
    manualSeed(spec.seed);
    const { path, dtype, device, embeddings, weights, adapter, base, origin, quantise } = spec.model;
    const model =
      weights === 'random'
        ? fromConfig(await loadConfig(path), { seed: spec.seed, dtype, device })
        : await fromPretrained(path, { dtype, device, quantise, ...(embeddings && { embeddings }) });
    setBase(
      model,
      base ?? (origin ? { path: origin.repository, revision: origin.commit } : { path: resolve(path) }),
    );
    if (typeof adapter === 'string')
      await loadAdapter(model, adapter, { trainable: spec.step !== undefined });
    else if (adapter) applyAdapter(model, adapter);
    const peak = spec.step && peakFlops({ dtype, device, file: spec.peakFile });
    return new Learner(model, spec, peak);
  }

  get model(): Gemma3n {
    return this.#model;
  }
  /** Where the model was downloaded from. */
  get origin(): ModelOptions['origin'] {
    return this.#spec.model.origin;
  }
  /** Whether an adapter learns, and the model stays as it is. */
  get hasAdapter(): boolean {
    return this.#spec.model.adapter !== undefined;
  }
  get state(): LearnerState {
    return this.#state;
  }
  /** Micro-batches a step. */
  get accumulation(): number {
    return this.#spec.step?.accumulate ?? 1;
  }
  get optimizer(): Optimizer | undefined {
    return this.#optimizer;
  }
  /** Of what learns, where the step keeps one. */
  get average(): WeightAverage | undefined {
    return this.#average;
  }
  /** What training may change: all that learns, and the projector where it is set from images. */
  get changing(): ReadonlySet<Tensor> {
    const tensors = new Set(this.#trainable.map(([, tensor]) => tensor));
    if (this.#spec.model.projector === 'whitened') {
      for (const [name, tensor] of this.#model.namedParameters()) {
        if (isFrozen(name, ['model.embed_vision'])) tensors.add(tensor);
      }
    }
    return tensors;
  }
  get trainable(): readonly [string, Tensor][] {
    return this.#trainable;
  }

  facts(): LearnerFacts {
    const sizes = (tensors: Iterable<[string, Tensor]>) =>
      [...tensors].reduce((sum, [, tensor]) => sum + tensor.numel, 0);
    const softcap = this.#model.config.text.finalLogitSoftcapping;
    return {
      numParameters: sizes(this.#model.namedParameters()),
      numTrainable: sizes(this.#trainable),
      ...(softcap !== undefined && { softcap }),
      ...(this.#peakFlops !== undefined && { peakFlops: this.#peakFlops }),
      warnings: this.#spec.step ? modelWarnings(this.#model, this.#spec.model.weights) : [],
    };
  }

  /** Forward and backward of one micro-batch: adds the gradient of its summed loss.
   *  @param rows the rows in the batch, for the error
   *  @throws {TrainError} when the loss is not finite */
  accumulate(batch: Batch, rows: readonly string[]): void {
    this.#work(() => scope(() => this.#accumulate(batch, rows)));
  }

  /** Clips and updates with what was accumulated, the gradient divided by the number of labels. Without any label nothing
   *  is updated; the step is counted.
   *  @throws {TrainError} when a gradient is not finite; nothing is updated then */
  update(rows: readonly string[]): UpdateResult {
    const result = this.#work(() => this.#update(rows));
    const { stepMs, waitMs, flops } = { stepMs: this.#stepMs, waitMs: this.#waitMs, flops: this.#numFlops };
    this.#lossSum = this.#numLabels = this.#skipped = this.#stepMs = this.#waitMs = this.#numFlops = 0;
    this.#batches.clear();
    this.#state = this.#present();
    const perSecond = (1000 * flops) / Math.max(1e-3, stepMs + waitMs);
    return {
      ...result,
      flops,
      ...(this.#peakFlops !== undefined && { mfu: perSecond / this.#peakFlops }),
      stepMs,
      waitMs,
    };
  }

  /** After the last update: warnings that wait for more steps than there were. */
  finish(): Warning[] {
    return this.#dynamics.finish();
  }

  /** Greedy decoding of left-padded prompts: the new tokens of each row.
   *  @throws the signal's reason when it is aborted */
  async generate(
    batch: Batch,
    options: { maxNewTokens: number; eosTokenIds: number[] },
    signal?: AbortSignal,
  ): Promise<number[][]> {
    this.#model.eval();
    const inputs = toTensors(batch, this.#spec.model.device);
    const answer = () =>
      generate(this.#model, inputs, { ...options, doSample: false, ...(signal && { signal }) });
    try {
      const average = this.#spec.step?.ema?.evaluate === false ? undefined : this.#average;
      return await (average ? average.inPlace(answer) : answer());
    } finally {
      for (const tensor of Object.values(inputs)) (tensor as Tensor).dispose();
      this.waitFromNow();
    }
  }

  /** Writes a folder as `savePretrained` or `saveAdapter` does, of the averages of what learns.
   *  @throws {CheckpointError} when it cannot be written */
  async writeAverage(folder: string): Promise<void> {
    const write = () =>
      this.hasAdapter ? saveAdapter(this.#model, folder) : savePretrained(this.#model, folder);
    await this.#average?.inPlace(write);
  }

  /** Goes on from a state; weights and optimizer are loaded apart. */
  restore(state: LearnerState): void {
    this.#step = state.step;
    this.#projectorPending = state.projectorPending;
    setRandomState(state.random);
    this.#state = state;
  }

  /** What happened until now was no waiting for data. */
  waitFromNow(): void {
    this.#idleSince = performance.now();
  }

  #accumulate(batch: Batch, rows: readonly string[]): void {
    const inputs = toTensors(batch, this.#spec.model.device);
    if (this.#projectorPending && inputs.pixelValues) {
      whitenProjector(this.#model, inputs.pixelValues);
      this.#projectorPending = false;
    }
    this.#model.train();
    const pass = this.#forward(inputs);
    const { loss, numLabels } = pass;
    const value = loss.item();
    if (!Number.isFinite(value))
      throw notFinite(this.#step + 1, 'loss', value, rows, placeOf(findNotFinite(this.#model, inputs)));
    if (numLabels === 0) {
      pass.dispose?.();
      this.#skipped += 1;
    } else if (this.#spec.step?.optimizerInBackward) this.#pending = pass;
    else {
      pass.backward();
      this.#batches.add(batch);
    }
    const { forward, backward } = this.#flops.count(batchShape(batch, this.#model.config.text.slidingWindow));
    this.#numFlops += numLabels === 0 ? forward : forward + backward;
    this.#lossSum += value;
    this.#numLabels += numLabels;
  }

  /** The module where the backward pass of one of the step's batches went wrong, in words; none where it is not found. */
  #gradientFault(): string[] {
    const { checkpointing = false } = this.#spec.step ?? {};
    const isRecomputed = Array.isArray(checkpointing) ? checkpointing.length > 0 : checkpointing === true;
    for (const batch of this.#batches) {
      const fault = scope(() =>
        findGradientFault(this.#model, toTensors(batch, this.#spec.model.device), isRecomputed),
      );
      if (fault) return [moduleOfGradient(fault)];
    }
    return [];
  }

  /** With checkpointing, or with the update within it, the backward pass is not the engine's alone. */
  #forward(inputs: LabelledInputs): Forwarded {
    const { checkpointing = false, offload, optimizerInBackward } = this.#spec.step ?? {};
    this.#pending?.dispose?.();
    this.#pending = undefined;
    if (checkpointing || optimizerInBackward) {
      return this.#model.recomputedLoss(inputs, { checkpointing, offload });
    }
    const { loss, numLabels } = this.#model.lossSum(inputs);
    return { loss, numLabels, backward: () => loss.backward() };
  }

  /** The pass that waits, and all updates with it. */
  #updateInBackward(
    pass: Pick<RecomputedLoss, 'backward'>,
    count: number,
  ): Pick<Measured, 'norm' | 'norms' | 'clipped'> & { readonly scale?: undefined } {
    this.#pending = undefined;
    const shared = sharedParameters(this.#model);
    const update = new BackwardUpdate(
      { optimizer: this.#optimizer!, clipping: this.#clipping!, shared },
      count,
    );
    let isFinite = true;
    try {
      pass.backward((isLast) => {
        isFinite &&= update.afterSegment(isLast);
      });
    } finally {
      update.dispose();
    }
    return update.measured;
  }

  #update(rows: readonly string[]): Omit<UpdateResult, 'stepMs' | 'waitMs' | 'flops' | 'mfu'> {
    const optimizer = this.#optimizer;
    const { step: options } = this.#spec;
    if (!optimizer || !options)
      throw new TrainError('update: expected a learner with a step; give one in the spec');
    const count = Math.max(1, this.#numLabels);
    const lr = this.#peakRate * scheduleFactor(options.schedule, this.#step, options.maxSteps);
    optimizer.lr = lr;
    const inBackward = this.#pending !== undefined;
    const measured = this.#pending
      ? this.#updateInBackward(this.#pending, count)
      : this.#clipping!.measure(count);
    const { norm, norms, scale } = measured;
    if (!Number.isFinite(norm)) {
      const names = this.#trainable.flatMap(([name], i) => (Number.isFinite(norms[i] ?? 0) ? [] : [name]));
      const place = [gradientPlace(names), ...this.#gradientFault()].join('; ');
      throw notFinite(this.#step + 1, 'gradient norm', norm, rows, place, inBackward);
    }
    this.#dynamics.beforeUpdate(this.#step + 1, measured);
    if (scale !== undefined) optimizer.step({ scale });
    optimizer.zeroGrad();
    this.#step += 1;
    if (this.#numLabels > 0 && this.#average?.isDue(this.#step)) this.#average.update(this.#masters());
    const skipped = this.#skipped;
    const numLabels = this.#numLabels;
    const loss = this.#lossSum / count;
    const measures = this.#dynamics.afterUpdate(this.#step, skipped);
    return { step: this.#step, loss, numLabels, gradNorm: norm, skipped, lr, ...measures };
  }

  /** The optimizer's float32 copies of weights of 16 bits, by the weights' names. */
  #masters(): (name: string) => Tensor | undefined {
    const names = this.#trainable.map(([name]) => name);
    const masters = new Map(this.#optimizer?.namedState(names));
    return (name) => masters.get(`${name}.master`);
  }

  /** Runs a part of a step on the clock, unless one before it failed. */
  #work<T>(part: () => T): T {
    if (this.#broken) throw this.#broken.error;
    const begun = performance.now();
    this.#waitMs += begun - this.#idleSince;
    try {
      return part();
    } catch (error) {
      this.#broken = { error };
      throw error;
    } finally {
      this.waitFromNow();
      this.#stepMs += this.#idleSince - begun;
    }
  }

  #present(): LearnerState {
    return { step: this.#step, random: randomState(), projectorPending: this.#projectorPending };
  }
}
