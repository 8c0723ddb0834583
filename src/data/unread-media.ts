// Readers of media for a plan: shapes, bytes and faults as a run would have them, but arrays that are blank, so that
// neither pixels nor features are made and the engine is not needed.

import { audioFeatureShape, clipLength, type DecodedAudio, type FeatureSettings } from '../audio/index.js';
import { imageSize, pixelShape } from '../image/index.js';
import { blankBytes, blankFloats, isBlank } from './blank.js';
import { decodedAudio, decodedImage, type Hearing, hearingOf, type MediaReader } from './media-arrays.js';
import type { AudioPart, DecodedImage, ImagePart } from './types.js';

type Decoding = Pick<MediaReader, 'image' | 'audio'>;

/** Reads headers alone, where they tell what is needed: corrupt media behind an intact header are not found. What comes
 *  out of it is blank. */
export const headersOnly: MediaReader = blank({ image: sizedImage, audio: measuredAudio });

/** Decodes pictures and clips, and makes nothing of them. */
export const decodedOnly: MediaReader = blank({ image: decodedImage, audio: decodedAudio });

function blank({ image, audio }: Decoding): MediaReader {
  return {
    image,
    audio,
    pixels: async (images, settings) => {
      const shape = pixelShape(await Promise.all(images.map(image)), settings);
      return { data: blankFloats(shape.reduce((product, n) => product * n, 1)), shape };
    },
    features: async (clips, settings: FeatureSettings) => {
      const hearing = hearingOf(settings);
      const decoded = await Promise.all(clips.map((clip, index) => audio(clip, index, hearing)));
      const { shape, mask, notices } = audioFeatureShape(decoded, settings, isBlank);
      return { features: { data: blankFloats(shape[0] * shape[1] * shape[2]), shape }, mask, notices };
    },
  };
}

async function sizedImage(image: ImagePart['image'], index: number): Promise<DecodedImage> {
  if (!(image instanceof Uint8Array)) return decodedImage(image, index);
  const { width, height } = await imageSize(image, `image ${index}`);
  return { data: blankBytes(3 * width * height), width, height };
}

async function measuredAudio(
  clip: AudioPart['audio'],
  index: number,
  hearing: Partial<Hearing> = {},
  signal?: AbortSignal,
): Promise<DecodedAudio> {
  if (!(clip instanceof Uint8Array)) return decodedAudio(clip, index, hearing, signal);
  const { numSamples, ...rest } = await clipLength(clip, `clip ${index}`, {
    ...hearing,
    ...(signal && { signal }),
  });
  return { data: blankFloats(numSamples), ...rest };
}
