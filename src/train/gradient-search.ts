// Where a backward pass first gives a gradient that is not finite: a batch is computed and derived again with the gradients
// of what goes into every module and comes out of it looked at. The innermost module that gets finite ones and hands on
// others is to blame.

import type { LabelledInputs } from '../models/gemma3n/causal-lm.js';
import type { Gemma3n } from '../models/gemma3n/index.js';
import { checkpointName } from '../models/gemma3n/names.js';
import { type Module, mapTensors } from '../nn/index.js';
import { type Tensor, keep, op, scope } from '../tensor/index.js';
import { aroundCalls, isAllFinite } from './nan-search.js';

/** A module by Hugging Face's name. */
export interface GradientFault {
  readonly name: string;
  /** Of its class. */
  readonly type: string;
  /** Largest magnitude among the gradients that came to it, which are finite. */
  readonly largest: number;
}

/** A call of a module's method. Its tensors have their own gradients: what this call alone made of them. */
interface Called {
  readonly path: string;
  readonly module: Module;
  /** Its place among all beginnings and ends of calls. */
  readonly begun: number;
  readonly ended: number;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
}

const retainGrad = op('aten::retain_grad');
const alias = op('aten::alias');
const same = op('aten::positive'); // gives the very tensor, under a handle of its own
const vectorNorm = op('aten::linalg_vector_norm');

/** Derives the loss of a batch again, from no gradients: the parameters' are overwritten.
 *  @param checkpointing whether layers are computed again in the backward pass, one at a time: then no more is kept than
 *  training keeps, and what stands outside of them is not looked at
 *  @returns undefined when no module is to blame: the loss may be, or it does not happen again */
export function findGradientFault(
  model: Gemma3n,
  inputs: LabelledInputs,
  checkpointing: boolean,
): GradientFault | undefined {
  for (const [, parameter] of model.namedParameters()) parameter.grad = null;
  const calls = new Calls();
  try {
    return aroundCalls(
      model,
      (path, module, own, args) => calls.around(path, module, own, args),
      () =>
        scope(() => {
          if (!checkpointing) {
            calls.isRecording = true;
            const { loss } = model.lossSum(inputs);
            calls.isRecording = false;
            loss.backward();
            return calls.fault();
          }
          const pass = model.recomputedLoss(inputs, { checkpointing: true });
          let found: GradientFault | undefined;
          calls.isRecording = true;
          pass.backward(() => {
            found ??= calls.fault();
            calls.clear();
          });
          return found;
        }),
    );
  } finally {
    calls.clear();
  }
}

class Calls {
  isRecording = false;
  #calls: Called[] = [];
  #clock = 0;

  around(
    path: string,
    module: Module,
    own: (args: readonly unknown[]) => unknown,
    args: readonly unknown[],
  ): unknown {
    if (!this.isRecording) return own(args);
    const begun = this.#clock++;
    const inputs: Tensor[] = [];
    const given = mapTensors(args, (tensor) => {
      if (!tensor.requiresGrad) return tensor;
      const input = keep(alias(tensor));
      retainGrad(input);
      inputs.push(input);
      return input;
    });
    const result = own(given);
    const outputs: Tensor[] = [];
    mapTensors(result, (tensor) => {
      if (!tensor.requiresGrad) return tensor;
      const output = keep(same(tensor));
      retainGrad(output);
      outputs.push(output);
      return tensor;
    });
    this.#calls.push({ path, module, begun, ended: this.#clock++, inputs, outputs });
    return result;
  }

  /** Of the calls whose backward pass is done. */
  fault(): GradientFault | undefined {
    return scope(() => this.#fault());
  }

  #fault(): GradientFault | undefined {
    const reached = this.#calls.filter(({ outputs }) => !gradientsOf(outputs).every(isAllFinite));
    // weights of a module that is called again further back have their gradients from there
    const elsewhere = new Set(reached.flatMap(({ module }) => weightsOf(module)));
    const faulty = this.#calls.filter((call) => isFaulty(call, elsewhere));
    const innermost = faulty.filter(
      ({ begun, ended }) => !faulty.some((other) => other.begun > begun && other.ended < ended),
    );
    const last = innermost.at(-1); // calls are in the order of their ends: the first of the backward pass
    if (!last) return undefined;
    const sizes = gradientsOf(last.outputs).map((gradient) =>
      vectorNorm(gradient.to('float32'), Infinity).item(),
    );
    return {
      name: checkpointName(last.path),
      type: last.module.constructor.name,
      largest: Math.max(...sizes),
    };
  }

  clear(): void {
    for (const { inputs, outputs } of this.#calls) for (const each of [...inputs, ...outputs]) each.dispose();
    this.#calls = [];
  }
}

/** Whether finite gradients come to it, and others go on from it, to its inputs or its weights. */
function isFaulty({ module, inputs, outputs }: Called, elsewhere: ReadonlySet<Tensor>): boolean {
  const coming = gradientsOf(outputs);
  if (coming.length === 0 || !coming.every(isAllFinite)) return false;
  const weights = weightsOf(module).filter((weight) => !elsewhere.has(weight));
  return !gradientsOf([...inputs, ...weights]).every(isAllFinite);
}

function weightsOf(module: Module): Tensor[] {
  return Array.from(module.namedParameters(), ([, tensor]) => tensor);
}

function gradientsOf(tensors: readonly Tensor[]): Tensor[] {
  return tensors.flatMap((tensor) => tensor.grad ?? []);
}
