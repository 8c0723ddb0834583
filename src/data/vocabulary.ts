// Whether a tokenizer is the one that a model was trained with, as far as the model's config.json tells.

import { TextError } from '../errors.js';
import type { Tokenizer } from '../text/index.js';
import { type ConfigFile, isObject } from './processor-files.js';

/** @param model config.json
 *  @throws {TextError} when the tokenizer has more tokens than the model, or the media's tokens have other ids */
export function checkVocabulary(tokenizer: Tokenizer, { config, where }: ConfigFile): void {
  const other = (expected: string, received: string): TextError =>
    new TextError({
      where: tokenizer.where,
      expected: `${expected}, as ${where} says`,
      received,
      remedy: "take the tokenizer files from the model's own folder",
    });
  const { vocab_size: size } = isObject(config['text_config']) ? config['text_config'] : config;
  if (typeof size === 'number' && tokenizer.vocabSize > size) {
    throw other(`ids below ${size}`, `ids up to ${tokenizer.vocabSize - 1}`);
  }
  for (const name of ['image', 'boi', 'eoi', 'audio', 'boa', 'eoa']) {
    const [expected, token] = [config[`${name}_token_id`], tokenizer.named(name)];
    if (token && typeof expected === 'number' && token.id !== expected) {
      throw other(`the id ${expected} for ${token.content}`, String(token.id));
    }
  }
}
