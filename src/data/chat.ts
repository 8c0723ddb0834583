// Builders of conversations: what a pipeline's first `map` makes of a row.

import { ConfigError } from '../errors.js';
import type {
  AudioPart,
  DecodedAudio,
  DecodedImage,
  ImagePart,
  Message,
  Part,
  Role,
  Sample,
  TextPart,
} from './types.js';

/** A conversation to learn from.
 *  @example chat(user(image(row.image), text(row.question)), assistant(text(row.answer)))
 *  @throws {ConfigError} without messages */
export function chat(...messages: readonly Message[]): Sample {
  if (messages.length > 0) return { messages };
  throw new ConfigError({
    where: 'chat',
    expected: 'at least one message',
    received: 'none',
    remedy: 'pass user(...) and assistant(...)',
  });
}

/** The instruction before the first turn. */
export function system(...content: readonly (Part | string)[]): Message {
  return message('system', content);
}

/** A turn that is read. */
export function user(...content: readonly (Part | string)[]): Message {
  return message('user', content);
}

/** A turn that is learnt: its tokens and its end are the labels. */
export function assistant(...content: readonly (Part | string)[]): Message {
  return message('assistant', content);
}

/** Text of a turn. @throws {ConfigError} when it is no string, such as a column that is missing from the row */
export function text(value: unknown): TextPart {
  if (typeof value === 'string') return { type: 'text', text: value };
  throw new ConfigError({
    where: 'text',
    expected: 'a string',
    received: value === null ? 'null' : typeof value,
    remedy: 'check the column that it is taken from',
  });
}

/** A picture of a turn: encoded bytes, pixels, or a cell as Hugging Face stores it ({ bytes, path }).
 *  @throws {ConfigError} when it is none of these */
export function image(value: unknown): ImagePart {
  const found = isCell(value) ? value.bytes : value;
  if (found instanceof Uint8Array || isPixels(found)) return { type: 'image', image: found };
  throw new ConfigError({
    where: 'image',
    expected: "an image's bytes, pixels or { bytes }",
    received: found === null ? 'null' : typeof found,
    remedy: 'check the column that it is taken from',
  });
}

/** A clip of a turn: encoded bytes, samples, or a cell as Hugging Face stores it ({ bytes, path }).
 *  @throws {ConfigError} when it is none of these */
export function audio(value: unknown): AudioPart {
  const found = isCell(value) ? value.bytes : value;
  if (found instanceof Uint8Array || isSound(found)) return { type: 'audio', audio: found };
  throw new ConfigError({
    where: 'audio',
    expected: "a clip's bytes, samples or { bytes }",
    received: found === null ? 'null' : typeof found,
    remedy: 'check the column that it is taken from',
  });
}

/** The same sample with tags that evaluation groups its scores by. */
export function tagged(sample: Sample, tags: Readonly<Record<string, string>>): Sample {
  return { ...sample, tags: { ...sample.tags, ...tags } };
}

function message(role: Role, content: readonly (Part | string)[]): Message {
  return { role, content: content.map((part) => (typeof part === 'string' ? text(part) : part)) };
}

function isCell(value: unknown): value is { readonly bytes: unknown } {
  return typeof value === 'object' && value !== null && 'bytes' in value && !('width' in value);
}

function isPixels(value: unknown): value is DecodedImage {
  return (
    typeof value === 'object' && value !== null && 'data' in value && 'width' in value && 'height' in value
  );
}

function isSound(value: unknown): value is DecodedAudio {
  return (
    typeof value === 'object' &&
    value !== null &&
    'sampleRateHz' in value &&
    'data' in value &&
    value.data instanceof Float32Array
  );
}
