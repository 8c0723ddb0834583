// The reference's values for the processor, as test/reference/processor.py wrote them.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MessageInput } from '../../src/data/processor.js';

export const tinyFolder = fileURLToPath(new URL('../../fixtures/tiny-gemma3n', import.meta.url));
const folder = fileURLToPath(new URL('../../fixtures/reference/processor', import.meta.url));

export interface ReferenceCase {
  readonly name: string;
  readonly messages: readonly {
    readonly role: 'system' | 'user' | 'assistant';
    readonly content: readonly { readonly type: string; readonly text?: string; readonly image?: string }[];
  }[];
  readonly addGenerationPrompt: boolean;
  readonly images: readonly string[];
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly labels?: readonly number[];
}

interface Decoded {
  readonly ids: readonly number[];
  readonly decoded: string;
  readonly skipped: string;
}

interface Values {
  readonly images: readonly string[];
  readonly cases: readonly ReferenceCase[];
  readonly texts: readonly (Decoded & { readonly text: string; readonly asText: readonly number[] })[];
  readonly random: readonly Decoded[];
  readonly resizes: readonly {
    readonly from: readonly [number, number];
    readonly to: readonly [number, number];
    readonly resample: 'bilinear' | 'bicubic';
  }[];
  /** float32 bits, [3, 256] */
  readonly normalised: Readonly<Record<'rescale' | 'both' | 'normalize', readonly number[]>>;
}

export const values = JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8')) as Values;
const pixels = new Uint8Array(readFileSync(join(folder, 'pixels.bin')));
const perImage = 3 * 64 * 64;

/** The bytes of one of the pictures. */
export function pictureBytes(name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(folder, 'images', name)));
}

/** Its pixel values in the reference, float32 [3, 64, 64]. */
export function picturePlanes(name: string): Float32Array {
  const at = values.images.indexOf(name) * perImage;
  if (at < 0) throw new Error(`no picture ${name}`);
  const scale = Math.fround(1 / 255);
  return Float32Array.from(pixels.subarray(at, at + perImage), (level) => level * scale);
}

/** Inputs and outputs of torchvision's resize, RGB by rows. */
export function resizeCases(): (Values['resizes'][number] & { input: Uint8Array; output: Uint8Array })[] {
  let at = values.images.length * perImage;
  const take = ([height, width]: readonly [number, number]): Uint8Array =>
    pixels.subarray(at, (at += 3 * height * width));
  return values.resizes.map((entry) => ({ ...entry, input: take(entry.from), output: take(entry.to) }));
}

/** The case's messages with the pictures' bytes in them. */
export function messagesOf({ messages }: ReferenceCase): MessageInput[] {
  return messages.map(({ role, content }) => ({
    role,
    content: content.map(({ text, image }) =>
      image === undefined
        ? { type: 'text' as const, text: text! }
        : { type: 'image' as const, image: pictureBytes(image) },
    ),
  }));
}
