// Pictures and clips to the arrays that the towers take. What is still encoded is decoded on the way.

import {
  type AudioFeatures,
  audioFeaturesInThread,
  decodeAudio,
  type FeatureSettings,
} from '../audio/index.js';
import { AudioError, ImageError } from '../errors.js';
import { decodeImage, type ImageSettings, pixelValues, type PixelValues } from '../image/index.js';
import { kindOf } from './messages.js';
import type { AudioPart, DecodedAudio, DecodedImage, ImagePart } from './types.js';

/** What decoding a clip needs to know of the model. */
export interface Hearing {
  readonly sampleRateHz: number;
  readonly maxSeconds: number;
}

/** How encoded media become pixels and samples, and those the arrays that the towers take. */
export interface MediaReader {
  /** Pixels of a picture. @throws {ImageError} naming it */
  readonly image: (image: ImagePart['image'], index: number) => Promise<DecodedImage>;
  /** Samples of a clip. @throws {AudioError} naming it; the signal's reason when it is aborted */
  readonly audio: (
    clip: AudioPart['audio'],
    index: number,
    hearing?: Partial<Hearing>,
    signal?: AbortSignal,
  ) => Promise<DecodedAudio>;
  /** Pixel values of pictures in their order. */
  readonly pixels: (images: readonly ImagePart['image'][], settings: ImageSettings) => Promise<PixelValues>;
  /** Log-mel features of clips in their order. */
  readonly features: (
    clips: readonly AudioPart['audio'][],
    settings: FeatureSettings,
  ) => Promise<AudioFeatures>;
}

/** What a model hears of a clip. */
export function hearingOf({ sampleRateHz, maxSamples }: FeatureSettings): Hearing {
  return { sampleRateHz, maxSeconds: maxSamples / sampleRateHz };
}

/** Pixels of a picture, off the JavaScript thread. @throws {ImageError} naming it */
export async function decodedImage(image: ImagePart['image'], index: number): Promise<DecodedImage> {
  if (image instanceof Uint8Array) return decodeImage(image, `image ${index}`);
  if (has(image, 'data', 'width', 'height')) return image;
  throw new ImageError({
    where: `image ${index}`,
    expected: "a file's bytes as Uint8Array, or pixels as { data, width, height }",
    received: kindOf(image),
    remedy: 'pass the bytes themselves, or make the part with image(...)',
  });
}

/** Samples of a clip, off the JavaScript thread.
 *  @throws {AudioError} naming it; the signal's reason when it is aborted */
export async function decodedAudio(
  clip: AudioPart['audio'],
  index: number,
  hearing: Partial<Hearing> = {},
  signal?: AbortSignal,
): Promise<DecodedAudio> {
  if (clip instanceof Uint8Array) {
    return decodeAudio(clip, `clip ${index}`, { ...hearing, ...(signal && { signal }) });
  }
  if (has(clip, 'data', 'sampleRateHz') && clip.data instanceof Float32Array) return clip;
  throw new AudioError({
    where: `clip ${index}`,
    expected: "a file's bytes as Uint8Array, or samples as { data: Float32Array, sampleRateHz }",
    received: kindOf(clip),
    remedy: 'pass the bytes themselves, or make the part with audio(...)',
  });
}

/** Types are of no help to who writes JavaScript, and to cells of a file. */
function has(value: unknown, ...keys: readonly string[]): boolean {
  return typeof value === 'object' && value !== null && keys.every((key) => key in value);
}

/** Pixel values of pictures in their order. */
export async function pixelsOf(
  images: readonly ImagePart['image'][],
  settings: ImageSettings,
): Promise<PixelValues> {
  return pixelValues(await Promise.all(images.map(decodedImage)), settings);
}

/** Log-mel features of clips in their order. */
export async function featuresOf(
  clips: readonly AudioPart['audio'][],
  settings: FeatureSettings,
): Promise<AudioFeatures> {
  const hearing = hearingOf(settings);
  const decoded = await Promise.all(clips.map((clip, index) => decodedAudio(clip, index, hearing)));
  return audioFeaturesInThread(decoded, settings);
}

/** Reads media as a model is trained on them. */
export const wholeMedia: MediaReader = {
  image: decodedImage,
  audio: decodedAudio,
  pixels: pixelsOf,
  features: featuresOf,
};
