// What a slice of a Gemma 3n is: MatFormer's nested models (arXiv:2310.07707), by configuration alone. Layers are
// dropped, feed-forwards keep their first units; the checks are those of the sharing map: what stays must attend to the
// keys and values that it attends to today.

import { ConfigError, describeFault } from '../../errors.js';
import { decode, z } from '../../schema.js';
import { decodeConfig, sharesKv, type Gemma3nConfig, type JsonObject, type TextConfig } from './config.js';
import { MATFORMER_PRESETS, presetSlice, type MatFormerPreset } from './matformer-presets.js';

const natural = z.int().min(1);
const schema = z
  .strictObject({
    /** One of Google's Mix-n-Match models, instead of the two below. */
    preset: z.enum(MATFORMER_PRESETS as [MatFormerPreset, ...MatFormerPreset[]]).optional(),
    /** Layers that stay, in order; all by default. */
    layers: z.array(z.int().min(0)).min(1).optional(),
    /** Feed-forward width of every layer that stays, or one for all; as they are by default. */
    intermediateSizes: z.union([natural, z.array(natural)]).optional(),
  })
  .refine((slice) => Object.keys(slice).length > 0, { error: 'expected something to cut' })
  .refine(
    ({ preset, layers, intermediateSizes }) =>
      preset === undefined || (layers === undefined && intermediateSizes === undefined),
    { error: 'expected a preset, or layers and intermediateSizes of your own' },
  );

export type MatFormerSlice = z.input<typeof schema>;

export interface SlicePlan {
  /** The sliced model's configuration. */
  readonly config: Gemma3nConfig;
  /** The old index of each layer that stays. */
  readonly layers: readonly number[];
}

/** Checks a slice and makes the configuration of what stays.
 *  @throws {ConfigError} every fault of it, a line each */
export function planSlice(config: Gemma3nConfig, slice: MatFormerSlice): SlicePlan {
  const { preset, ...own } = decode(schema, slice, 'sliceMatFormer');
  const { text } = config;
  const wanted = preset === undefined ? own : presetSlice(preset, text);
  const layers = wanted.layers ?? Array.from({ length: text.numHiddenLayers }, (_, layer) => layer);
  const sizes = wanted.intermediateSizes ?? layers.map((layer) => text.intermediateSize[layer] ?? 0);
  const intermediateSizes = typeof sizes === 'number' ? layers.map(() => sizes) : sizes;

  const faults = [...layerFaults(text, layers), ...widthFaults(text, layers, intermediateSizes)];
  if (faults.length > 0) throw new ConfigError(faults.join('\n'));
  return { config: decodeConfig(slicedJson(config, layers, intermediateSizes), 'the sliced config'), layers };
}

function layerFaults(text: TextConfig, layers: readonly number[]): string[] {
  const faults: string[] = [];
  const say = (expected: string, received: string, remedy: string): void =>
    void faults.push(describeFault({ where: 'sliceMatFormer: layers', expected, received, remedy }));

  const outside = layers.find((layer) => layer >= text.numHiddenLayers);
  if (outside !== undefined) {
    say(`layers below ${text.numHiddenLayers}`, String(outside), 'count them from 0');
    return faults;
  }
  const place = layers.findIndex((layer, i) => i > 0 && layer <= (layers[i - 1] ?? 0));
  if (place > 0) {
    say('each layer once, in order', `${layers[place - 1]} before ${layers[place]}`, 'sort them');
    return faults;
  }
  for (const source of new Set(text.kvSources)) {
    if (layers.includes(source)) continue;
    const sharing = layers.filter((layer) => sharesKv(text, layer) && text.kvSources[layer] === source);
    if (sharing.length === 0) continue;
    const kind = text.layerTypes[source]?.replace('_', ' ');
    say(
      `layer ${source}, whose keys and values ${sharing.length === 1 ? 'layer' : 'layers'} ${sharing.join(', ')} share`,
      'layers without it',
      `keep ${source}, the last unshared ${kind} layer, or leave out those that share it`,
    );
  }
  return faults;
}

function widthFaults(text: TextConfig, layers: readonly number[], sizes: readonly number[]): string[] {
  const where = 'sliceMatFormer: intermediateSizes';
  if (sizes.length !== layers.length) {
    return [
      describeFault({
        where,
        expected: `${layers.length} widths, one for each layer that stays`,
        received: String(sizes.length),
        remedy: 'give one for each, or a single number for all',
      }),
    ];
  }
  return layers.flatMap((layer, i) => {
    const [size = 0, most = 0] = [sizes[i], text.intermediateSize[layer]];
    if (size <= most) return [];
    return [
      describeFault({
        where,
        expected: `at most ${most} for layer ${layer}`,
        received: String(size),
        remedy: 'a slice cannot be wider than its model',
      }),
    ];
  });
}

/** config.json of the slice: as read, with what follows from its layers. */
function slicedJson(
  { kind, raw, text }: Gemma3nConfig,
  layers: readonly number[],
  intermediateSizes: readonly number[],
): JsonObject {
  const changes = {
    num_hidden_layers: layers.length,
    intermediate_size: intermediateSizes,
    layer_types: layers.map((layer) => text.layerTypes[layer]),
    activation_sparsity_pattern: layers.map((layer) => text.activationSparsityPattern[layer]),
    num_kv_shared_layers: layers.filter((layer) => sharesKv(text, layer)).length,
  };
  if (kind === 'text') return { ...raw, ...changes };
  return { ...raw, text_config: { ...(raw['text_config'] as JsonObject | undefined), ...changes } };
}
