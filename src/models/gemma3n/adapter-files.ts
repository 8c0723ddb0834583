// Adapters to and from folders in PEFT's layout: adapter_config.json and adapter_model.safetensors.

import * as fs from 'node:fs';
import { join } from 'node:path';
import {
  checkpointFault,
  engineDType,
  isObject,
  listNames,
  quote,
  readFault,
  readStrictJson,
  replaceFolder,
  SafetensorsFile,
  showShape,
  withFile,
  writeSafetensors,
  type NamedTensor,
} from '../../checkpoint/index.js';
import { CheckpointError } from '../../errors.js';
import { resolveFolder, type ResolveOptions } from '../../hub/index.js';
import { Linear } from '../../nn/index.js';
import {
  type Adapter,
  type AdapterConfig,
  Adapters,
  adapterConfigText,
  adaptersOf,
  createAdapter,
  disposeAdapter,
  parametersOf,
  readAdapterConfig,
  type SavedParameter,
  type StoredConfig,
  type Target,
} from '../../peft/index.js';
import { cat, noGrad, scope, type Tensor } from '../../tensor/index.js';
import { DEFAULT_ADAPTER, modulesOf } from './adapters.js';
import { baseOf, mayBeSame } from './base-model.js';
import { BASE_FILE, baseText, checkWeights } from './base-weights.js';
import type { Gemma3n } from './model.js';
import { checkpointName } from './names.js';
import {
  QUANTISE_FILE,
  describeQuantisation,
  quantisationOf,
  quantiseText,
  readQuantise,
} from './quantisation.js';
import { canonicalName, deadWeightShapes } from './weights.js';

export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';
const MOST_CONFIG_BYTES = 4 * 2 ** 20;
/** As PEFT wraps a model. */
const PREFIX = 'base_model.model.';

export interface LoadAdapterOptions extends Pick<ResolveOptions, 'revision' | 'offline' | 'signal'> {
  /** Whether it learns on; false by default. */
  readonly trainable?: boolean;
  /** Under which the model has it; 'default' by default. */
  readonly name?: string;
}

/** Loads an adapter of PEFT or `saveAdapter` from a folder or a repository of the Hub, and makes it the active one. What the
 *  model holds is frozen.
 *  @throws {CheckpointError} naming what does not fit this model: modules that it lacks, other shapes, an unknown kind, other
 *    weights than the adapter was trained with; the model is unchanged then
 *  @throws {ConfigError} for a faulty key of adapter_config.json, or a name that is taken
 *  @throws {HubError} when a repository cannot be downloaded */
export async function loadAdapter(
  model: Gemma3n,
  dirOrRepo: string,
  { trainable = false, name = DEFAULT_ADAPTER, ...where }: LoadAdapterOptions = {},
): Promise<Gemma3n> {
  const folder = await resolveFolder(dirOrRepo, { ...where, kind: 'adapter' });
  const stored = readStored(folder);
  adaptersOf(model)?.refuseTaken(name);
  const file = openAdapter(folder);
  try {
    const plan = planAdapter(model, file, stored, folder);
    const isSameBase = checkWeights(model, folder);
    warnOfDead(plan.dead, file.path);
    if (!isSameBase) warnOfOtherBase(model, stored, folder);
    const adapters = Adapters.of(model);
    adapters.refuseTaken(name);
    const before = adapters.active;
    adapters.disable();
    const made = createAdapter(plan.targets, plan.saved, { name, config: configOf(stored), trainable });
    try {
      fill(made, file, plan.storedAs, stored.isPissa);
    } catch (error) {
      disposeAdapter(made);
      adapters.activate(before);
      throw error;
    }
    adapters.add(made);
    return model;
  } finally {
    file.close();
  }
}

/** Fills an adapter that a model has already with the tensors of a folder: of the same declaration, 'pissa' included.
 *  @throws {CheckpointError} when they are not those of this adapter */
export function refillAdapter(model: Gemma3n, folder: string, name = DEFAULT_ADAPTER): void {
  const stored = readStored(folder);
  refuseOtherQuantisation(model, folder);
  const adapter = Adapters.of(model).get(name);
  using file = openAdapter(folder);
  const { storedAs } = planAdapter(model, file, stored, folder);
  checkWeights(model, folder);
  const wanted = new Map(Array.from(writtenTensors(adapter), ([tensor, { shape }]) => [tensor, shape]));
  const unlike = [...wanted].filter(([tensor, shape]) => {
    const found = storedAs.get(tensor);
    return found === undefined || file.entry(found).shape.join() !== shape.join();
  });
  const extra = [...storedAs.keys()].filter((tensor) => !wanted.has(tensor));
  if (unlike.length + extra.length > 0) {
    throw checkpointFault(file.path, undefined, {
      expected: 'the adapter that is declared, of the same kind, targets and ranks',
      received: `one that differs in ${listNames([...unlike.map(([tensor]) => tensor), ...extra])}`,
      remedy: 'change model.adapter back, or leave out --resume to start anew',
    });
  }
  fill(adapter, file, storedAs, false);
}

/** What an adapter computes is the same only over the same numbers. */
function refuseOtherQuantisation(model: Gemma3n, folder: string): void {
  const [here, there] = [quantisationOf(model), readQuantise(folder)].map(describeQuantisation);
  if (here === there) return;
  throw new CheckpointError({
    where: folder,
    expected: `the quantisation that is declared: ${here}`,
    received: `an adapter that learnt over another: ${there}`,
    remedy: 'change model.quantise back, or leave out --resume to start anew',
  });
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Writes an adapter into a folder, for PEFT or `loadAdapter`, whole or not at all. Other files of the folder are kept. One
 *  that began as 'pissa' becomes a plain one of twice the rank, which fits the base as it is.
 *  @throws {ConfigError} when the model has no adapter of that name
 *  @throws {CheckpointError} when the disk is full or the folder cannot be written */
export async function saveAdapter(
  model: Gemma3n,
  folder: string,
  { name }: { readonly name?: string } = {},
): Promise<void> {
  const { files, weights, made } = adapterFiles(model, name);
  try {
    await replaceFolder(
      folder,
      async (beside) => {
        for (const [file, bytes] of files)
          await withFile(join(beside, file), (handle) => handle.writeFile(bytes));
        await writeSafetensors(join(beside, ADAPTER_WEIGHTS), weights);
      },
      { isStale: isAdapterFile, last: ADAPTER_CONFIG },
    );
  } finally {
    for (const tensor of made) tensor.dispose();
  }
}

/** What an adapter's folder is written from: the living tensors, and some that were made for it.
 *  @param name by default the active adapter's, else the only one's */
export function adapterFiles(
  model: Gemma3n,
  name?: string,
): { files: Map<string, Uint8Array>; weights: NamedTensor[]; made: Tensor[] } {
  const adapters = Adapters.of(model);
  const adapter = adapters.get(name ?? adapters.active[0] ?? adapters.names[0] ?? DEFAULT_ADAPTER);
  const beside = [
    [BASE_FILE, baseText(model)],
    [QUANTISE_FILE, quantiseText(model)],
  ] as const;
  const living = new Set<Tensor>([
    ...[...adapter.layers.values()].flatMap((layer) => layer.tensors),
    ...adapter.saved.map(({ copy }) => copy),
  ]);
  const weights = Array.from(writtenTensors(adapter), ([tensor, value]): NamedTensor => [
    PREFIX + tensor,
    value,
  ]);
  return {
    files: new Map([
      [ADAPTER_CONFIG, encode(adapterConfigText(adapter, baseOf(model)))],
      ...beside.flatMap(([file, text]) => (text === undefined ? [] : [[file, encode(text)] as const])),
    ]),
    weights,
    made: weights.map(([, tensor]) => tensor).filter((tensor) => !living.has(tensor)),
  };
}

/** Files that only belong to an adapter that is being replaced. */
export function isAdapterFile(name: string): boolean {
  return (
    [ADAPTER_CONFIG, BASE_FILE, QUANTISE_FILE].includes(name) ||
    /^adapter_model\.(safetensors|bin)$/.test(name)
  );
}

/** Reads and checks a folder's adapter_config.json. */
export function readStored(folder: string): StoredConfig {
  const path = join(folder, ADAPTER_CONFIG);
  const what = "an adapter's configuration in JSON";
  const json = readStrictJson(path, what, MOST_CONFIG_BYTES);
  if (!isObject(json)) throw readFault(path, what, new Error('no object'));
  return readAdapterConfig(json, path);
}

/** An adapter's weights. @throws {CheckpointError} when there are none in safetensors */
export function openAdapter(folder: string): SafetensorsFile {
  const path = join(folder, ADAPTER_WEIGHTS);
  try {
    return new SafetensorsFile(path);
  } catch (cause) {
    const pickled = join(folder, 'adapter_model.bin');
    if (!fs.existsSync(path) && fs.existsSync(pickled)) {
      throw new CheckpointError({
        where: pickled,
        expected: `an adapter's weights in safetensors, ${ADAPTER_WEIGHTS}`,
        received: 'a pickle, which can run code when it is read, and is not read',
        remedy: 'load it in PEFT if you trust it, and save it again: save_pretrained writes safetensors',
      });
    }
    throw readFault(path, "an adapter's weights in safetensors", cause);
  }
}

/** What a file holds of one module. */
interface StoredParts {
  /** Its name there: the configuration's patterns are of it. */
  readonly module: string;
  /** Tensors by 'lora_A' and so on. */
  readonly tensors: Map<string, string>;
}

interface AdapterPlan {
  readonly targets: readonly Target[];
  readonly saved: readonly Omit<SavedParameter, 'copy'>[];
  /** Tensors by this model's names. */
  readonly storedAs: ReadonlyMap<string, string>;
  readonly dead: readonly string[];
}

const PART = /^(.+)\.(lora_A|lora_B)\.weight$|^(.+)\.(lora_magnitude_vector)(?:\.weight)?$/;

/** Matches what is stored with the model, all of it, before anything is changed. */
function planAdapter(
  model: Gemma3n,
  file: SafetensorsFile,
  stored: StoredConfig,
  folder: string,
): AdapterPlan {
  const { kind } = model.config;
  const modules = modulesOf(model);
  const deadModules = new Set(
    Array.from(deadWeightShapes(model.config).keys(), (name) => name.slice(0, name.lastIndexOf('.'))),
  );
  const own = parametersOf([['', model]], checkpointName).map((one) => ({ ...one, name: one.name.slice(1) }));
  const parameters = new Map(own.map((one) => [one.name, one]));
  const parts = new Map<string, StoredParts>();
  const storedAs = new Map<string, string>();
  const saved: Omit<SavedParameter, 'copy'>[] = [];
  const dead: string[] = [];
  const unknown: string[] = [];
  for (const name of file.names) {
    if (!name.startsWith(PREFIX)) {
      unknown.push(name);
      continue;
    }
    const inner = name.slice(PREFIX.length);
    const match = PART.exec(inner);
    const module = match && canonicalName(match[1] ?? match[3] ?? '', kind);
    if (module === null) {
      const parameter = parameters.get(canonicalName(inner, kind));
      if (parameter) {
        saved.push(parameter);
        storedAs.set(parameter.name, name);
      } else unknown.push(name);
    } else if (deadModules.has(module)) dead.push(name);
    else if (!(modules.get(module) instanceof Linear) || module === 'lm_head') unknown.push(name);
    else {
      const part = match![2] ?? match![4] ?? '';
      const found = parts.get(module) ?? { module: match![1] ?? match![3] ?? '', tensors: new Map() };
      found.tensors.set(part, name);
      parts.set(module, found);
      storedAs.set(`${module}.${part}${part === 'lora_magnitude_vector' ? '' : '.weight'}`, name);
    }
  }
  const heads = unknown.filter((name) => /\.lm_head\.(?:weight|bias)$/.test(name));
  if (heads.length > 0 && !model.lmHead) throw looseHead(file, heads);
  if (unknown.length > 0) throw unknownModules(file, unknown, stored, folder);
  if (parts.size + saved.length === 0) {
    throw checkpointFault(file.path, undefined, {
      expected: "an adapter's tensors",
      received: 'none',
      remedy: 'save it again',
    });
  }
  const targets = Array.from(parts, ([module, found]) =>
    targetOf(module, modules.get(module) as Linear, found, file, stored),
  );
  for (const { name, original } of saved) {
    refuseShape(file, storedAs.get(name)!, original.shape, stored);
  }
  for (const name of storedAs.values()) refuseNoFloat(file, name);
  return { targets, saved, storedAs, dead };
}

function targetOf(
  module: string,
  linear: Linear,
  { module: storedName, tensors: parts }: StoredParts,
  file: SafetensorsFile,
  stored: StoredConfig,
): Target {
  const wanted = ['lora_A', 'lora_B', ...(stored.kind === 'dora' ? ['lora_magnitude_vector'] : [])];
  const missing = wanted.filter((part) => !parts.has(part));
  const extra = [...parts.keys()].filter((part) => !wanted.includes(part));
  if (missing.length + extra.length > 0) {
    throw checkpointFault(file.path, undefined, {
      expected: `${wanted.join(', ')} of ${module}, as ${ADAPTER_CONFIG} has it`,
      received: missing.length > 0 ? `no ${missing.join(', ')}` : `also ${extra.join(', ')}`,
      remedy: 'use the configuration that belongs to these weights, or save the adapter again',
    });
  }
  const rank = stored.rankOf(storedName);
  const { inFeatures, outFeatures } = linear;
  refuseShape(file, parts.get('lora_A')!, [rank, inFeatures], stored);
  refuseShape(file, parts.get('lora_B')!, [outFeatures, rank], stored);
  if (stored.kind === 'dora') refuseShape(file, parts.get('lora_magnitude_vector')!, [outFeatures], stored);
  return { name: module, linear, rank, alpha: stored.alphaOf(storedName) };
}

function fill(
  { layers, saved }: Adapter,
  file: SafetensorsFile,
  storedAs: ReadonlyMap<string, string>,
  isPissa: boolean,
): void {
  const into = (name: string, target: Tensor): void => file.copyInto(storedAs.get(name)!, target);
  for (const [module, layer] of layers) {
    if (layer.magnitude) into(`${module}.lora_magnitude_vector`, layer.magnitude);
    if (layer.start) {
      halves(file.read(storedAs.get(`${module}.lora_A.weight`)!), 0, layer.a, layer.start.a, 1);
      halves(file.read(storedAs.get(`${module}.lora_B.weight`)!), 1, layer.b, layer.start.b, -1);
    } else {
      into(`${module}.lora_A.weight`, layer.a);
      into(`${module}.lora_B.weight`, layer.b);
      if (isPissa) layer.start = layer.principalParts();
    }
    layer.forget();
  }
  for (const { name, copy } of saved) into(name, copy);
}

/** Takes apart what `writtenTensors` put together. */
function halves(stored: Tensor, dim: number, first: Tensor, second: Tensor, sign: number): void {
  noGrad(() =>
    scope(() => {
      const size = first.shape[dim] ?? 0;
      first.copy_(stored.narrow(dim, 0, size));
      second.copy_(stored.narrow(dim, size, size).mul(sign));
    }),
  );
  stored.dispose();
}

/** By PEFT's names, without its prefix. A tensor that is none of the adapter's own is made here. */
function* writtenTensors({ layers, saved }: Adapter): Iterable<[string, Tensor]> {
  for (const [module, layer] of layers) {
    const { a, b } = layer.start ? noGrad(() => joined(layer.a, layer.b, layer.start!)) : layer;
    yield [`${module}.lora_A.weight`, a];
    yield [`${module}.lora_B.weight`, b];
    if (layer.magnitude) yield [`${module}.lora_magnitude_vector`, layer.magnitude];
  }
  for (const { name, copy } of saved) yield [name, copy];
}

function joined(a: Tensor, b: Tensor, start: { a: Tensor; b: Tensor }): { a: Tensor; b: Tensor } {
  return scope(() => ({ a: cat([a.detach(), start.a], 0), b: cat([b.detach(), start.b.neg()], 1) }));
}

function configOf({ kind, rank, alpha, dropout, rsLora }: StoredConfig): AdapterConfig {
  return { kind, rank, alpha, dropout, rsLora, rankPattern: {}, alphaPattern: {}, init: 'kaiming' };
}

function of({ base }: StoredConfig): string {
  return base === undefined ? '' : `; the adapter was made for ${quote(base)}`;
}

/** As PEFT saves it: the head learnt by itself, and the embedding stayed. */
function looseHead(file: SafetensorsFile, heads: readonly string[]): Error {
  return checkpointFault(file.path, undefined, {
    expected: 'an output head that is the token embedding, as in this model (tie_word_embeddings)',
    received: `${listNames(heads)}, a head of its own`,
    remedy: 'train the adapter with modules_to_save ["embed_tokens"], or with none',
  });
}

function unknownModules(
  file: SafetensorsFile,
  unknown: readonly string[],
  stored: StoredConfig,
  folder: string,
): Error {
  return checkpointFault(file.path, undefined, {
    expected: 'tensors for modules of this model that can be adapted',
    received: `unknown ${listNames(unknown)}${of(stored)}`,
    remedy: `load ${folder} into the model that it was made for`,
  });
}

function refuseShape(
  file: SafetensorsFile,
  name: string,
  shape: readonly number[],
  stored: StoredConfig,
): void {
  const found = file.entry(name).shape;
  if (found.join() === shape.join()) return;
  throw checkpointFault(file.path, name, {
    expected: `shape ${showShape(shape)}, by this model and ${ADAPTER_CONFIG}`,
    received: `${showShape(found)}${of(stored)}`,
    remedy: 'load the adapter into the model that it was made for',
  });
}

function refuseNoFloat(file: SafetensorsFile, name: string): void {
  const { dtype } = file.entry(name);
  if (engineDType(dtype)?.includes('float')) return;
  throw checkpointFault(file.path, name, {
    expected: 'floating-point weights: F32, BF16, F16 or F64',
    received: dtype,
    remedy: 'save the adapter in one of them',
  });
}

/** Keys and values of layers that share another layer's: nothing reads them. */
function warnOfDead(dead: readonly string[], path: string): void {
  if (dead.length === 0) return;
  process.emitWarning(
    `${path}: left out ${listNames(dead)}: of layers that use the keys and values of another layer, where they do nothing`,
  );
}

function warnOfOtherBase(model: Gemma3n, { base }: StoredConfig, folder: string): void {
  const here = baseOf(model);
  if (base === undefined || !here || mayBeSame(base, here.path)) return;
  process.emitWarning(
    `${folder}: the adapter was made for ${quote(base)}, and the model is ${quote(here.path)}: the shapes are the same, ` +
      'but it computes what it was trained to compute with that one only',
  );
}
