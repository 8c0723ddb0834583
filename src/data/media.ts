// What a conversation may hold beside text: pictures and clips. To the text both are the same: the template writes a
// placeholder, which becomes so many soft tokens between two markers. They differ in their settings and their arrays.

import { type FeatureSettings, featureSettings } from '../audio/index.js';
import { TextError } from '../errors.js';
import { type ImageSettings, imageSettings } from '../image/index.js';
import type { Tokenizer } from '../text/index.js';
import { maxClipFrames } from './clip-bound.js';
import type { ConfigFile, Json, ProcessorFiles } from './processor-files.js';
import type { MessageInput } from './messages.js';
import type { AudioPart, ImagePart } from './types.js';

/** The words for one medium. */
export interface MediumKind {
  /** The `type` of its parts, and the name of its soft token. */
  readonly part: 'image' | 'audio';
  readonly one: string;
  readonly many: string;
  /** What the processor files configure. */
  readonly configured: string;
  /** Of a model that takes it. */
  readonly senses: string;
  /** Names of the markers' tokens. */
  readonly begin: string;
  readonly end: string;
  /** processor_config.json's key for the number of soft tokens, and its default. */
  readonly lengthKey: string;
  readonly defaultLength: number;
}

export const IMAGE: MediumKind = {
  part: 'image',
  one: 'image',
  many: 'images',
  configured: 'images',
  senses: 'sees',
  begin: 'boi',
  end: 'eoi',
  lengthKey: 'image_seq_length',
  defaultLength: 256,
};

export const AUDIO: MediumKind = {
  part: 'audio',
  one: 'clip',
  many: 'clips',
  configured: 'audio',
  senses: 'hears',
  begin: 'boa',
  end: 'eoa',
  lengthKey: 'audio_seq_length',
  defaultLength: 188,
};

/** What one picture or clip becomes in the text, and how its arrays are made. */
export interface Medium<Settings> {
  readonly kind: MediumKind;
  readonly settings: Settings;
  /** The placeholder that the template writes. */
  readonly placeholder: string;
  /** What stands for one: the soft tokens between their markers. */
  readonly expansion: string;
  /** How many soft tokens are in it. */
  readonly softTokens: number;
}

/** The media that a model folder configures. */
export interface Media {
  readonly image?: Medium<ImageSettings>;
  readonly audio?: Medium<FeatureSettings> & {
    /** The longest features of a clip that the folder's model takes, where that is known. */
    readonly maxFrames?: number;
  };
}

/** A processor_config.json that asks for more is not a model's. */
const maxSoftTokens = 1 << 16;

/** @throws {TextError} when a medium is configured and the tokenizer lacks its tokens
 *  @throws {ImageError} {AudioError} {ConfigError} on settings of another model, or of the wrong type */
export function mediaOf(tokenizer: Tokenizer, { image, audio, processor, model }: ProcessorFiles): Media {
  const maxFrames = model && maxClipFrames(model);
  const medium = <S>(
    kind: MediumKind,
    file: ConfigFile,
    settings: (config: Json, where: string) => S,
  ): Medium<S> => ({
    kind,
    ...tokensOf(kind, tokenizer, file.where, processor),
    settings: settings(file.config, file.where),
  });
  return {
    ...(image && { image: medium(IMAGE, image, imageSettings) }),
    ...(audio && {
      audio: { ...medium(AUDIO, audio, featureSettings), ...(maxFrames !== undefined && { maxFrames }) },
    }),
  };
}

function tokensOf(
  kind: MediumKind,
  tokenizer: Tokenizer,
  where: string,
  processor: Json,
): { placeholder: string; expansion: string; softTokens: number } {
  const purpose = `${where} configures ${kind.configured}`;
  const soft = tokenizer.requireNamed(kind.part, purpose);
  const begin = tokenizer.requireNamed(kind.begin, purpose);
  const end = tokenizer.requireNamed(kind.end, purpose);
  const count = processor[kind.lengthKey] ?? kind.defaultLength;
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || count > maxSoftTokens) {
    throw new TextError({
      where: `processor_config.json: ${kind.lengthKey}`,
      expected: `the number of soft tokens of ${article(kind.one)} ${kind.one}, 1 to ${maxSoftTokens}`,
      received: JSON.stringify(count),
      remedy: "use the model's own processor_config.json",
    });
  }
  return {
    placeholder: soft.content,
    expansion: `\n\n${begin.content}${soft.content.repeat(count)}${end.content}\n\n`,
    softTokens: count,
  };
}

/** The pictures of a conversation in order; undefined where a part has no data. */
export function imagesIn(messages: readonly MessageInput[]): (ImagePart['image'] | undefined)[] {
  return partsOf(messages).flatMap((part) => (part.type === 'image' ? [part.image] : []));
}

/** The clips of a conversation in order; undefined where a part has no data. */
export function clipsIn(messages: readonly MessageInput[]): (AudioPart['audio'] | undefined)[] {
  return partsOf(messages).flatMap((part) => (part.type === 'audio' ? [part.audio] : []));
}

type InputPart = Exclude<MessageInput['content'], string>[number];

function partsOf(messages: readonly MessageInput[]): InputPart[] {
  return messages.flatMap(({ content }): readonly InputPart[] =>
    typeof content === 'string' ? [] : content,
  );
}

/** As many placeholders of a medium as there are media, and none where the folder configures none.
 *  @param where names the chat template
 *  @throws {TextError} naming the medium, and the first that is too many */
export function checkPlaceholders(
  kind: MediumKind,
  media: Media,
  found: number,
  count: number,
  where: string,
): void {
  const { part, one, many } = kind;
  const medium = media[part];
  if (!medium && count > 0) {
    throw new TextError({
      where,
      expected: `text${part === 'audio' && media.image ? ' and images' : ''} alone, since the model folder configures no ${kind.configured}`,
      received: `${count} ${count === 1 ? one : many}`,
      remedy: `take the processor files of a model that ${kind.senses}, with preprocessor_config.json`,
    });
  }
  if (!medium || found === count) return;
  const which =
    found < count
      ? `${one} ${found} and what follows it have no placeholder`
      : `placeholder ${count} and what follows it have no ${one}`;
  throw new TextError({
    where,
    expected: `${count} ${one} placeholder${count === 1 ? '' : 's'} "${medium.placeholder}", one ${article(one)} ${one}`,
    received: `${found} (${which})`,
    remedy: `put ${many} into user turns, as ${part} parts, and check the chat template`,
  });
}

/** The media, none of which lacks its data. @throws {TextError} naming the first that does */
export function present<T>({ part, one }: MediumKind, media: readonly (T | undefined)[], where: string): T[] {
  return media.map((medium, index) => {
    if (medium !== undefined) return medium;
    throw new TextError({
      where,
      expected: `data for ${one} ${index}`,
      received: `${article(part)} ${part} part without any`,
      remedy: `pass { type: "${part}", ${part}: bytes }`,
    });
  });
}

/** 'an image', 'a clip', 'an audio part' */
function article(word: string): 'a' | 'an' {
  return /^[aeiou]/.test(word) ? 'an' : 'a';
}
