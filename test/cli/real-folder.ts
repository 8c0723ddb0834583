// Folders that stand for the published models: their configurations, the fixture's words, and processor files as they are
// published (768 x 768 pixels, 256 and 188 soft tokens). No weights.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../train/job.js';

const fixture = (path: string) => fileURLToPath(new URL(`../../fixtures/${path}`, import.meta.url));
const read = (path: string) => JSON.parse(fs.readFileSync(path, 'utf8')) as Record<string, unknown>;

/** @param size of the model whose configuration it has */
export function publishedFolder(size: 'E2B' | 'E4B'): string {
  const folder = temporaryFolder();
  const tiny = fixture('tiny-gemma3n');
  const config = read(fixture(`configs/gemma-3n-${size}.json`));
  const write = (name: string, value: unknown) => fs.writeFileSync(join(folder, name), JSON.stringify(value));
  for (const name of ['chat_template.jinja', 'special_tokens_map.json']) {
    fs.copyFileSync(join(tiny, name), join(folder, name));
  }
  write('config.json', config);
  write('preprocessor_config.json', {
    ...read(join(tiny, 'preprocessor_config.json')),
    size: { height: 768, width: 768 },
    image_seq_length: 256,
  });
  write('processor_config.json', {
    ...read(join(tiny, 'processor_config.json')),
    image_seq_length: config['vision_soft_tokens_per_image'],
    audio_seq_length: config['audio_soft_tokens_per_image'],
  });
  const ids: Record<string, unknown> = {
    '<start_of_image>': config['boi_token_id'],
    '<end_of_image>': config['eoi_token_id'],
    '<image_soft_token>': config['image_token_id'],
    '<start_of_audio>': config['boa_token_id'],
    '<end_of_audio>': config['eoa_token_id'],
    '<audio_soft_token>': config['audio_token_id'],
  };
  const tokenizer = read(join(tiny, 'tokenizer.json')) as {
    added_tokens: { id: number; content: string }[];
    model: { vocab: Record<string, number> };
  };
  for (const token of tokenizer.added_tokens) {
    const id = ids[token.content];
    if (typeof id !== 'number') continue;
    token.id = id;
    if (token.content in tokenizer.model.vocab) tokenizer.model.vocab[token.content] = id;
  }
  write('tokenizer.json', tokenizer);
  const { added_tokens_decoder: _decoder, ...rest } = read(join(tiny, 'tokenizer_config.json'));
  write('tokenizer_config.json', { ...rest, model_max_length: 32_768 });
  return folder;
}
