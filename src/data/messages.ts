// Conversations as callers may write them.

import { TextError } from '../errors.js';
import type { AudioPart, ImagePart, Role, TextPart } from './types.js';

/** A turn: text alone as a string; media without data where only text is wanted. */
export interface MessageInput {
  readonly role: Role;
  readonly content:
    | string
    | readonly (
        | TextPart
        | { readonly type: 'image'; readonly image?: ImagePart['image'] }
        | { readonly type: 'audio'; readonly audio?: AudioPart['audio'] }
      )[];
}

/** Text comes from data, where a cell may be null or a number.
 *  @throws {TextError} naming the message, and the part that is none */
export function checkMessages(messages: readonly MessageInput[]): void {
  for (const [index, message] of messages.entries()) {
    const { role, content } = message as { readonly role: unknown; readonly content: unknown };
    const where = `message ${index} (${String(role)})`;
    if (typeof content === 'string') continue;
    if (!Array.isArray(content)) {
      throw wrong(where, 'its content as a string or a list of parts', content);
    }
    for (const [place, part] of (content as readonly unknown[]).entries()) {
      const { type, text } = (part ?? {}) as { readonly type?: unknown; readonly text?: unknown };
      if (type === 'text' && typeof text !== 'string') {
        throw wrong(`${where}, part ${place}`, "a string as a text part's text", text);
      }
      if (type !== 'text' && type !== 'image' && type !== 'audio') {
        throw wrong(`${where}, part ${place}`, 'a part of type text, image or audio', type);
      }
    }
  }
}

/** What a value is, in a word or two: 'null', 'number', 'Float32Array', 'an object of array, sampling_rate'. */
export function kindOf(value: unknown): string {
  if (value === null || typeof value !== 'object') return value === null ? 'null' : typeof value;
  const { name } = value.constructor as { readonly name: string };
  return name === 'Object' ? `an object of ${Object.keys(value).slice(0, 8).join(', ') || 'nothing'}` : name;
}

function wrong(where: string, expected: string, value: unknown): TextError {
  return new TextError({
    where,
    expected,
    received: typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : kindOf(value),
    remedy:
      'build messages with user(...), assistant(...), text(...), and check the column that it is taken from',
  });
}
