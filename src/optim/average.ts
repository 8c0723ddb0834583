// An exponential moving average of weights (Polyak and Juditsky 1992, as used by Tarvainen and Valpola, arXiv 1703.01780):
// shadow = d shadow + (1 - d) weight after an update, from the weights as they were at the start. With warm-up d begins low
// and rises to the decay, as TensorFlow's ExponentialMovingAverage has it, so that a short run is not bound to its start.

import { CheckpointError } from '../errors.js';
import { decode, z } from '../schema.js';
import { type Tensor, dtypeBytes, keep, noGrad, op, scope } from '../tensor/index.js';
import { type StateSource, is16Bit } from './optimizer.js';

/** Of an average of weights. */
export const EMA_OPTIONS = {
  /** What of the average stays at each update of it, above 0 and below 1: 0.999 looks back over some 1000 of them. */
  decay: z.number().gt(0).lt(1),
  /** Begins with less: min(decay, (1 + n) / (10 + n)) at the update after n. */
  warmup: z.boolean().default(false),
  /** Steps between two updates of the average. */
  every: z.int().positive().default(1),
};

const SCHEMA = z.strictObject(EMA_OPTIONS);

export type EmaOptions = z.input<typeof SCHEMA>;

const lerp_ = op('aten::lerp_.Scalar');

/** What of the average stays. @param updates that it has had before */
export function emaDecay(
  { decay, warmup = false }: Pick<EmaOptions, 'decay' | 'warmup'>,
  updates: number,
): number {
  return warmup ? Math.min(decay, (1 + updates) / (10 + updates)) : decay;
}

/** The average of fixed tensors. It is kept in float32 for tensors of 16 bits, whose last bit is larger than most of what
 *  an update of the average adds; else in the tensors' own dtype. */
export class WeightAverage {
  readonly #tensors: readonly Tensor[];
  readonly #names: readonly string[];
  readonly #shadows: readonly Tensor[];
  readonly #options: z.output<typeof SCHEMA>;
  /** The weights themselves while the averages stand in their place: of those of 16 bits. */
  #set: ReadonlyMap<Tensor, Tensor> | undefined;
  #updates = 0;

  /** @param named the tensors, as they are at the start
   *  @throws {ConfigError} for a decay that is not between 0 and 1 */
  constructor(named: Iterable<readonly [name: string, tensor: Tensor]>, options: EmaOptions) {
    const members = [...named];
    this.#options = decode(SCHEMA, options, 'ema');
    this.#names = members.map(([name]) => name);
    this.#tensors = members.map(([, tensor]) => tensor);
    this.#shadows = noGrad(() =>
      scope(() =>
        this.#tensors.map((tensor) =>
          keep(is16Bit(tensor.dtype) ? tensor.detach().to('float32') : tensor.detach().clone()),
        ),
      ),
    );
  }

  /** How often it was updated. */
  get updates(): number {
    return this.#updates;
  }

  get numBytes(): number {
    return this.#shadows.reduce((sum, { numel, dtype }) => sum + numel * dtypeBytes(dtype), 0);
  }

  /** Whether a step updates it. */
  isDue(step: number): boolean {
    return step % this.#options.every === 0;
  }

  /** Takes the weights in as they are now.
   *  @param masterOf the float32 master of a tensor of 16 bits, where it has one: the weight before it was rounded */
  update(masterOf: (name: string) => Tensor | undefined = () => undefined): void {
    const share = 1 - emaDecay(this.#options, this.#updates);
    noGrad(() => {
      for (const [i, shadow] of this.#shadows.entries()) {
        scope(() => {
          const weight = masterOf(this.#names[i]!) ?? this.#tensors[i]!.detach();
          lerp_(shadow, weight.dtype === shadow.dtype ? weight : weight.to(shadow.dtype), share);
        });
      }
    });
    this.#updates += 1;
  }

  /** Runs `work` with the averages in the place of the weights, rounded where the weights are; afterwards the weights are
   *  what they were, bit for bit. `work` must not change them. */
  async inPlace<T>(work: () => T | Promise<T>): Promise<T> {
    this.#exchange();
    try {
      return await work();
    } finally {
      this.#exchange();
    }
  }

  /** The averages by name, for a checkpoint: the living tensors. */
  *named(): Iterable<[string, Tensor]> {
    for (const [i, shadow] of this.#shadows.entries()) yield [this.#names[i]!, shadow];
  }

  /** Takes over what `named` gave. @param updates as it was then
   *  @throws {CheckpointError} when a tensor is missing, is another's, or has another shape; nothing is changed then */
  load(source: StateSource, updates: number): void {
    const missing = this.#names.filter((name) => !source.names.includes(name));
    const extra = source.names.filter((name) => !this.#names.includes(name));
    if (missing.length + extra.length > 0) {
      const shown = [...missing, ...extra].slice(0, 20).join(', ');
      throw otherState(
        'the weights that learn here',
        `${missing.length} missing, ${extra.length} others: ${shown}`,
      );
    }
    scope(() => {
      const stored = this.#names.map((name) => source.read(name));
      for (const [i, tensor] of stored.entries()) {
        const [found, wanted] = [tensor.shape.join(', '), this.#shadows[i]!.shape.join(', ')];
        if (found !== wanted) throw otherState(`${this.#names[i]} of shape [${wanted}]`, `[${found}]`);
      }
      noGrad(() => {
        for (const [i, tensor] of stored.entries()) this.#shadows[i]!.copy_(tensor);
      });
    });
    this.#updates = updates;
  }

  dispose(): void {
    for (const shadow of this.#shadows) shadow.dispose();
  }

  /** Weights of the averages' dtype change places with them; of others a copy is set aside. */
  #exchange(): void {
    const set = this.#set;
    const aside = new Map<Tensor, Tensor>();
    noGrad(() => {
      for (const [i, shadow] of this.#shadows.entries()) {
        scope(() => {
          const tensor = this.#tensors[i]!;
          const weight = tensor.detach();
          const own = set?.get(tensor);
          if (own) {
            weight.copy_(own);
            own.dispose();
            return;
          }
          const before = weight.clone();
          weight.copy_(shadow);
          if (weight.dtype === shadow.dtype) shadow.copy_(before);
          else aside.set(tensor, keep(before));
        });
      }
    });
    this.#set = set ? undefined : aside;
  }
}

function otherState(expected: string, received: string): CheckpointError {
  return new CheckpointError({
    where: 'average of weights',
    expected,
    received,
    remedy: 'load the state of a run with the same weights and the same freeze',
  });
}
