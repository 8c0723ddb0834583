// The files of a model folder that say how its inputs are made, read and sorted by what they configure. Two generations
// of them exist: preprocessor_config.json beside processor_config.json, and all in the latter (transformers 5).

import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
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

export type Json = Readonly<Record<string, unknown>>;

/** A part's configuration, and the file that holds it. */
export interface ConfigFile {
  readonly config: Json;
  readonly where: string;
}

export interface ProcessorFiles {
  /** tokenizer.json */
  readonly tokenizer: unknown;
  /** tokenizer_config.json, with what special_tokens_map.json adds. */
  readonly tokenizerConfig: Json;
  /** The chat template's source, and the file that holds it. */
  readonly template?: { readonly source: string; readonly where: string };
  /** The image processor's configuration. */
  readonly image?: ConfigFile;
  /** The audio feature extractor's. */
  readonly audio?: ConfigFile;
  /** processor_config.json */
  readonly processor: Json;
  /** config.json, the model's, where the folder has it. */
  readonly model?: ConfigFile;
}

/** Reads a folder.
 *  @throws {TextError} when there is no tokenizer.json in it, a file is not JSON, or one is of another model's processor */
export async function readProcessorFiles(folder: string): Promise<ProcessorFiles> {
  const [tokenizer, config, map, template, templateJson, preprocessor, processor, model] = await Promise.all([
    readJson(folder, 'tokenizer.json'),
    readJson(folder, 'tokenizer_config.json'),
    readJson(folder, 'special_tokens_map.json'),
    readText(folder, 'chat_template.jinja'),
    readJson(folder, 'chat_template.json'),
    readJson(folder, 'preprocessor_config.json'),
    readJson(folder, 'processor_config.json'),
    readJson(folder, 'config.json'),
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
  return {
    tokenizer,
    tokenizerConfig: { ...map, ...config },
    ...(found && { template: { source: found[0] as string, where: join(folder, found[1]) } }),
    ...mediaFiles(folder, preprocessor, processor),
    processor: processor ?? {},
    ...(model && { model: { config: model, where: join(folder, 'config.json') } }),
  };
}

/** A digest of the files that a folder's processor is made of, and of the model's configuration.
 *  @throws when the folder cannot be read */
export async function processorDigest(folder: string): Promise<string> {
  const hash = createHash('sha256');
  const names = (await readdir(folder)).filter(
    (name) => /\.(json|jinja|model)$/.test(name) && !name.endsWith('.index.json'),
  );
  for (const name of names.sort()) {
    const bytes = await readFile(join(folder, name)).catch(() => undefined);
    if (bytes) hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest('hex');
}

/** The context that tokenizer_config.json states; some state a number beyond all measure for none. */
export function contextOf({ model_max_length: length }: Json): number | undefined {
  return typeof length === 'number' && length >= 1 && length < 1e9 ? Math.floor(length) : undefined;
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What configures images and audio: their own parts of processor_config.json, else preprocessor_config.json.
 *  @throws {TextError} on another family's processor, whose inputs would be others */
function mediaFiles(
  folder: string,
  preprocessor: Json | undefined,
  processor: Json | undefined,
): Pick<ProcessorFiles, 'image' | 'audio'> {
  const flat = join(folder, 'preprocessor_config.json');
  const nested = join(folder, 'processor_config.json');
  checkFamily(preprocessor?.['processor_class'], `${flat}: processor_class`, /^Gemma3nProcessor$/);
  checkFamily(processor?.['processor_class'], `${nested}: processor_class`, /^Gemma3nProcessor$/);
  const fileOf = (type: string, ...keys: readonly string[]): ConfigFile | undefined => {
    for (const key of keys) {
      const config = processor?.[key];
      if (isObject(config)) return { config, where: `${nested}: ${key}` };
    }
    return preprocessor?.[type] === undefined ? undefined : { config: preprocessor, where: flat };
  };
  const image = fileOf('image_processor_type', 'image_processor');
  const audio = fileOf('feature_extractor_type', 'feature_extractor', 'audio_processor');
  if (image) {
    const type = 'image_processor_type';
    checkFamily(image.config[type], `${image.where}: ${type}`, /^SiglipImageProcessor(Fast|Pil)?$/);
  }
  return { ...(image && { image }), ...(audio && { audio }) };
}

function checkFamily(name: unknown, where: string, family: RegExp): void {
  if (name === undefined || name === null) return;
  const received = typeof name === 'string' ? name : JSON.stringify(name);
  if (family.test(received)) return;
  throw new TextError({
    where,
    expected: /\w+/.exec(family.source)![0],
    received,
    remedy: "take all processor files from the Gemma 3n model's own folder",
  });
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
  if (isObject(value)) return value;
  throw new TextError({
    where: join(folder, name),
    expected: 'a JSON object',
    received,
    remedy: 'the file is damaged: copy it again',
  });
}
