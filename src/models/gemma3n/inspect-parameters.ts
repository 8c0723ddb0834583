// How many parameters a configuration has, a part; and what its layers are: which keys and values each attends to, how
// far it sees, how wide and how sparse its feed-forward is.

import { sharesKv, type Gemma3nConfig, type LayerType } from './config.js';
import { numElements, parameterShapes, storedDeadShapes } from './shapes.js';

/** Parts of a model, in the order in which they are shown. */
export const PARTS = [
  'text',
  'tokenEmbeddings',
  'perLayerEmbeddings',
  'outputHead',
  'vision',
  'visionProjector',
  'audio',
  'audioProjector',
] as const;
export type PartName = (typeof PARTS)[number];

export interface ParameterCounts {
  /** What a published checkpoint holds: all that computes, and the dead keys and values. */
  readonly total: number;
  /** What computes. */
  readonly live: number;
  /** Keys and values of sharing layers, which a checkpoint may hold and nothing reads. They belong to `text`. */
  readonly dead: number;
  /** As Google counts a model's size: the text tower with its dead weights, without its two embedding tables. */
  readonly effective: number;
  /** What computes without the per-layer embeddings: on the device, when those stay off it. */
  readonly resident: number;
  /** What computes, a part; 0 where a model has none of it. */
  readonly parts: Readonly<Record<PartName, number>>;
}

export interface LayerFacts {
  readonly layer: number;
  readonly attention: 'sliding' | 'full';
  /** Tokens that it sees, its own included; undefined is all. */
  readonly window: number | undefined;
  /** The layer whose keys and values it attends to: its own index, where it does not share. */
  readonly keysValuesOf: number;
  readonly intermediateSize: number;
  /** Share of the gate's units that are cut to zero. */
  readonly sparsity: number;
}

/** @throws {ConfigError} when the configuration's image tower cannot be built */
export function countParameters(config: Gemma3nConfig): ParameterCounts {
  const parts = Object.fromEntries(PARTS.map((part) => [part, 0])) as Record<PartName, number>;
  for (const [name, shape] of parameterShapes(config)) parts[partOf(name)] += numElements(shape);
  const live = Object.values(parts).reduce((sum, count) => sum + count, 0);
  const dead = [...storedDeadShapes(config).values()].reduce((sum, shape) => sum + numElements(shape), 0);
  return {
    total: live + dead,
    live,
    dead,
    effective: parts.text + dead,
    resident: live - parts.perLayerEmbeddings,
    parts,
  };
}

/** The part that a parameter of Hugging Face's name belongs to. */
export function partOf(name: string): PartName {
  if (name.startsWith('lm_head.')) return 'outputHead';
  if (name.startsWith('model.vision_tower.')) return 'vision';
  if (name.startsWith('model.embed_vision.')) return 'visionProjector';
  if (name.startsWith('model.audio_tower.')) return 'audio';
  if (name.startsWith('model.embed_audio.')) return 'audioProjector';
  if (/^model\.(language_model\.)?embed_tokens_per_layer\./.test(name)) return 'perLayerEmbeddings';
  if (/^model\.(language_model\.)?embed_tokens\./.test(name)) return 'tokenEmbeddings';
  return 'text';
}

/** The layers in order: the sharing map, windows, widths and sparsity. */
export function layerFacts({ text }: Gemma3nConfig): LayerFacts[] {
  return text.layerTypes.map((type: LayerType, layer): LayerFacts => {
    const isSliding = type === 'sliding_attention';
    return {
      layer,
      attention: isSliding ? 'sliding' : 'full',
      window: isSliding ? text.slidingWindow : undefined,
      keysValuesOf: sharesKv(text, layer) ? (text.kvSources[layer] ?? layer) : layer,
      intermediateSize: text.intermediateSize[layer] ?? 0,
      sparsity: text.activationSparsityPattern[layer] ?? 0,
    };
  });
}
