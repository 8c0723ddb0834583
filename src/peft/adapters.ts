// The adapters of a model: several by name, of which some are active. Linear modules ask their own adapter for what they
// compute; modules that learn whole have their parameters exchanged for the active adapter's copies.

import { ConfigError } from '../errors.js';
import { type Linear, type LinearAdapter, type Module, parameter } from '../nn/index.js';
import { type Tensor, noGrad, scope } from '../tensor/index.js';
import type { AdapterConfig } from './config.js';
import { LoraLayer } from './lora-layer.js';
import type { Target } from './targets.js';

/** One adapter: its parts by the modules' names. */
export interface Adapter {
  readonly name: string;
  readonly config: AdapterConfig;
  readonly layers: ReadonlyMap<string, LoraLayer>;
  readonly saved: readonly SavedParameter[];
  readonly trainable: boolean;
}

/** A parameter of a module that learns whole. */
export interface SavedParameter {
  /** As the model names it. */
  readonly name: string;
  readonly module: Module;
  readonly field: string;
  readonly original: Tensor;
  readonly copy: Tensor;
}

const ofModels = new WeakMap<Module, Adapters>();
const originals = new WeakMap<Tensor, Tensor>();

/** The adapters of a model, if it has any. */
export function adaptersOf(model: Module): Adapters | undefined {
  return ofModels.get(model);
}

/** The parameter that an adapter's copy is of; any other is its own. */
export function originalOf(tensor: Tensor): Tensor {
  return originals.get(tensor) ?? tensor;
}

/** Makes the parts of an adapter: its layers are uninitialised, its copies are what they are copies of. */
export function createAdapter(
  targets: readonly Target[],
  saved: Iterable<Omit<SavedParameter, 'copy'>>,
  given: Omit<Adapter, 'layers' | 'saved'>,
): Adapter {
  const { kind, rsLora, dropout } = given.config;
  const layers = targets.map(({ name, linear, rank, alpha }) => {
    const options = { rank, alpha, rsLora, dropout, hasMagnitude: kind === 'dora' };
    return [name, new LoraLayer(linear, options)] as const;
  });
  const kept = [...saved];
  for (const { name, module } of kept) refuseQuantised(given.config.kind, name, module);
  const copies = kept.map((one) => ({ ...one, copy: parameter(copyOf(one.original)) }));
  return { ...given, layers: new Map(layers), saved: copies };
}

/** All parameters of modules that learn whole.
 *  @param nameOf as users know it, from a path of fields */
export function parametersOf(
  modules: Iterable<readonly [name: string, module: Module]>,
  nameOf: (path: string) => string,
): Omit<SavedParameter, 'copy'>[] {
  return Array.from(modules).flatMap(([name, root]) => {
    const parameters = new Set<unknown>(Array.from(root.namedParameters(), ([, tensor]) => tensor));
    return [...root.namedModules()].flatMap(([path, module]) =>
      Object.entries(module).flatMap(([field, original]: [string, unknown]) => {
        if (!parameters.has(original)) return [];
        const inside = nameOf(path === '' ? field : `${path}.${field}`);
        return [{ name: `${name}.${inside}`, module, field, original: originalOf(original as Tensor) }];
      }),
    );
  });
}

/** Frees the tensors of an adapter that no model has. */
export function disposeAdapter({ layers, saved }: Adapter): void {
  for (const layer of layers.values()) layer.dispose();
  for (const { copy } of saved) copy.dispose();
}

/** What is quantised has no numbers that could learn. */
function refuseQuantised(kind: string, name: string, module: Module): void {
  if ((module as { quantised?: unknown }).quantised === undefined || !name.endsWith('.weight')) return;
  throw new ConfigError({
    where: `${kind}: modulesToSave`,
    expected: 'modules whose weights are numbers',
    received: `${name}, which is quantised`,
    remedy: 'leave it out of modulesToSave, or its part out of quantise',
  });
}

function copyOf(tensor: Tensor): Tensor {
  return noGrad(() => scope(() => tensor.detach().clone()));
}

export class Adapters {
  readonly #model: Module;
  readonly #adapters = new Map<string, Adapter>();
  #active: readonly string[] = [];
  #isEnabled = true;
  /** The weights that merged ones stand for, while they do. */
  #merged: Map<Linear, Tensor> | undefined;

  private constructor(model: Module) {
    this.#model = model;
  }

  /** Of a model; the first time, all that it has is frozen. */
  static of(model: Module): Adapters {
    const there = ofModels.get(model);
    if (there) return there;
    const adapters = new Adapters(model);
    ofModels.set(model, adapters);
    for (const [, tensor] of model.namedParameters()) tensor.requiresGrad = false;
    return adapters;
  }

  get names(): readonly string[] {
    return [...this.#adapters.keys()];
  }
  /** Those that take part in what the model computes. */
  get active(): readonly string[] {
    return this.#isEnabled ? this.#active : [];
  }
  get isMerged(): boolean {
    return this.#merged !== undefined;
  }

  /** @throws {ConfigError} when there is none of that name */
  get(name: string): Adapter {
    const adapter = this.#adapters.get(name);
    if (adapter) return adapter;
    throw new ConfigError({
      where: 'adapter',
      expected: `one of ${this.names.join(', ') || '(none)'}`,
      received: `'${name}'`,
      remedy: 'apply or load it first',
    });
  }

  /** @throws {ConfigError} when there is one of that name */
  refuseTaken(name: string): void {
    if (!/^[\w-]{1,64}$/.test(name)) {
      throw new ConfigError({
        where: 'adapter: name',
        expected: 'letters, digits, "_" and "-"',
        received: JSON.stringify(name.slice(0, 80)),
        remedy: 'choose another',
      });
    }
    if (!this.#adapters.has(name)) return;
    throw new ConfigError({
      where: `adapter '${name}'`,
      expected: 'a name that is free',
      received: 'one that the model has an adapter of',
      remedy: 'give it another name, or remove that one first',
    });
  }

  /** Adds an adapter and makes it the active one. */
  add(adapter: Adapter): void {
    this.refuseTaken(adapter.name);
    this.#adapters.set(adapter.name, adapter);
    this.activate([adapter.name]);
  }

  /** Frees an adapter. Where it was the active one, none is. */
  remove(name: string): void {
    const adapter = this.get(name);
    this.activate(this.#active.filter((other) => other !== name));
    this.#adapters.delete(name);
    disposeAdapter(adapter);
  }

  /** Which adapters take part, their updates added in this order; those alone learn.
   *  @throws {ConfigError} for one that is not there or named twice, or two that both hold a whole module */
  activate(names: readonly string[]): void {
    const chosen = names.map((name) => this.get(name));
    const double = names.find((name, i) => names.indexOf(name) !== i);
    if (double !== undefined) {
      throw new ConfigError({
        where: `adapters ${names.join(', ')}`,
        expected: 'each adapter once',
        received: `'${double}' twice`,
        remedy: 'name it once: its update would count twice',
      });
    }
    const held = chosen.flatMap(({ saved }) => saved.map(({ name }) => name));
    const twice = held.find((name, i) => held.indexOf(name) !== i);
    if (twice !== undefined) {
      throw new ConfigError({
        where: `adapters ${names.join(', ')}`,
        expected: 'a module that learns whole in one of them',
        received: `${twice} in two`,
        remedy: 'activate one of them',
      });
    }
    this.unmerge();
    this.#isEnabled = true;
    this.#active = [...names];
    this.#arrange();
  }

  /** The model as it is without adapters, until they are enabled, or others activated. */
  disable(): void {
    this.unmerge();
    this.#isEnabled = false;
    this.#arrange();
  }

  enable(): void {
    this.#isEnabled = true;
    this.#arrange();
  }

  /** Puts the active adapters' updates into the weights; the weights of before are kept for `unmerge`.
   *  @throws {ConfigError} when none is active */
  merge(): void {
    if (this.#merged) return;
    if (this.active.length === 0) {
      throw new ConfigError({
        where: 'mergeAdapter',
        expected: 'an active adapter',
        received: 'none',
        remedy: 'apply, load or set one first',
      });
    }
    const weights = new Map<Linear, Tensor>();
    for (const layers of this.#layersByLinear().values()) {
      const { linear } = layers[0]!;
      const merged = layers.reduce<Tensor>((weight, layer) => {
        const next = layer.merged(weight);
        if (weight !== linear.weight) weight.dispose();
        return next;
      }, linear.weight);
      weights.set(linear, linear.weight);
      linear.adapter = undefined;
      linear.weight = parameter(merged, { requiresGrad: false });
    }
    this.#merged = weights;
  }

  /** The weights of before, to the bit. */
  unmerge(): void {
    for (const [linear, weight] of this.#merged ?? []) {
      linear.weight.dispose();
      linear.weight = weight;
    }
    this.#merged = undefined;
    this.#arrange();
  }

  /** Every adapter's tensors, by the names that PEFT gives them inside a model. */
  *namedParameters(): Iterable<[string, Tensor]> {
    for (const [name, { layers }] of this.#adapters) {
      for (const [module, { a, b, magnitude }] of layers) {
        yield [`${module}.lora_A.${name}.weight`, a];
        yield [`${module}.lora_B.${name}.weight`, b];
        if (magnitude) yield [`${module}.lora_magnitude_vector.${name}.weight`, magnitude];
      }
    }
  }

  /** The weights have been written by other than the engine's operators. */
  forgetNorms(): void {
    for (const { layers } of this.#adapters.values()) for (const layer of layers.values()) layer.forget();
  }

  dispose(): void {
    for (const name of this.names) this.remove(name);
    ofModels.delete(this.#model);
  }

  /** Gives every module what the active adapters make of it. */
  #arrange(): void {
    const active = new Set(this.active);
    for (const { name, layers, saved, trainable } of this.#adapters.values()) {
      const learns = trainable && active.has(name);
      for (const layer of layers.values()) {
        layer.linear.adapter = undefined;
        for (const tensor of layer.tensors) tensor.requiresGrad = learns;
      }
      for (const { module, field, original, copy } of saved) {
        putInto(module, field, original);
        copy.requiresGrad = learns;
      }
    }
    for (const layers of this.#layersByLinear().values()) layers[0]!.linear.adapter = new Active(layers);
    for (const name of active) {
      for (const { module, field, copy, original } of this.get(name).saved) {
        putInto(module, field, copy);
        originals.set(copy, original);
      }
    }
  }

  /** Of the active adapters, in their order. */
  #layersByLinear(): Map<Linear, LoraLayer[]> {
    const found = new Map<Linear, LoraLayer[]>();
    for (const name of this.active) {
      for (const layer of this.get(name).layers.values()) {
        found.set(layer.linear, [...(found.get(layer.linear) ?? []), layer]);
      }
    }
    return found;
  }
}

/** What active adapters make of one linear module. */
class Active implements LinearAdapter {
  constructor(readonly layers: readonly LoraLayer[]) {}

  forward(x: Tensor, linear: Linear): Tensor {
    const [first, ...others] = this.layers;
    return scope(() =>
      first!.isAtOnce(x, linear)
        ? others.reduce((result, layer) => layer.forward(x, result, linear), first!.withBase(x, linear))
        : this.layers.reduce((result, layer) => layer.forward(x, result, linear), linear.product(x)),
    );
  }

  graphOf(x: Tensor, linear: Linear): ((output: Tensor) => Tensor) | undefined {
    const [layer, ...others] = this.layers;
    return others.length === 0 ? layer?.graphWithBase(x, linear) : undefined;
  }

  /** Where each has one adapter that can be computed with its module. */
  together(x: Tensor, linears: readonly Linear[]): Tensor[] | undefined {
    const pairs: [LoraLayer, Linear][] = [];
    for (const linear of linears) {
      const { adapter } = linear;
      const [layer, ...others] = adapter instanceof Active ? adapter.layers : [];
      if (!layer || others.length > 0 || !linear.isDense || !layer.isAtOnce(x, linear)) return undefined;
      pairs.push([layer, linear]);
    }
    return LoraLayer.allWithBase(x, pairs);
  }
}

function putInto(module: Module, field: string, tensor: Tensor): void {
  (module as unknown as Record<string, Tensor>)[field] = tensor;
}
