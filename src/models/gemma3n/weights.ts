// A checkpoint's tensors <-> a model's parameters. Names are Hugging Face's, in the layouts that transformers accepts;
// nothing is left unmatched, and nothing is loaded before everything fits.
//
// Checkpoints may hold keys and values of layers that share another layer's: dead weights, which the reference ignores.
// They are kept beside the model, never trained, and written back, so that a checkpoint comes out as it went in.

import {
  checkpointFault,
  engineDType,
  listNames,
  openWeights,
  showShape,
  type NamedTensor,
  type TensorSource,
} from '../../checkpoint/index.js';
import { adaptersOf } from '../../peft/index.js';
import { keep, noGrad, op, scope, type Tensor } from '../../tensor/index.js';
import type { Gemma3n } from './model.js';
import { type EmbeddingsPlace, placeTables, remapTables } from './mapped-embeddings.js';
import { type Quantisation, refuseQuantised } from './quantisation.js';
import { quantiseStored } from './quantise.js';
import { sharesKv, type Gemma3nConfig } from './config.js';

const deadWeights = new WeakMap<Gemma3n, Map<string, Tensor>>();
const equal = op<boolean>('aten::equal');
const HEAD_PIECE_BYTES = 16 * 2 ** 20;

/** How a model that was built `withDeferred` gets its weights. */
export interface LoadPlan {
  readonly embeddings: EmbeddingsPlace;
  /** Of a model whose linear layers and convolutions are deferred too: some are quantised as they are read. */
  readonly quantise?: Quantisation | undefined;
}

/** Copies the weights of a folder into a model, converting dtype and device on the way. Parameters never exist twice.
 *  Tables that are mapped from a file are mapped from this one instead.
 *  @param plan for a model that was built `withDeferred`
 *  @throws {CheckpointError} when a tensor is missing, unknown, of another shape or no float; the model is unchanged */
export function loadWeights(model: Gemma3n, folder: string, plan?: LoadPlan): void {
  if (!plan) refuseQuantised(model, 'loadWeights', 'a model whose weights are numbers');
  const source = openWeights(folder);
  try {
    const { copies, dead, tiedHead } = planWeights(model, source, folder);
    const table = model.languageModel.embedTokens.weight;
    const storedTable = copies.find(([, target]) => target === table)?.[0] ?? '';
    const dense = plan?.quantise ? quantiseStored(model, source, copies, plan.quantise) : copies;
    const rest = plan
      ? placeTables(model, source, dense, plan.embeddings)
      : remapTables(model, source, dense);
    for (const [stored, target] of inFileOrder(source, rest)) source.copyInto(stored, target);
    if (tiedHead !== undefined) refuseOtherHead(model, source, tiedHead, storedTable);
    const kept = new Map(dead.map(([stored, name]) => [name, keep(source.read(stored))]));
    for (const tensor of deadWeights.get(model)?.values() ?? []) tensor.dispose();
    deadWeights.set(model, kept);
    adaptersOf(model)?.forgetNorms();
  } finally {
    source.close();
  }
}

/** As the disk reads it best. */
function inFileOrder(source: TensorSource, copies: WeightPlan['copies']): WeightPlan['copies'] {
  const placed = copies.map((copy) => ({
    copy,
    file: source.fileOf(copy[0]),
    begin: source.entry(copy[0]).begin,
  }));
  placed.sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.begin - b.begin));
  return placed.map(({ copy }) => copy);
}

/** Everything that a checkpoint of this model holds, by name: its parameters, then the dead weights it came with. */
export function* namedWeights(model: Gemma3n): Iterable<NamedTensor> {
  yield* model.ownParameters();
  yield* deadWeights.get(model) ?? [];
}

/** The name under which a model of this kind knows a checkpoint's tensor. Beside its own layout, as today's reference
 *  writes it, it takes those of inner models (without "model."), of older references, which put the text model and its
 *  head below "language_model", and a text model the text tower of a multimodal one. */
export function canonicalName(stored: string, kind: Gemma3nConfig['kind']): string {
  const inner = stored.replace(/^model\./, '');
  const text = /^(?:language_model|text_model)\.(?:model\.)?(.+)$/.exec(inner)?.[1];
  const head = /^lm_head\..+$/.exec(text ?? inner)?.[0];
  if (head !== undefined) return head;
  if (text === undefined) return `model.${inner}`;
  return kind === 'text' ? `model.${text}` : `model.language_model.${text}`;
}

/** Names and shapes of the weights that sharing layers do not use. */
export function deadWeightShapes({ kind, text }: Gemma3nConfig): Map<string, readonly number[]> {
  const prefix = kind === 'text' ? 'model' : 'model.language_model';
  const { hiddenSize, numKeyValueHeads, headDim } = text;
  const size = numKeyValueHeads * headDim;
  const shapes = new Map<string, readonly number[]>();
  for (let layer = 0; layer < text.numHiddenLayers; layer++) {
    if (!sharesKv(text, layer)) continue;
    const path = `${prefix}.layers.${layer}.self_attn`;
    for (const projection of ['k_proj', 'v_proj']) {
      shapes.set(`${path}.${projection}.weight`, [size, hiddenSize]);
      shapes.set(`${path}.${projection}.bias`, [size]);
    }
    for (const norm of ['k_norm', 'v_norm']) shapes.set(`${path}.${norm}.weight`, [headDim]);
  }
  return shapes;
}

/** How a checkpoint's tensors become a model's. */
export interface WeightPlan {
  readonly copies: readonly (readonly [stored: string, target: Tensor])[];
  readonly dead: readonly (readonly [stored: string, name: string])[];
  /** A stored output head that must equal the token embeddings, since the model's are tied. */
  readonly tiedHead: string | undefined;
}

/** Matches what is stored with what the model holds; of the model, shapes suffice.
 *  @throws {CheckpointError} as `loadWeights` */
export function planWeights(model: Gemma3n, source: TensorSource, folder: string): WeightPlan {
  const { kind, text } = model.config;
  const targets = new Map(model.ownParameters());
  const dead = deadWeightShapes(model.config);
  const embeddings = embeddingsName(kind);
  const storedAs = new Map<string, string>();
  for (const stored of source.names) {
    const name = canonicalName(stored, kind);
    const other = storedAs.get(name);
    if (other !== undefined) throw twice(source, name, other, stored);
    storedAs.set(name, stored);
  }
  let tiedHead: string | undefined;
  if (text.tieWordEmbeddings && storedAs.has('lm_head.weight')) {
    const head = storedAs.get('lm_head.weight')!;
    storedAs.delete('lm_head.weight');
    if (storedAs.has(embeddings)) tiedHead = head;
    else storedAs.set(embeddings, head);
  }

  const missing = [...targets.keys()].filter((name) => !storedAs.has(name));
  const unknown = [...storedAs].filter(([name]) => !targets.has(name) && !dead.has(name));
  if (missing.length + unknown.length > 0) {
    throw unmatched(
      folder,
      missing,
      unknown.map(([, stored]) => stored),
    );
  }
  const shapes = new Map([...dead, ...[...targets].map(([name, { shape }]) => [name, shape] as const)]);
  refuseMisfits(source, folder, storedAs, shapes);
  return {
    copies: [...targets].map(([name, target]) => [storedAs.get(name)!, target]),
    dead: [...storedAs].filter(([name]) => dead.has(name)).map(([name, stored]) => [stored, name]),
    tiedHead,
  };
}

function embeddingsName(kind: Gemma3nConfig['kind']): string {
  return kind === 'text' ? 'model.embed_tokens.weight' : 'model.language_model.embed_tokens.weight';
}

/** Every stored tensor must have floats, in the shape that the configuration gives. */
function refuseMisfits(
  source: TensorSource,
  folder: string,
  storedAs: ReadonlyMap<string, string>,
  shapes: ReadonlyMap<string, readonly number[]>,
): void {
  const misfits = [...storedAs].filter(([name, stored]) => {
    const { shape } = source.entry(stored);
    return shape.join() !== shapes.get(name)!.join();
  });
  const first = misfits[0];
  if (first) {
    const [name, stored] = first;
    const others = misfits.slice(1).map(([, other]) => other);
    throw checkpointFault(source.fileOf(stored), stored, {
      expected: `shape ${showShape(shapes.get(name)!)}, as config.json has it`,
      received:
        showShape(source.entry(stored).shape) +
        (others.length > 0 ? ` (and other shapes for ${listNames(others, 'more tensor')})` : ''),
      remedy: `use the config.json that belongs to these weights, in ${folder}`,
    });
  }
  for (const stored of storedAs.values()) {
    const { dtype } = source.entry(stored);
    if (engineDType(dtype)?.includes('float')) continue;
    throw checkpointFault(source.fileOf(stored), stored, {
      expected: 'floating-point weights: F32, BF16, F16 or F64',
      received: dtype,
      remedy: 'use weights that are not quantised',
    });
  }
}

function unmatched(folder: string, missing: readonly string[], unknown: readonly string[]): Error {
  const parts = [
    ...(missing.length > 0 ? [`weights that lack ${listNames(missing)}`] : []),
    ...(unknown.length > 0 ? [`weights with unknown ${listNames(unknown)}`] : []),
  ];
  return checkpointFault(folder, undefined, {
    expected: 'the weights of the model in its config.json, each once',
    received: parts.join(', and '),
    remedy: 'use the config.json that belongs to these weights, or download or save the checkpoint again',
  });
}

function twice(source: TensorSource, name: string, one: string, other: string): Error {
  return checkpointFault(source.fileOf(other), other, {
    expected: `one tensor for ${name}`,
    received: `two: ${one} and ${other}`,
    remedy: 'remove one of them',
  });
}

/** A stored head of tied weights is a copy of the embeddings, or the checkpoint is not what its config.json says. Compared
 *  a few rows at a time: it is as large as they are. */
function refuseOtherHead(model: Gemma3n, source: TensorSource, stored: string, table: string): void {
  const { weight: embeddings, quantised } = model.languageModel.embedTokens;
  const [numRows = 0, size = 1] = embeddings.shape;
  const step = Math.max(1, Math.floor(HEAD_PIECE_BYTES / (4 * size)));
  for (let row = 0; row < numRows; row += step) {
    const count = Math.min(step, numRows - row);
    const isCopy = scope(() =>
      noGrad(() => {
        const head = source.readRows(stored, row, count).to(embeddings.dtype);
        // Quantised ones are no longer what was stored.
        if (quantised) return equal(source.readRows(table, row, count).to(embeddings.dtype), head);
        return equal(embeddings.detach().narrow(0, row, count), head.to(embeddings.device));
      }),
    );
    if (isCopy) continue;
    throw checkpointFault(source.fileOf(stored), stored, {
      expected: 'the values of the token embeddings, which config.json ties it to',
      received: 'others',
      remedy: 'set tie_word_embeddings to false in config.json to keep both',
    });
  }
}
