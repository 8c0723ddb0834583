// Module: a tree of parameters, buffers and child modules, named by the fields that hold them.

import { type Tensor, keep } from '../tensor/index.js';

const kinds = new WeakMap<Tensor, 'parameter' | 'buffer'>();

/** Marks a tensor as a parameter: kept from scopes, it requires a gradient unless told otherwise. */
export function parameter(tensor: Tensor, options: { requiresGrad?: boolean } = {}): Tensor {
  kinds.set(keep(tensor), 'parameter');
  tensor.requiresGrad = options.requiresGrad ?? true;
  return tensor;
}

/** Marks a tensor as a buffer: part of the module's state, but nothing that learns. */
export function buffer(tensor: Tensor): Tensor {
  kinds.set(keep(tensor), 'buffer');
  return tensor;
}

/** Fields that hold a `parameter`, a `buffer`, a Module or an array of Modules are the tree, in order of definition.
 *  A name is the path of fields: `layers.3.selfAttn.qProj.weight`. */
export abstract class Module {
  training = true;

  /** This module and all below it, each with its path ('' for itself). */
  *namedModules(prefix = ''): Generator<[string, Module]> {
    yield [prefix, this];
    for (const [name, child] of children(this)) yield* child.namedModules(join(prefix, name));
  }

  /** Parameters by path, each tensor once. */
  *namedParameters(): Iterable<[string, Tensor]> {
    yield* this.tensorsOf('parameter');
  }

  /** Buffers by path. */
  *namedBuffers(): Iterable<[string, Tensor]> {
    yield* this.tensorsOf('buffer');
  }

  /** Switches to training behaviour (dropout); returns itself. */
  train(mode = true): this {
    for (const [, module] of this.namedModules()) module.training = mode;
    return this;
  }

  /** Switches to inference behaviour. */
  eval(): this {
    return this.train(false);
  }

  /** Frees every parameter and buffer. */
  dispose(): void {
    for (const kind of ['parameter', 'buffer'] as const) {
      for (const [, tensor] of this.tensorsOf(kind)) tensor.dispose();
    }
  }

  private *tensorsOf(kind: 'parameter' | 'buffer'): Generator<[string, Tensor]> {
    const seen = new Set<unknown>();
    for (const [path, module] of this.namedModules()) {
      for (const [name, value] of Object.entries(module)) {
        if (kinds.get(value as Tensor) === kind && !seen.has(value)) {
          seen.add(value);
          yield [join(path, name), value as Tensor];
        }
      }
    }
  }
}

function* children(module: Module): Generator<[string, Module]> {
  for (const [name, value] of Object.entries(module)) yield* modulesIn(name, value);
}

function* modulesIn(name: string, value: unknown): Generator<[string, Module]> {
  if (value instanceof Module) yield [name, value];
  else if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) yield* modulesIn(`${name}.${i}`, value[i]);
  }
}

function join(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}.${name}`;
}
