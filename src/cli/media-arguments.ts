// Pictures and clips named on a command line, in the order in which they stand there.

import { readFile } from 'node:fs/promises';
import { audio, image } from '../data/chat.js';
import type { AudioPart, ImagePart, Part } from '../data/types.js';
import { ConfigError, messageOf } from '../errors.js';

export interface MediaFile {
  readonly kind: 'image' | 'audio';
  readonly path: string;
}

/** `--image FILE` and `--audio FILE` among raw arguments. yargs keeps the order within each of the two alone. */
export function mediaFiles(args: readonly string[]): MediaFile[] {
  const files: MediaFile[] = [];
  for (const [i, arg] of args.entries()) {
    if (arg === '--') break;
    const [, kind, path = args[i + 1]] = /^--(image|audio)(?:=([^]*))?$/.exec(arg) ?? [];
    if (kind && path !== undefined) files.push({ kind: kind as MediaFile['kind'], path });
  }
  return files;
}

/** A part of a turn with the file's bytes. @throws {ConfigError} when it cannot be read */
export async function mediaPart({ kind, path }: MediaFile): Promise<ImagePart | AudioPart> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new ConfigError(
      {
        where: `--${kind} ${path}`,
        expected: 'a file that can be read',
        received: missing ? 'no such file' : messageOf(cause),
        remedy: 'check the path',
      },
      { cause },
    );
  }
  return kind === 'image' ? image(bytes) : audio(bytes);
}

/** A user's turn: media, then the text unless it is empty. */
export function turn(media: readonly (AudioPart | ImagePart)[], text: string): readonly Part[] {
  return text === '' ? media : [...media, { type: 'text', text }];
}
