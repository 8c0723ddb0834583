// Frozen weights of Gemma 3n in few bits: which linear layers are quantised, in a model that has its weights.

import { ConfigError } from '../../errors.js';
import { Linear, QuantisedLinear, WEIGHT_FORMATS } from '../../nn/index.js';
import { adaptersOf } from '../../peft/index.js';
import { matcher } from '../../peft/patterns.js';
import { decode, z } from '../../schema.js';
import { modulesOf } from './adapters.js';
import type { Gemma3n } from './model.js';

const TEXT = /^model(\.language_model)?\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj$/;
const TOWER = /^model\.(audio_tower|vision_tower)\./;

const schema = z.strictObject({
  /** 'nf4' with double quantisation, or 'int8' with a scale a row. */
  weights: z.enum(WEIGHT_FORMATS),
  /** Globs over module names; by default q, k, v, o, gate, up and down of the text tower's layers. */
  targets: z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]).optional(),
});

export type QuantiseOptions = z.input<typeof schema>;

/** Quantises linear layers of a model, one at a time; their weights are freed and learn no more. Adapters come afterwards:
 *
 *      quantise(model, { weights: 'nf4' });
 *      applyAdapter(model, lora({ rank: 16 }));
 *
 *  @throws {ConfigError} for a target that matches no linear layer, or a model that has an adapter already */
export function quantise(model: Gemma3n, options: QuantiseOptions): Gemma3n {
  const { weights, targets } = decode(schema, options, 'quantise');
  if (adaptersOf(model)) {
    throw new ConfigError({
      where: 'quantise',
      expected: 'a model without adapters',
      received: 'one that has them',
      remedy: 'quantise first, then apply or load the adapter',
    });
  }
  const modules = modulesOf(model);
  const linears = [...modules].filter(([, module]) => module instanceof Linear);
  const chosen = new Set<Linear>();
  for (const test of targets === undefined ? [(name: string) => TEXT.test(name)] : [targets].flat().map(matcher)) {
    const found = linears.filter(([name]) => test(name) && (TEXT.test(name) || TOWER.test(name)));
    for (const [, module] of found) chosen.add(module as Linear);
    if (found.length === 0) {
      throw new ConfigError({
        where: `quantise: targets '${[targets ?? 'text'].flat().join("', '")}'`,
        expected: "linear layers of the text tower's layers or of the audio or image tower, each target some",
        received: 'one that matches none',
        remedy: "name modules such as '*.mlp.*_proj' or 'model.audio_tower.conformer.*'",
      });
    }
  }
  for (const parent of [...model.namedModules()].map(([, module]) => module)) {
    for (const [field, child] of Object.entries(parent) as [string, unknown][]) {
      if (!(child instanceof Linear) || !chosen.has(child) || child instanceof QuantisedLinear) continue;
      (parent as unknown as Record<string, Linear>)[field] = QuantisedLinear.of(child, weights);
    }
  }
  return model;
}
