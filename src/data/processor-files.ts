// The files of a model folder that say how its inputs are made, read and sorted by what they configure. Two generations
// of them exist: preprocessor_config.json beside processor_config.json, and all in the latter (transformers 5).

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, TextError } from '../errors.js';

/** The files that a processor may consist of: copy these, where they exist, beside a checkpoint's weights. */
export const PROCESSOR_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.model',
  'chat_template.jinja',
  'chat_template.json',
  'preprocessor_config.json',
  'processor_config.json',
] as const;

type Json = Readonly<Record<string, unknown>>;

export interface ProcessorFiles {
  /** tokenizer.json */
  readonly tokenizer: unknown;
  /** tokenizer_config.json, with what special_tokens_map.json adds. */
  readonly tokenizerConfig: Json;
  /** The chat template's source, and the file that holds it. */
  readonly template?: { readonly source: string; readonly where: string };
  /** The image processor's configuration, and the file that holds it. */
  readonly image?: { readonly config: Json; readonly where: string };
  /** processor_config.json */
  readonly processor: Json;
}

/** Reads a folder. @throws {TextError} when there is no tokenizer.json in it, or a file is not JSON */
export async function readProcessorFiles(folder: string): Promise<ProcessorFiles> {
  const [tokenizer, config, map, template, templateJson, preprocessor, processor] = await Promise.all([
    readJson(folder, 'tokenizer.json'),
    readJson(folder, 'tokenizer_config.json'),
    readJson(folder, 'special_tokens_map.json'),
    readText(folder, 'chat_template.jinja'),
    readJson(folder, 'chat_template.json'),
    readJson(folder, 'preprocessor_config.json'),
    readJson(folder, 'processor_config.json'),
  ]);
  if (tokenizer === undefined) {
    throw new TextError({
      where: folder,
      expected: 'a model folder with tokenizer.json',
      received: 'none',
      remedy: 'check the path; copy the tokenizer files of the model that the weights come from',
    });
  }
  const sources: readonly (readonly [unknown, string])[] = [
    [template, 'chat_template.jinja'],
    [templateJson?.['chat_template'], 'chat_template.json'],
    [processor?.['chat_template'], 'processor_config.json'],
    [defaultTemplate(config?.['chat_template']), 'tokenizer_config.json'],
  ];
  const found = sources.find(([source]) => typeof source === 'string');
  const nested = processor?.['image_processor'] as Json | undefined;
  const image = nested ?? (preprocessor?.['image_processor_type'] === undefined ? undefined : preprocessor);
  const imageFile = nested ? 'processor_config.json: image_processor' : 'preprocessor_config.json';
  return {
    tokenizer,
    tokenizerConfig: { ...map, ...config },
    ...(found ? { template: { source: found[0] as string, where: join(folder, found[1]) } } : {}),
    ...(image ? { image: { config: image, where: join(folder, imageFile) } } : {}),
    processor: processor ?? {},
  };
}

/** Older files may hold several templates by name. */
function defaultTemplate(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  const named = value as readonly { readonly name?: unknown; readonly template?: unknown }[];
  return (named.find(({ name }) => name === 'default') ?? named[0])?.template;
}

async function readText(folder: string, name: string): Promise<string | undefined> {
  try {
    return await readFile(join(folder, name), 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new TextError(
      {
        where: join(folder, name),
        expected: 'a file that can be read',
        received: messageOf(cause),
        remedy: 'check its permissions',
      },
      { cause },
    );
  }
}

async function readJson(folder: string, name: string): Promise<Json | undefined> {
  const content = await readText(folder, name);
  if (content === undefined) return undefined;
  let value: unknown;
  let received = 'another value';
  try {
    value = JSON.parse(content);
  } catch (cause) {
    received = messageOf(cause);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
  throw new TextError({
    where: join(folder, name),
    expected: 'a JSON object',
    received,
    remedy: 'the file is damaged: copy it again',
  });
}
