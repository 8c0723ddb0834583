// A TensorFlow.js model as a Learner: forward and backward by tfjs, the step's bookkeeping as ours does it.

import type { ArrayBatch, PlainArray } from '../data/arrays.js';
import { CheckpointError, ConfigError, TrainError } from '../errors.js';
import type { AdamWOptions } from '../optim/index.js';
import {
  type GuestSpec,
  type Learner,
  type LearnerUpdate,
  type SavedLearner,
  learningRate,
} from './guest.js';
import type { LearnerFacts } from './learner.js';
import { notFinite } from './learner-faults.js';
import { TfjsAdamW, plainOf } from './tfjs-adamw.js';
import type { TfModel, TfShape, TfTensor, TfVariable, Tfjs } from './tfjs-package.js';
import { GuestRandom } from './tfjs-random.js';

/** A batch as the model takes it. */
export interface TfjsInputs {
  readonly inputs: TfTensor | TfTensor[];
  readonly labels: TfTensor;
}

/** What a model gives: a tensor, or the list of them where it has several outputs. */
export type TfjsOutputs = TfTensor & TfTensor[];

export interface TfjsOptions {
  /** Builds the model at once; its first layer states its `inputShape`. Where it gives no seed, weights come from the run's.
   *  Or a model that is there, built with any copy of TensorFlow.js in this process. */
  readonly model: TfModel | ((tf: Tfjs) => TfModel);
  /** Names of the classes in the order of the model's outputs, for its answers. */
  readonly classes?: readonly string[] | undefined;
  /** The losses of a batch, of any shape: the step's is the mean over all its elements. By default the cross-entropy of
   *  logits [batch, classes] and int32 labels [batch]; a model with several outputs needs one of its own. */
  readonly loss?: ((tf: Tfjs, outputs: TfjsOutputs, labels: TfTensor) => TfTensor) | undefined;
  /** The arrays called `inputs` and `labels` by default. */
  readonly toTensors?: ((tf: Tfjs, batch: ArrayBatch) => TfjsInputs) | undefined;
  /** The answer to each sample from the outputs; the likeliest of `classes` by default, where there is one output. */
  readonly predict?: ((tf: Tfjs, outputs: TfjsOutputs) => string[]) | undefined;
}

export class TfjsLearner implements Learner {
  readonly #tf: Tfjs;
  readonly #options: TfjsOptions;
  readonly #spec: GuestSpec;
  readonly #model: TfModel;
  readonly #variables: readonly TfVariable[];
  readonly #optimizer: TfjsAdamW | undefined;
  readonly #random: GuestRandom;
  /** The sum over this step's micro-batches, for each variable that had a gradient. */
  #gradients: (TfTensor | undefined)[] = [];
  #step = 0;
  #lossSum = 0;
  #numLabels = 0;
  #skipped = 0;
  /** Of the generator, behind the last update: a step that is given up leaves no trace. */
  #randomState: string;

  /** @throws {ConfigError} when the model has no weights that learn, or several outputs and no loss of its own */
  constructor(tf: Tfjs, options: TfjsOptions, spec: GuestSpec) {
    this.#tf = tf;
    this.#options = options;
    this.#spec = spec;
    this.#random = new GuestRandom(spec.seed);
    const { model } = options;
    this.#model = typeof model === 'function' ? this.#random.during(() => model(tf)) : model;
    this.#variables = this.#model.trainableWeights.map((weight) => weight.read() as TfVariable);
    this.#randomState = this.#random.state;
    if (!spec.step) return;
    if (this.#variables.length === 0) {
      throw new ConfigError({
        where: 'model.model',
        expected: 'a model with weights that learn',
        received: 'one without',
        remedy: 'give its first layer an inputShape, so that it is built, and leave some layers trainable',
      });
    }
    if (this.#model.outputs.length > 1 && !options.loss) throw severalOutputs('loss', this.#model);
    this.#optimizer = new TfjsAdamW(tf, this.#variables, spec.step.optimizer as AdamWOptions);
  }

  facts(): LearnerFacts {
    const sizes = (weights: readonly { readonly shape: TfShape }[]) =>
      weights.reduce((sum, { shape }) => sum + this.#tf.util.sizeFromShape(shape as number[]), 0);
    return { numParameters: sizes(this.#model.weights), numTrainable: sizes(this.#model.trainableWeights) };
  }

  accumulate(batch: ArrayBatch, rows: readonly string[]): void {
    this.#random.during(() => this.#tf.tidy(() => this.#accumulate(batch, rows)));
  }

  update(rows: readonly string[]): LearnerUpdate {
    const { step: options } = this.#spec;
    if (!this.#optimizer || !options) {
      throw new TrainError('update: expected a learner with a step; give one in the pipeline');
    }
    const count = Math.max(1, this.#numLabels);
    const norm = this.#gradNorm() / count;
    if (!Number.isFinite(norm)) throw notFinite(this.#step + 1, 'gradient norm', norm, rows);
    const most = options.clipNorm ?? (options.clip && 'norm' in options.clip ? options.clip.norm : Infinity);
    const clip = Math.min(1, most / (norm + 1e-6));
    const lr = learningRate(options, this.#step);
    const optimizer = this.#optimizer;
    this.#step += 1;
    // Without any label nothing is updated; the step is counted.
    if (this.#numLabels > 0) {
      this.#tf.tidy(() => {
        const scaled = this.#variables.map((_, i) => this.#gradients[i]?.mul(clip / count));
        optimizer.apply(scaled, lr);
      });
    }
    const update = {
      step: this.#step,
      loss: this.#lossSum / count,
      numLabels: this.#numLabels,
      gradNorm: norm,
      clipped: clip < 1,
      skipped: this.#skipped,
      lr,
    };
    this.#tf.dispose(this.#gradients);
    this.#gradients = [];
    this.#lossSum = this.#numLabels = this.#skipped = 0;
    this.#randomState = this.#random.state;
    return update;
  }

  answer(batch: ArrayBatch): string[] {
    const { classes, predict } = this.#options;
    return this.#tf.tidy(() => {
      const { inputs } = this.#toTensors(batch);
      const outputs = this.#model.apply(inputs, { training: false }) as TfjsOutputs;
      if (predict) return predict(this.#tf, outputs);
      if (this.#model.outputs.length > 1) throw severalOutputs('predict', this.#model);
      if (classes)
        return [...outputs.argMax(-1).dataSync()].map((number) => classes[number] ?? String(number));
      throw new ConfigError({
        where: 'model',
        expected: 'classes, or predict, for an evaluation',
        received: 'neither',
        remedy: "name the classes in the order of the model's outputs",
      });
    });
  }

  async save(): Promise<SavedLearner> {
    const [step, random] = [this.#step, this.#randomState];
    const weights = await copies(this.#weights());
    const optimizer = await copies(this.#optimizer?.tensors() ?? new Map<string, TfTensor>());
    return { step, random, weights, optimizer, files: await layersFiles(this.#tf, this.#model) };
  }

  load({ step, random, weights, optimizer }: SavedLearner): void {
    this.loadWeights(weights);
    if (this.#optimizer) this.#fill(this.#optimizer.tensors(), optimizer, 'optimizer');
    this.#step = step;
    this.#random.state = this.#randomState = random;
  }

  /** The weights alone. @throws {CheckpointError} when they are another model's */
  loadWeights(weights: ReadonlyMap<string, PlainArray>): void {
    this.#fill(this.#weights(), weights, 'model');
  }

  close(): void {
    this.#tf.dispose(this.#gradients);
    this.#optimizer?.dispose();
    if (typeof this.#options.model === 'function') this.#model.dispose();
  }

  #accumulate(batch: ArrayBatch, rows: readonly string[]): void {
    const tf = this.#tf;
    const { loss = crossEntropy } = this.#options;
    const { inputs, labels } = this.#toTensors(batch);
    let count = 0;
    const { value, grads } = tf.variableGrads(() => {
      const outputs = this.#model.apply(inputs, { training: true }) as TfjsOutputs;
      const losses = loss(tf, outputs, labels);
      count = losses.size;
      return losses.sum();
    }, [...this.#variables]);
    const sum = value.dataSync()[0]!;
    if (!Number.isFinite(sum)) throw notFinite(this.#step + 1, 'loss', sum, rows);
    if (count === 0) this.#skipped += 1;
    this.#lossSum += sum;
    this.#numLabels += count;
    for (const [i, { name }] of this.#variables.entries()) {
      const gradient = grads[name];
      if (!gradient) continue;
      const before = this.#gradients[i];
      this.#gradients[i] = tf.keep(before ? before.add(gradient) : gradient);
      before?.dispose();
    }
  }

  /** By numbers: the names that tfjs makes up differ from one model of a process to the next. */
  #weights(): Map<string, TfVariable> {
    return new Map(
      this.#model.weights.map((weight, i) => [
        `${i}/${weight.originalName.split('/').at(-1)}`,
        weight.read() as TfVariable,
      ]),
    );
  }

  #fill(into: ReadonlyMap<string, TfVariable>, from: ReadonlyMap<string, PlainArray>, what: string): void {
    const said = (arrays: ReadonlyMap<string, { readonly shape: readonly number[] }>) =>
      [...arrays]
        .map(([name, { shape }]) => `${name} [${shape.join(', ')}]`)
        .sort()
        .join(', ');
    if (said(into) !== said(from)) {
      throw new CheckpointError({
        where: `checkpoint, ${what}`,
        expected: said(into),
        received: said(from),
        remedy: 'build the model as it was when the checkpoint was written',
      });
    }
    this.#tf.tidy(() => {
      for (const [name, variable] of into) {
        const { data, shape } = from.get(name)!;
        variable.assign(this.#tf.tensor(data, [...shape], variable.dtype));
      }
    });
  }

  #toTensors(batch: ArrayBatch): TfjsInputs {
    return (this.#options.toTensors ?? namedArrays)(this.#tf, batch);
  }

  #gradNorm(): number {
    return this.#tf.tidy(() => {
      const squares = this.#gradients.map((gradient) => gradient?.square().sum().dataSync()[0] ?? 0);
      return Math.sqrt(squares.reduce((sum, square) => sum + square, 0));
    });
  }
}

function severalOutputs(option: 'loss' | 'predict', { outputs }: TfModel): ConfigError {
  return new ConfigError({
    where: `model.${option}`,
    expected: 'a function of the list of outputs, where the model has several',
    received: `none, for ${outputs.length} outputs`,
    remedy:
      option === 'loss' ? 'give loss: (tf, [a, b], labels) => ...' : 'give predict: (tf, [a, b]) => ...',
  });
}

async function copies(tensors: ReadonlyMap<string, TfTensor>): Promise<Map<string, PlainArray>> {
  const plain = [...tensors].map(async ([name, tensor]) => [name, await plainOf(tensor)] as const);
  return new Map(await Promise.all(plain));
}

/** The arrays called `inputs` and `labels`. */
function namedArrays(tf: Tfjs, { arrays: { inputs, labels } }: ArrayBatch): TfjsInputs {
  if (!inputs || !labels) {
    throw new TrainError({
      where: 'tfjs model',
      expected: "a batch with the arrays 'inputs' and 'labels'",
      received: `${inputs ? '' : 'no inputs'}${inputs || labels ? '' : ', '}${labels ? '' : 'no labels'}`,
      remedy: 'name them so, or give the model toTensors',
    });
  }
  const tensor = ({ data, shape }: PlainArray) =>
    tf.tensor(data, [...shape], data instanceof Float32Array ? 'float32' : 'int32');
  return { inputs: tensor(inputs), labels: tensor(labels) };
}

/** -log softmax(logits)[label] of each sample, [batch]. */
function crossEntropy(tf: Tfjs, logits: TfTensor, labels: TfTensor): TfTensor {
  const target = tf.oneHot(labels, logits.shape.at(-1)!);
  return tf.logSoftmax(logits).mul(target).sum(-1).neg();
}

/** The model in TensorFlow.js's own layout, for tf.loadLayersModel. */
async function layersFiles(tf: Tfjs, model: TfModel): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const handler = tf.io.withSaveHandler(async (artifacts) => {
    const { modelTopology, weightSpecs: weights = [], weightData = new ArrayBuffer(0) } = artifacts;
    const parts = (Array.isArray(weightData) ? weightData : [weightData]).map((part) => new Uint8Array(part));
    const json = {
      format: 'layers-model',
      generatedBy: `TensorFlow.js tfjs-layers v${tf.version.tfjs}`,
      modelTopology,
      weightsManifest: [{ paths: ['weights.bin'], weights }],
    };
    files.set('model.json', new TextEncoder().encode(JSON.stringify(json)));
    files.set('weights.bin', Buffer.concat(parts));
    return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: 'JSON' } };
  });
  await model.save(handler);
  return files;
}
