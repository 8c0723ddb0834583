// What passes between the pool and its threads. A thread does one clip at a time, so messages need no numbers.

import type { ClipRequest } from './decode-clip.js';
import type { DecodedAudio } from './types.js';

/** To a thread: a clip, then the pieces that it asks for. */
export type ToThread =
  | {
      readonly clip: ClipRequest;
      readonly length: number;
      /** All of a short clip. */ readonly bytes?: Uint8Array;
    }
  | { readonly piece: Uint8Array };

/** From a thread: what it needs, then how the clip ended. */
export type FromThread =
  | { readonly read: { readonly offset: number; readonly length: number } }
  | { readonly decoded: DecodedAudio }
  | {
      readonly failed: string;
      readonly stack: string | undefined;
      /** The thread must not go on. */
      readonly isBroken: boolean;
      readonly ffmpeg?: { readonly demuxer: string; readonly found: string };
    };
