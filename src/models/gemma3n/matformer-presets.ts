// Google's published ways to slice Gemma 3n E4B, the Mix-n-Match models of its MatFormer Lab: which layers stay, and in
// which of them the feed-forward keeps its whole width instead of half. Source: the data set
// google/gemma3n-slicing-configs (names, layers and widths; its sizes in billions of effective parameters are rounded,
// the exact ones lie within 0.02 of them).

import { ConfigError } from '../../errors.js';
import type { TextConfig } from './config.js';

interface Preset {
  /** Layers left out. */
  readonly skipped?: readonly number[];
  /** Layers of the whole model whose feed-forward stays whole; the others keep the first half of their units. */
  readonly whole: readonly number[];
}

/** Layers of the model that the presets slice. */
const NUM_LAYERS = 35;
const SKIPPED = range(20, 24);

/** By the name on the command line. `-block` marks those that vary by blocks of four local layers and a global one,
 *  where a layer-wise one has the same size. */
const PRESETS = {
  e2b: { skipped: SKIPPED, whole: [] },
  'e1.96b': { skipped: SKIPPED, whole: [4] },
  'e2.54b': { whole: [4, ...range(20, 24)] },
  'e2.69b': { whole: [4, 9, 14, ...range(19, 24)] },
  'e2.98b': { whole: [...range(15, 24), ...range(30, 34)] },
  'e3.18b': { whole: [4, ...range(9, 24), 29, 34] },
  'e3.39b': { whole: [4, ...range(9, 29), 34] },
  'e3.59b': { whole: [...range(4, 29), 34] },
  'e3.79b': { whole: range(4, 34) },
  'e2.49b-block': { whole: range(20, 24) },
  'e2.73b-block': { whole: range(15, 24) },
  'e2.98b-block': { whole: range(10, 24) },
  'e3.24b-block': { whole: range(10, 29) },
  'e3.49b-block': { whole: range(5, 29) },
  'e3.79b-block': { whole: range(5, 34) },
} as const satisfies Record<string, Preset>;

export type MatFormerPreset = keyof typeof PRESETS;

export const MATFORMER_PRESETS = Object.keys(PRESETS) as readonly MatFormerPreset[];

/** What a preset keeps of a model with E4B's layers.
 *  @throws {ConfigError} when the model has other layers, or widths that cannot be halved */
export function presetSlice(
  name: MatFormerPreset,
  text: TextConfig,
): { layers: number[]; intermediateSizes: number[] } {
  const { skipped = [], whole }: Preset = PRESETS[name];
  if (text.numHiddenLayers !== NUM_LAYERS) {
    throw new ConfigError({
      where: `preset ${name}`,
      expected: `a model of ${NUM_LAYERS} layers, as Gemma 3n E4B`,
      received: `${text.numHiddenLayers} layers`,
      remedy: 'slice an E4B checkpoint, or name layers and widths yourself',
    });
  }
  const layers = range(0, NUM_LAYERS - 1).filter((layer) => !skipped.includes(layer));
  const intermediateSizes = layers.map((layer) => {
    const width = text.intermediateSize[layer] ?? 0;
    if (whole.includes(layer)) return width;
    if (width % 2 === 0) return width / 2;
    throw new ConfigError({
      where: `preset ${name}: layer ${layer}`,
      expected: 'an even feed-forward width, to be halved',
      received: String(width),
      remedy: 'name the widths yourself',
    });
  });
  return { layers, intermediateSizes };
}

/** Both ends included. */
function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
