// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over libtorch's fused kernel, one call for all tensors of a kind.
// A tensor of 16 bits has a float32 master copy that is updated and rounded into it: an update smaller than the last
// bit of a bfloat16, which is a 256th of its value, would otherwise be lost.

import { CheckpointError, ConfigError } from '../errors.js';
import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';
import { keep, noGrad, op, scope, tensor, type DType, type Tensor } from '../tensor/index.js';
import { groupBy } from './grad-norm.js';

const schema = z.strictObject({
  /** Learning rate; a schedule scales it. */
  lr: z.number().positive(),
  /** Decay of the running mean of gradients and of their squares. */
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.999]),
  eps: z.number().positive().default(1e-8),
  /** Each update shrinks a weight by lr * weightDecay of itself. */
  weightDecay: z.number().min(0).default(0.01),
  /** What decays: 'all' as in PyTorch, or 'matrices': tensors of two or more dimensions, so neither norms nor biases. */
  decay: z.enum(['all', 'matrices']).default('all'),
});

export type AdamWOptions = z.input<typeof schema>;

/** Tensors read by name, such as an open safetensors file. */
export interface StateSource {
  readonly names: readonly string[];
  read(name: string): Tensor;
}

interface State {
  readonly expAvg: Tensor;
  readonly expAvgSq: Tensor;
  /** float32 scalar: updates made. */
  readonly step: Tensor;
  /** Float32 copy of a tensor of 16 bits. */
  readonly master: Tensor | undefined;
}

/** One tensor with what its update needs; temporaries of one step. */
interface Update {
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  readonly state: State;
}

const fusedAdamW_ = op('aten::_fused_adamw_');
const foreachAdd_ = op('aten::_foreach_add_.Scalar');
const foreachCopy_ = op('aten::_foreach_copy_');
const zerosLike = op('aten::zeros_like');

/** Elements whose gradients are converted to float32 at a time: 256 MB. */
const masterChunk = 64 * 2 ** 20;
/** Of the count of updates. */
const STEP_BYTES = 4;

/** An optimizer over fixed tensors. It holds no gradients, and no state for a tensor before its first gradient. */
export class AdamW {
  /** Learning rate of the next step; set it to follow a schedule. */
  lr: number;
  readonly #options: z.output<typeof schema>;
  readonly #parameters: readonly Tensor[];
  readonly #states: (State | undefined)[];

  /** @throws {ConfigError} naming every option out of range */
  constructor(parameters: Iterable<Tensor>, options: AdamWOptions) {
    this.#options = decode(schema, options, 'adamw');
    this.lr = this.#options.lr;
    this.#parameters = [...parameters];
    this.#states = new Array<State | undefined>(this.#parameters.length).fill(undefined);
    if (new Set(this.#parameters).size < this.#parameters.length) {
      throw new ConfigError({
        where: 'adamw',
        expected: 'each tensor once',
        received: 'one that is given twice',
        remedy: 'leave out the second',
      });
    }
  }

  /** Bytes of the state once every tensor has had a gradient. */
  get stateBytes(): number {
    return this.#parameters.reduce((sum, { dtype, numel, numBytes }) => {
      const masterBytes = is16Bit(dtype) ? 4 * numel : 0;
      return sum + 2 * (masterBytes || numBytes) + masterBytes + STEP_BYTES;
    }, 0);
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const parameter of this.#parameters) parameter.grad = null;
  }

  /** Updates every tensor that has a gradient; the others are left alone. */
  step(): void {
    scope(() =>
      noGrad(() => {
        const { decay, weightDecay } = this.#options;
        const decayOf = ({ parameter }: Update): number =>
          decay === 'all' || parameter.ndim >= 2 ? weightDecay : 0;
        const kindOf = (update: Update): string =>
          [update.parameter.device, update.parameter.dtype, decayOf(update)].join(' ');
        for (const updates of groupBy(this.#updates(), kindOf).values())
          this.#apply(updates, decayOf(updates[0]!));
      }),
    );
  }

  /** The state by name, for a checkpoint: NAME.exp_avg, NAME.exp_avg_sq, NAME.step, and NAME.master where the tensor has
   *  16 bits. They are the living tensors: copy what is to outlive the next step.
   *  @param names one for each tensor, in order; numbers when left out */
  *namedState(
    names: readonly string[] = this.#parameters.map((_, i) => String(i)),
  ): Iterable<[string, Tensor]> {
    for (const [i, state] of this.#states.entries()) {
      if (!state) continue;
      yield [`${names[i]}.exp_avg`, state.expAvg];
      yield [`${names[i]}.exp_avg_sq`, state.expAvgSq];
      yield [`${names[i]}.step`, state.step];
      if (state.master) yield [`${names[i]}.master`, state.master];
    }
  }

  /** Takes over a state that `namedState` gave, in place of the present one.
   *  @throws {CheckpointError} when a name is not of these tensors, or part of a tensor's state is missing or of another
   *  shape; the present state is then unchanged */
  loadState(source: StateSource, names: readonly string[] = this.#parameters.map((_, i) => String(i))): void {
    const left = new Set(source.names);
    const loaded: (State | undefined)[] = [];
    try {
      for (const [i, parameter] of this.#parameters.entries()) {
        const name = names[i]!;
        const isStored = ['exp_avg', 'exp_avg_sq', 'step', 'master'].some((part) =>
          left.has(`${name}.${part}`),
        );
        loaded.push(isStored ? readState(source, name, parameter, left) : undefined);
      }
      if (left.size > 0) throw unknownState([...left]);
    } catch (error) {
      for (const state of loaded) disposeState(state);
      throw error;
    }
    for (const [i, state] of loaded.entries()) {
      disposeState(this.#states[i]);
      this.#states[i] = state;
    }
  }

  /** Frees the state. */
  dispose(): void {
    for (const state of this.#states) disposeState(state);
    this.#states.fill(undefined);
  }

  #updates(): Update[] {
    return this.#parameters.flatMap((parameter, i) => {
      const gradient = parameter.grad;
      if (!gradient) return [];
      return [{ parameter, gradient, state: (this.#states[i] ??= newState(parameter)) }];
    });
  }

  #apply(updates: readonly Update[], weightDecay: number): void {
    const { betas, eps } = this.#options;
    for (const chunk of chunksOf(updates)) {
      scope(() => {
        const states = chunk.map(({ state }) => state);
        const targets = chunk.map(({ parameter, state }) => state.master ?? parameter);
        const gradients = chunk.map(({ gradient }, i) =>
          gradient.dtype === targets[i]!.dtype ? gradient : gradient.to(targets[i]!.dtype),
        );
        const steps = states.map(({ step }) => step);
        foreachAdd_(steps, 1);
        fusedAdamW_(
          targets,
          gradients,
          states.map(({ expAvg }) => expAvg),
          states.map(({ expAvgSq }) => expAvgSq),
          [],
          steps,
          this.lr,
          betas[0],
          betas[1],
          weightDecay,
          eps,
          false, // amsgrad
          false, // maximize
        );
        if (states[0]!.master) {
          foreachCopy_(
            chunk.map(({ parameter }) => parameter),
            targets,
          );
        }
      });
    }
  }
}

/** What `adamw(options)` is: a part of the pipeline file, and a function that makes the optimizer of some tensors. */
export type AdamWPart = Part<'optimizer', Iterable<Tensor>, AdamW> &
  AdamWOptions &
  ((tensors: Iterable<Tensor>) => AdamW);

const definition = definePart({
  role: 'optimizer',
  kind: 'adamw',
  schema,
  create: (options, tensors: Iterable<Tensor>) => new AdamW(tensors, options),
});

/** AdamW as PyTorch's, with float32 master weights for tensors of 16 bits.
 *
 *      const optimizer = adamw({ lr: 1e-4 })(tensors);
 *      loss.backward();
 *      optimizer.step();
 *      optimizer.zeroGrad();
 *
 *  Options are checked when the optimizer is made, or with the whole pipeline file. */
export function adamw(options: AdamWOptions): AdamWPart {
  const { ...own } = options;
  return Object.assign((tensors: Iterable<Tensor>) => new AdamW(tensors, own), definition(own)) as AdamWPart;
}

function newState(parameter: Tensor): State {
  const master = is16Bit(parameter.dtype) ? keep(parameter.detach().to('float32')) : undefined;
  return {
    expAvg: keep(zerosLike(master ?? parameter.detach())),
    expAvgSq: keep(zerosLike(master ?? parameter.detach())),
    step: keep(tensor(0, [], 'float32', parameter.device)),
    master,
  };
}

function is16Bit(dtype: DType): boolean {
  return dtype === 'bfloat16' || dtype === 'float16';
}

function readState(source: StateSource, name: string, parameter: Tensor, left: Set<string>): State {
  const state = scope(() => noGrad(() => newState(parameter)));
  const parts = { exp_avg: state.expAvg, exp_avg_sq: state.expAvgSq, step: state.step, master: state.master };
  try {
    for (const [part, target] of Object.entries(parts)) {
      if (target) fillState(source, `${name}.${part}`, target, left);
    }
    return state;
  } catch (error) {
    disposeState(state);
    throw error;
  }
}

function fillState(source: StateSource, name: string, target: Tensor, left: Set<string>): void {
  if (!left.delete(name)) {
    throw new CheckpointError({
      where: `optimizer state ${name}`,
      expected: `a tensor of shape [${target.shape.join(', ')}]`,
      received: 'none',
      remedy: 'load the state of a run with the same weights and dtype',
    });
  }
  scope(() => {
    const stored = source.read(name);
    if (stored.shape.join() !== target.shape.join()) {
      throw new CheckpointError({
        where: `optimizer state ${name}`,
        expected: `shape [${target.shape.join(', ')}]`,
        received: `[${stored.shape.join(', ')}]`,
        remedy: 'load the state of a run with the same weights',
      });
    }
    noGrad(() => target.copy_(stored));
  });
}

function unknownState(names: readonly string[]): CheckpointError {
  const more = names.length > 20 ? ` and ${names.length - 20} more` : '';
  return new CheckpointError({
    where: 'optimizer state',
    expected: 'tensors of the weights that learn here',
    received: `${names.length} others: ${names.slice(0, 20).join(', ')}${more}`,
    remedy: 'load the state of a run with the same weights and the same freeze',
  });
}

function disposeState(state: State | undefined): void {
  for (const tensor of [state?.expAvg, state?.expAvgSq, state?.step, state?.master]) tensor?.dispose();
}

/** All updates at once where nothing is converted; else so many as fit `masterChunk`. */
function chunksOf(updates: readonly Update[]): Update[][] {
  if (!updates[0]?.state.master) return [[...updates]];
  const chunks: Update[][] = [];
  let room = 0;
  for (const update of updates) {
    const size = update.parameter.numel;
    if (size > room) {
      chunks.push([]);
      room = masterChunk;
    }
    chunks.at(-1)!.push(update);
    room -= size;
  }
  return chunks;
}
