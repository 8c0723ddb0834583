// Conversations as callers may write them.

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
