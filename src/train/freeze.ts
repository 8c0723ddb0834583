// `freeze` by module path: a frozen parameter gets no gradient and no optimizer state.

import { ConfigError } from '../errors.js';
import type { Tensor } from '../tensor/index.js';

/** Short names for the parts of Gemma 3n; anything else is a glob over Hugging Face's parameter names. */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  vision: ['model.vision_tower'],
  audio: ['model.audio_tower', 'model.embed_audio'],
  projector: ['model.embed_vision', 'model.embed_audio'],
  text: [
    'model.language_model',
    'lm_head',
    // of a model that has only text:
    'model.layers',
    'model.norm',
    'model.embed_tokens',
    'model.embed_tokens_per_layer',
    'model.altup_projections',
    'model.altup_unembed_projections',
    'model.per_layer_model_projection',
    'model.per_layer_projection_norm',
  ],
  embeddings: [
    'model.language_model.embed_tokens',
    'model.language_model.embed_tokens_per_layer',
    'model.embed_tokens',
    'model.embed_tokens_per_layer',
    'lm_head',
  ],
};

/** Stops every parameter that one of the patterns names from learning, and returns the others.
 *  A pattern is a part's short name, a module path ('model.vision_tower.timm_model.blocks.0'), or a glob where `*` stands
 *  for any characters.
 *  @throws {ConfigError} when a pattern names no parameter */
export function freeze(
  parameters: Iterable<[string, Tensor]>,
  patterns: readonly string[],
): [string, Tensor][] {
  const all = [...parameters];
  const frozen = new Set<string>();
  for (const pattern of patterns) {
    const matches = matcher(pattern);
    const named = all.filter(([name]) => matches(name));
    if (named.length === 0 && !Object.hasOwn(PARTS, pattern)) {
      throw new ConfigError({
        where: `model.freeze '${pattern}'`,
        expected: `a part (${Object.keys(PARTS).join(', ')}) or a pattern that matches a parameter`,
        received: 'one that matches nothing',
        remedy: `the names begin with ${prefixes(all.map(([name]) => name)).join(', ')}`,
      });
    }
    for (const [name, tensor] of named) {
      tensor.requiresGrad = false;
      frozen.add(name);
    }
  }
  return all.filter(([name, tensor]) => !frozen.has(name) && tensor.requiresGrad);
}

/** Whether one of the patterns names a parameter. */
export function isFrozen(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => matcher(pattern)(name));
}

function matcher(pattern: string): (name: string) => boolean {
  const paths = Object.hasOwn(PARTS, pattern) ? PARTS[pattern] : undefined;
  const tests = (paths ?? [pattern]).map((path) => {
    const source = path.split('*').map(escape).join('.*');
    return new RegExp(`^${source}(\\.|$)`);
  });
  return (name) => tests.some((test) => test.test(name));
}

function escape(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/g, '\\$&');
}

function prefixes(names: readonly string[]): string[] {
  return [...new Set(names.map((name) => name.split('.').slice(0, 2).join('.')))].slice(0, 8);
}
