// Frozen weights of Gemma 3n in few bits: what is quantised, and how.
//
// By default the text tower's projections (q, k, v, o, gate, up, down), which are most of what computes. Embeddings are the
// two tables and the output head, which is the token embedding's unless config.json unties it. Towers are the linear layers
// of the audio tower and the convolutions of the image tower, depthwise ones and the stem excepted. Norms, AltUp, LAuReL and
// the per-layer projections are small, and stay as they are.

import { type TensorSource, checkpointFault } from '../../checkpoint/index.js';
import { ConfigError, messageOf } from '../../errors.js';
import { Embedding, Linear, type Module, QuantisedWeight, mappedAs } from '../../nn/index.js';
import { adaptersOf } from '../../peft/index.js';
import { decode } from '../../schema.js';
import type { Tensor } from '../../tensor/index.js';
import { modulesOf } from './adapters.js';
import { Conv2d } from './mobilenet-layers.js';
import type { Gemma3n } from './model.js';
import {
  QUANTISATION,
  type Quantisation,
  type QuantiseOptions,
  quantisationOf,
  setQuantisation,
} from './quantisation.js';

const TEXT = /^model\.(language_model\.)?layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj$/;
const EMBEDDINGS = /^(model\.(language_model\.)?embed_tokens(_per_layer)?|lm_head)$/;
const TOWERS = /^model\.(audio_tower|vision_tower)\./;
const STEM = /\.conv_stem\./;

/** Modules whose weight may be quantised. */
type Quantisable = Linear | Embedding | Conv2d;

/** Quantises weights of a model, one at a time; each is freed, and learns no more. Adapters come afterwards:
 *
 *      quantise(model, 'nf4');
 *      applyAdapter(model, lora({ rank: 16 }));
 *
 *  `fromPretrained(path, { quantise: 'nf4' })` does the same without ever holding all weights.
 *  @throws {ConfigError} for a wrong option, and for a model that has adapters or is quantised already
 *  @throws {TensorError} for weights that are not finite */
export function quantise(model: Gemma3n, how: QuantiseOptions): Gemma3n {
  const quantisation = decode(QUANTISATION, how, 'quantise');
  if (adaptersOf(model) || quantisationOf(model)) {
    throw new ConfigError({
      where: 'quantise',
      expected: 'a model without adapters whose weights are numbers',
      received: quantisationOf(model) ? 'one that is quantised already' : 'one with adapters',
      remedy: 'quantise once, and apply or load adapters afterwards',
    });
  }
  for (const module of modulesToQuantise(model, quantisation).values()) {
    const { weight } = module;
    put(module, quantisation, (first, count) => weight.detach().narrow(0, first, count));
  }
  setQuantisation(model, quantisation);
  return model;
}

/** Quantises a model that was built `withDeferred('matrices')` from a checkpoint's tensors, and gives memory to the other
 *  linear layers and convolutions.
 *  @param copies what is stored as which weight of the model
 *  @returns what is left to copy
 *  @throws {CheckpointError} for weights that are not finite */
export function quantiseStored(
  model: Gemma3n,
  source: TensorSource,
  copies: Iterable<readonly [stored: string, target: Tensor]>,
  quantisation: Quantisation,
): [stored: string, target: Tensor][] {
  const storedAs = new Map(Array.from(copies, ([stored, target]) => [target, stored] as const));
  const chosen = new Set<Module>(modulesToQuantise(model, quantisation).values());
  for (const [, module] of model.namedModules()) {
    if (!isQuantisable(module)) continue;
    const stored = storedAs.get(module.weight);
    if (stored === undefined) throw new Error('a weight that is no parameter');
    if (chosen.has(module)) {
      storedAs.delete(module.weight);
      try {
        put(module, quantisation, (first, count) => source.readRows(stored, first, count));
      } catch (cause) {
        throw checkpointFault(
          source.fileOf(stored),
          stored,
          {
            expected: 'weights that can be quantised, all finite',
            received: messageOf(cause),
            remedy: 'use another checkpoint, or leave out quantise',
          },
          cause,
        );
      }
    } else if (!(module instanceof Embedding)) {
      storedAs.delete(module.weight);
      module.allocate();
      storedAs.set(module.weight, stored);
    }
  }
  setQuantisation(model, quantisation);
  return Array.from(storedAs, ([target, stored]) => [stored, target]);
}

/** By Hugging Face's names, in the model's order. */
export function modulesToQuantise(
  model: Gemma3n,
  { embeddings, towers }: Pick<Quantisation, 'embeddings' | 'towers'>,
): Map<string, Quantisable> {
  const found = new Map<string, Quantisable>();
  for (const [name, module] of modulesOf(model)) {
    if (!isQuantisable(module)) continue;
    const isChosen =
      TEXT.test(name) ||
      (embeddings && EMBEDDINGS.test(name)) ||
      (towers && TOWERS.test(name) && !STEM.test(name) && !(module instanceof Embedding));
    if (isChosen && !(module instanceof Conv2d && module.groups > 1)) found.set(name, module);
  }
  return found;
}

function isQuantisable(module: Module): module is Quantisable {
  return module instanceof Linear || module instanceof Embedding || module instanceof Conv2d;
}

function put(
  module: Quantisable,
  quantisation: Quantisation,
  rowsOf: (first: number, count: number) => Tensor,
): void {
  const { weight, device } = module;
  const facts = { shape: weight.shape, dtype: mappedAs(weight) ?? weight.dtype, device };
  module.useQuantised(QuantisedWeight.of(facts, quantisation, rowsOf));
}
