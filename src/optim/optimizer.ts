// What all optimizers share: groups, state by name, weights of 16 bits, and the step over all tensors that have a
// gradient. What is an optimizer's own is its rule.

import { CheckpointError, ConfigError } from '../errors.js';
import { z } from '../schema.js';
import {
  dtypeBytes,
  keep,
  noGrad,
  op,
  scope,
  tensor,
  zeros,
  type DType,
  type Tensor,
} from '../tensor/index.js';
import { GROUP_OPTIONS, membersOf, type GroupOptions, type Member, type Parameters } from './groups.js';

const roundStochastic = op('sluice::round_stochastic');
const randint = op('aten::randint.low');

/** Options of every optimizer. */
export const COMMON = {
  ...GROUP_OPTIONS,
  /** How weights of 16 bits are kept: 'nearest', rounded from float32 masters, or 'stochastic', without masters, rounded
   *  up or down at random so that updates below their last bit are not lost on average. The random numbers are the
   *  engine's: `manualSeed`, or the run's seed, sets them. */
  rounding: z.enum(['nearest', 'stochastic']).default('nearest'),
};

export interface CommonOptions extends GroupOptions {
  readonly rounding: 'nearest' | 'stochastic';
}

/** Tensors read by name, such as an open safetensors file. */
export interface StateSource {
  readonly names: readonly string[];
  read(name: string): Tensor;
}

/** One part of a tensor's state: zeros of a shape. */
export interface Slot {
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** On the host wherever the tensor is. */
  readonly onHost?: boolean;
}

/** One tensor with what its update needs; temporaries of one step. */
export interface Update {
  readonly member: Member;
  readonly gradient: Tensor;
  /** By the rule's names. */
  readonly state: Readonly<Record<string, Tensor>>;
  readonly lr: number;
  /** Of the gradient. */
  readonly scale: number;
}

/** What makes an optimizer. */
export interface Rule {
  /** 'adamw' */
  readonly kind: string;
  /** Parts of the state of one tensor. @param dtype in which it is updated: float32 or wider */
  slots(member: Member, dtype: DType): Readonly<Record<string, Slot>>;
  /** Updates all at once. @param weights what is done about weights of 16 bits */
  apply(updates: readonly Update[], weights: Weights): void;
}

/** Weights as a rule updates them. */
export interface Weights {
  /** Keys of the tensors' random numbers in this step, where weights are rounded at random. */
  keysOf(updates: readonly Update[]): readonly number[];
  /** The master, or the weight itself where it has none. */
  masterOf(update: Update): Tensor;
  /** Runs `work` on a weight in float32 or wider and writes what it leaves there back. */
  update(update: Update, work: (weight: Tensor, gradient: Tensor) => void): void;
}

/** Of the gradients in a step: for all, or for each tensor in order. */
export type GradientScale = number | readonly number[];

/** An optimizer over fixed tensors. It holds no gradients, and no state for a tensor before its first gradient. */
export class Optimizer {
  /** Learning rate of the next step; set it to follow a schedule. */
  lr: number;
  readonly #rule: Rule;
  readonly #members: readonly Member[];
  readonly #states: (Readonly<Record<string, Tensor>> | undefined)[];
  readonly #isStochastic: boolean;
  /** The patterns of its groups, in order. */
  readonly groups: readonly string[];
  #key: number | undefined;

  /** @throws {ConfigError} when groups do not fit the tensors */
  constructor(parameters: Parameters, options: CommonOptions, rule: Rule) {
    this.lr = options.lr;
    this.#rule = rule;
    this.#members = membersOf(parameters, options, rule.kind);
    this.#isStochastic = options.rounding === 'stochastic';
    this.groups = (options.groups ?? []).map(({ match }) => match);
    this.#states = this.#members.map(() => undefined);
    const narrow = this.#members.find(({ tensor }) => tensor.dtype === 'float16');
    if (this.#isStochastic && narrow) {
      throw new ConfigError({
        where: `${rule.kind}: rounding`,
        expected: "'nearest' for float16",
        received: `'stochastic' for ${narrow.name ?? 'a tensor'} of float16`,
        remedy: 'leave it out, or keep the weights in bfloat16',
      });
    }
  }

  /** 'adamw' */
  get kind(): string {
    return this.#rule.kind;
  }

  /** Tensors with their rates and decays, in order. */
  get members(): readonly Member[] {
    return this.#members;
  }

  /** Bytes of the state once every tensor has had a gradient. */
  get stateBytes(): number {
    return this.stateBytesOf(() => true);
  }

  /** The same where some tensors have none. @param learns of a tensor's name */
  stateBytesOf(learns: (name: string | undefined) => boolean): number {
    return this.#members
      .filter(({ name }) => learns(name))
      .flatMap((member) => Object.values(this.#slots(member)))
      .reduce((bytes, { shape, dtype }) => bytes + product(shape) * dtypeBytes(dtype), 0);
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const { tensor } of this.#members) tensor.grad = null;
  }

  /** Updates every tensor that has a gradient; the others are left alone.
   *  @param scale of the gradients, which costs no pass over them: what clipping asks for */
  step({ scale = 1 }: { readonly scale?: GradientScale } = {}): void {
    scope(() =>
      noGrad(() => {
        const updates = this.#members.flatMap((member, i) => {
          const gradient = member.tensor.grad;
          if (!gradient) return [];
          const state = (this.#states[i] ??= this.#newState(member));
          const own = typeof scale === 'number' ? scale : scale[i]!;
          return [{ member, gradient, state, lr: this.lr * member.lrRatio, scale: own }];
        });
        if (updates.length === 0) return;
        this.#key = this.#isStochastic ? randint(0, 2 ** 31, []).item() : undefined;
        this.#rule.apply(updates, this.#weights);
      }),
    );
  }

  /** The state by name, for a checkpoint: NAME.PART for each part of the rule's, and NAME.master where a tensor of 16 bits
   *  has one. They are the living tensors: copy what is to outlive the next step.
   *  @param names one for each tensor, in order; their own, or numbers, when left out */
  *namedState(names: readonly string[] = this.#names()): Iterable<[string, Tensor]> {
    for (const [i, state] of this.#states.entries()) {
      for (const [part, tensor] of Object.entries(state ?? {})) yield [`${names[i]}.${part}`, tensor];
    }
  }

  /** Takes over a state that `namedState` gave, in place of the present one.
   *  @throws {CheckpointError} when a name is not of these tensors, or part of a tensor's state is missing or of another
   *  shape; the present state is then unchanged */
  loadState(source: StateSource, names: readonly string[] = this.#names()): void {
    const left = new Set(source.names);
    const loaded: (Readonly<Record<string, Tensor>> | undefined)[] = [];
    try {
      this.#refuseOther(left, names);
      for (const [i, member] of this.#members.entries()) {
        const parts = Object.keys(this.#slots(member));
        const isStored = parts.some((part) => left.has(`${names[i]}.${part}`));
        loaded.push(isStored ? this.#readState(source, names[i]!, member, left) : undefined);
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

  readonly #weights: Weights = {
    keysOf: (updates) => {
      const key = this.#key;
      return key === undefined ? [] : updates.map((_, i) => (key + Math.imul(i + 1, 0x9e3779b1)) >>> 0);
    },
    masterOf: ({ member, state }) => state['master'] ?? member.tensor.detach(),
    update: (update, work) => {
      const { member, gradient, state, scale } = update;
      const weight = member.tensor.detach();
      const isTemporary = !state['master'] && is16Bit(weight.dtype);
      const target = state['master'] ?? (isTemporary ? weight.to('float32') : weight);
      const wide = gradient.to(target.dtype);
      work(target, scale === 1 ? wide : wide.mul(scale));
      if (isTemporary) weight.copy_(roundStochastic(target, this.#nextKey()));
      else if (target !== weight) weight.copy_(target);
    },
  };

  #nextKey(): number {
    this.#key = ((this.#key ?? 0) + 0x9e3779b1) >>> 0;
    return this.#key;
  }

  #names(): string[] {
    return this.#members.map(({ name }, i) => name ?? String(i));
  }

  #slots(member: Member): Record<string, Slot> {
    const { tensor } = member;
    const isNarrow = is16Bit(tensor.dtype);
    const slots = this.#rule.slots(member, isNarrow ? 'float32' : tensor.dtype);
    if (!isNarrow || this.#isStochastic) return { ...slots };
    return { ...slots, master: { shape: tensor.shape, dtype: 'float32' } };
  }

  #newState(member: Member): Record<string, Tensor> {
    const { tensor } = member;
    return scope(() =>
      noGrad(() => {
        const entries = Object.entries(this.#slots(member)).map(([part, { shape, dtype, onHost }]) => {
          const made =
            part === 'master'
              ? tensor.detach().to('float32')
              : zeros(shape, { dtype, device: onHost ? 'cpu' : tensor.device });
          return [part, keep(made)] as const;
        });
        return Object.fromEntries(entries);
      }),
    );
  }

  #readState(source: StateSource, name: string, member: Member, left: Set<string>): Record<string, Tensor> {
    const state = this.#newState(member);
    try {
      for (const [part, target] of Object.entries(state)) fillState(source, `${name}.${part}`, target, left);
      return state;
    } catch (error) {
      disposeState(state);
      throw error;
    }
  }

  /** Parts of these very tensors that this rule does not know are another optimizer's. */
  #refuseOther(stored: ReadonlySet<string>, names: readonly string[]): void {
    const others = new Set<string>();
    const known = new Map(this.#members.map((member, i) => [names[i]!, this.#slots(member)]));
    for (const full of stored) {
      const dot = full.lastIndexOf('.');
      const slots = known.get(full.slice(0, dot));
      const part = full.slice(dot + 1);
      if (slots && !(part in slots) && part !== 'master') others.add(part);
    }
    if (others.size === 0) return;
    throw new CheckpointError({
      where: 'optimizer state',
      expected: `that of ${this.kind}`,
      received: `that of another optimizer, or of other options, with ${[...others].join(', ')}`,
      remedy: 'continue with the optimizer of the checkpoint, or begin a new run from its weights',
    });
  }
}

export function is16Bit(dtype: DType): boolean {
  return dtype === 'bfloat16' || dtype === 'float16';
}

/** Adds one to the count of updates, and returns it. */
export function countStep(step: Tensor): number {
  step.add_(1);
  return step.item();
}

/** Of a count of updates. */
export const STEP: Slot = { shape: [], dtype: 'float32' };

function product(shape: readonly number[]): number {
  return shape.reduce((all, size) => all * size, 1);
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

function disposeState(state: Readonly<Record<string, Tensor>> | undefined): void {
  for (const tensor of Object.values(state ?? {})) tensor.dispose();
}

/** A float32 tensor of plain numbers. */
export const numbers = (values: readonly number[]): Tensor => tensor([...values], [values.length]);
