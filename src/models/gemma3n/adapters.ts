// Adapters of Gemma 3n: which modules take them, by which names, and what users do with them.

import { ConfigError } from '../../errors.js';
import type { Module } from '../../nn/index.js';
import {
  Adapters,
  type AdapterPart,
  type SelectOptions,
  adaptersOf,
  createAdapter,
  decodeAdapter,
  parametersOf,
  select,
} from '../../peft/index.js';
import type { Gemma3n } from './model.js';
import { checkpointName } from './names.js';
import { refuseQuantised } from './quantisation.js';

/** The name of an adapter where none is given: PEFT's. */
export const DEFAULT_ADAPTER = 'default';

const PROJECTIONS = /\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj$/;

/** What targets may be called in short. */
const PARTS: SelectOptions['parts'] = {
  text: [String(new RegExp(`^model(\\.language_model)?${PROJECTIONS.source}`))],
  vision: ['/^model\\.vision_tower\\./'],
  audio: ['/^model\\.audio_tower\\./'],
  projector: ['/^model\\.embed_(vision|audio)\\./'],
};

export interface ApplyOptions {
  /** Under which others name it; 'default'. */
  readonly name?: string;
}

/** Puts a new adapter beside the weights of a model, which are frozen, and makes it the active one:
 *
 *      manualSeed(0);
 *      applyAdapter(model, lora({ rank: 16, alpha: 32 }));
 *
 *  Only the adapter's tensors, and copies of `modulesToSave`, then require a gradient. Until it has learnt, the model
 *  computes what it computed before. A is drawn from the engine's generator.
 *  @throws {ConfigError} for a wrong option, a pattern that matches nothing, or a rank larger than a matrix */
export function applyAdapter(model: Gemma3n, adapter: AdapterPart, options: ApplyOptions = {}): Gemma3n {
  const config = decodeAdapter(adapter);
  const { name = DEFAULT_ADAPTER } = options;
  const { targets, saved } = select(config, modulesOf(model), { parts: PARTS, refusal });
  const adapters = Adapters.of(model);
  adapters.refuseTaken(name);
  const before = adapters.active;
  adapters.disable();
  try {
    const made = createAdapter(targets, parametersOf(saved, checkpointName), {
      name,
      config,
      trainable: true,
    });
    for (const layer of made.layers.values()) layer.initialise(config.init);
    adapters.add(made);
  } catch (error) {
    adapters.activate(before);
    throw error;
  }
  return model;
}

/** Makes one adapter the active one, or several, whose updates add up. It alone learns. Merged ones are unmerged.
 *  @throws {ConfigError} for a name that is not there */
export function setAdapter(model: Gemma3n, names: string | readonly string[]): void {
  given(model, 'setAdapter').activate(typeof names === 'string' ? [names] : names);
}

/** The model as it is without adapters, until `enableAdapters` or `setAdapter`. */
export function disableAdapters(model: Gemma3n): void {
  adaptersOf(model)?.disable();
}

export function enableAdapters(model: Gemma3n): void {
  adaptersOf(model)?.enable();
}

/** Puts the active adapters' updates into the weights: the model then computes as fast as without, saves as a whole, and
 *  learns nothing. The weights of before stay in memory for `unmergeAdapter`.
 *  @throws {ConfigError} when no adapter is active, or the base is quantised: codes cannot hold the sum. Load the adapter's
 *    folder with `quantise: false` then, and merge into the weights that were never quantised */
export function mergeAdapter(model: Gemma3n): Gemma3n {
  const adapters = given(model, 'mergeAdapter');
  refuseQuantised(model, 'mergeAdapter', 'a base whose weights are numbers, to put the update into');
  refuseLooseHead(model, adapters);
  adapters.merge();
  return model;
}

/** The weights of before, to the bit, and the adapters beside them again. */
export function unmergeAdapter(model: Gemma3n): Gemma3n {
  adaptersOf(model)?.unmerge();
  return model;
}

/** Frees an adapter; where it was the active one, none is then. */
export function removeAdapter(model: Gemma3n, name: string = DEFAULT_ADAPTER): void {
  given(model, 'removeAdapter').remove(name);
}

/** Adapters by name, and which of them are active. */
export function adapterNames(model: Gemma3n): {
  readonly all: readonly string[];
  readonly active: readonly string[];
} {
  const adapters = adaptersOf(model);
  return { all: adapters?.names ?? [], active: adapters?.active ?? [] };
}

/** Every module below the model by Hugging Face's names. */
export function modulesOf(model: Gemma3n): Map<string, Module> {
  return new Map(
    Array.from(model.namedModules())
      .filter(([path]) => path !== '')
      .map(([path, module]) => [checkpointName(path), module]),
  );
}

/** Why a linear module cannot be adapted. */
function refusal(name: string): string | undefined {
  return name === 'lm_head'
    ? 'the output head, whose whole logits training never makes; modulesToSave lets it learn'
    : undefined;
}

function given(model: Gemma3n, where: string): Adapters {
  const adapters = adaptersOf(model);
  if (adapters && adapters.names.length > 0) return adapters;
  throw new ConfigError({
    where,
    expected: 'a model with an adapter',
    received: 'one without',
    remedy: 'apply or load one first',
  });
}

/** Where the output head is the frozen table and the input has a copy that learnt, no checkpoint can hold both. */
function refuseLooseHead(model: Gemma3n, adapters: Adapters): void {
  const tied = model.config.text.tieWordEmbeddings && model.lmHead === undefined;
  if (!tied || model.outputWeight === model.languageModel.embedTokens.weight) return;
  throw new ConfigError({
    where: 'mergeAdapter',
    expected: 'an output head that is the token embedding',
    received: `adapter '${adapters.active.join("', '")}', in which the embedding alone has learnt`,
    remedy: 'keep the adapter beside the model',
  });
}
