// The configurations of Google's published models, so that what they need is known without asking the Hub. Only what differs
// from the defaults, which are E4B's: test/models/published-configs.test.ts holds them against the whole files.

import type { JsonObject } from './config.js';

const E2B: JsonObject = {
  model_type: 'gemma3n',
  dtype: 'bfloat16',
  vision_config: {},
  audio_config: {},
  text_config: { num_hidden_layers: 30, num_kv_shared_layers: 10, intermediate_size: 8192 },
};
const E4B: JsonObject = {
  model_type: 'gemma3n',
  dtype: 'bfloat16',
  vision_config: {},
  audio_config: {},
  text_config: {},
};

/** @param repository 'google/gemma-3n-E2B-it'
 *  @returns config.json as far as it differs from the defaults; undefined for a repository that is not Google's */
export function publishedConfig(repository: string): JsonObject | undefined {
  const [, size] = /^google\/gemma-3n-(E2B|E4B)(-it)?$/i.exec(repository) ?? [];
  return size === undefined ? undefined : size.toUpperCase() === 'E2B' ? E2B : E4B;
}
