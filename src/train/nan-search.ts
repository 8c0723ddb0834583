// Where a forward pass first gives a number that is not finite: the batch is computed again with every module looked at as
// it returns, so that the innermost module that is to blame is the first one found.

import type { LabelledInputs } from '../models/gemma3n/causal-lm.js';
import type { Gemma3n } from '../models/gemma3n/index.js';
import { checkpointName } from '../models/gemma3n/names.js';
import { Module } from '../nn/index.js';
import { Tensor, noGrad, op, scope } from '../tensor/index.js';

/** The first that is not finite, by Hugging Face's names. */
export type NotFinite =
  /** Some weights are not, and the first module that is not finite reads none of them by itself. */
  | { readonly kind: 'weights'; readonly names: readonly string[] }
  | { readonly kind: 'input'; readonly name: string }
  | {
      readonly kind: 'module';
      readonly name: string;
      /** Of its class. */
      readonly type: string;
      /** Largest magnitude among its inputs, which are finite; undefined where they are not all tensors. */
      readonly largestInput: number | undefined;
      /** Its own and those below it that are not finite. */
      readonly weights: readonly string[];
    }
  /** All modules are finite. */
  | { readonly kind: 'loss' }
  /** The loss is finite this time. */
  | { readonly kind: 'nothing' };

type Found = Extract<NotFinite, { kind: 'module' }>;

const isFinite = op('aten::isfinite');
const all = op('aten::all');
const vectorNorm = op('aten::linalg_vector_norm');

/** Computes the loss of a batch again, without gradients, and looks for the first value that is not finite. It takes about
 *  a forward pass and a look at every activation. */
export function findNotFinite(model: Gemma3n, inputs: LabelledInputs): NotFinite {
  return noGrad(() =>
    scope((): NotFinite => {
      for (const [name, tensor] of Object.entries(inputs) as [string, Tensor | undefined][]) {
        if (tensor && !isAllFinite(tensor)) return { kind: 'input', name };
      }
      const found = watched(model, () => model.lossSum(inputs).loss.item());
      if (found.module) return found.module;
      const names = notFiniteWeights(model.namedParameters());
      if (names.length > 0 && !Number.isFinite(found.result)) return { kind: 'weights', names };
      return { kind: Number.isFinite(found.result) ? 'nothing' : 'loss' };
    }),
  );
}

/** Runs `work` while every public method of every module below the model is looked at. */
function watched(model: Gemma3n, work: () => number): { module: Found | undefined; result: number } {
  let module: Found | undefined;
  const look = (path: string, each: Module, own: Call, args: readonly unknown[]): unknown => {
    const result = own(args);
    if (!module && !areFinite(result)) module = describe(model, path, each, args);
    return result;
  };
  try {
    return { result: aroundCalls(model, look, work), module };
  } catch (error) {
    // a module may refuse what is not finite: it has been found by then
    if (module) return { result: NaN, module };
    throw error;
  }
}

type Call = (args: readonly unknown[]) => unknown;

/** Runs `work` with `around` in place of every public method of every module below the model.
 *  @param around gets a module's path, the module, and what its method does; it gives what the call gives */
export function aroundCalls<T>(
  model: Gemma3n,
  around: (path: string, module: Module, own: Call, args: readonly unknown[]) => unknown,
  work: () => T,
): T {
  const undo: (() => void)[] = [];
  for (const [path, each] of model.namedModules()) {
    if (path === '') continue;
    for (const method of methodsOf(each)) {
      const own = Reflect.get(each, method) as (...args: unknown[]) => unknown;
      const value = (...args: unknown[]): unknown =>
        around(path, each, (given) => own.apply(each, [...given]), args);
      Object.defineProperty(each, method, { value, configurable: true, enumerable: false });
      undo.push(() => void Reflect.deleteProperty(each, method));
    }
  }
  try {
    return work();
  } finally {
    for (const each of undo) each();
  }
}

function describe(model: Gemma3n, path: string, module: Module, args: readonly unknown[]): Found {
  const tensors = args.filter((arg) => arg instanceof Tensor);
  const sizes = tensors.map((tensor) => vectorNorm(tensor.to('float32'), Infinity).item());
  const own = new Set(Array.from(module.namedParameters(), ([, tensor]) => tensor));
  const name = checkpointName(path);
  const parameters = [...model.namedParameters()].filter(
    ([full, tensor]) => own.has(tensor) || full.startsWith(`${name}.`),
  );
  return {
    kind: 'module',
    name,
    type: module.constructor.name,
    largestInput: sizes.length > 0 && sizes.every(Number.isFinite) ? Math.max(...sizes) : undefined,
    weights: notFiniteWeights(parameters),
  };
}

/** Methods of a module's own classes, those that every module has excepted. */
function methodsOf(module: Module): string[] {
  const names = new Set<string>();
  for (
    let type: object | null = Object.getPrototypeOf(module) as object;
    type && type !== Module.prototype;
  ) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(type))) {
      const isPlain = typeof value === 'function' && name !== 'constructor' && !(name in Module.prototype);
      if (isPlain && !Object.hasOwn(module, name)) names.add(name);
    }
    type = Object.getPrototypeOf(type) as object | null;
  }
  return [...names];
}

/** Of tensors, and of arrays and plain objects of them; anything else counts as finite. */
function areFinite(value: unknown): boolean {
  if (value instanceof Tensor) return isAllFinite(value);
  if (Array.isArray(value)) return value.every(areFinite);
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) {
    return true;
  }
  return Object.values(value).every(areFinite);
}

export function isAllFinite(tensor: Tensor): boolean {
  // a quantised weight has no numbers; its codes stand for finite ones
  if (!/float/.test(tensor.dtype) || tensor.device === 'meta') return true;
  return scope(() => all(isFinite(tensor)).item() !== 0);
}

function notFiniteWeights(parameters: Iterable<[string, Tensor]>): string[] {
  return Array.from(parameters)
    .filter(([, tensor]) => !isAllFinite(tensor))
    .map(([name]) => name);
}
