// Pixels to what the vision tower takes: resized, rescaled, perhaps normalised. The resize is libtorch's, which is what
// the reference's processor uses, in both directions and on 8 bits; values equal it exactly.

import { ImageError } from '../errors.js';
import { loadAddon } from '../native/loader.js';
import type { Pixels } from './decode.js';
import type { ImageSettings } from './settings.js';

/** Images as the model takes them: float32 [images, 3, height, width]. */
export interface PixelValues {
  readonly data: Float32Array;
  readonly shape: readonly [number, number, number, number];
}

/** Prepares images, off the JavaScript thread. Their data must stay unchanged until the promise settles.
 *  @param where names the images in errors
 *  @throws {ImageError} when an image's data does not fit its size, or sizes differ and nothing resizes them */
export async function pixelValues(
  images: readonly Pixels[],
  settings: ImageSettings,
  where = 'image',
): Promise<PixelValues> {
  const first = images[0];
  if (!first)
    throw new ImageError({ where, expected: 'an image', received: 'none', remedy: 'pass at least one' });
  const { height, width } = settings.size ?? first;
  const planes = await Promise.all(
    images.map((image, index) => {
      check(image, images.length > 1 ? `${where} ${index}` : where, settings.size ? undefined : first);
      return loadAddon().resizeRgbToPlanes(
        image.data,
        image.height,
        image.width,
        height,
        width,
        settings.resample === 'bicubic',
        settings.table,
      );
    }),
  );
  return { data: concat(planes), shape: [images.length, 3, height, width] };
}

/** RGB resized with antialias, as torchvision resizes 8-bit images; off the JavaScript thread.
 *  @throws {ImageError} when the data does not fit the size */
export async function resizeImage(
  image: Pixels,
  size: { readonly height: number; readonly width: number },
  resample: ImageSettings['resample'] = 'bilinear',
): Promise<Pixels> {
  check(image, 'image');
  const { height, width } = size;
  const cubic = resample === 'bicubic';
  const data = await loadAddon().resizeRgb(image.data, image.height, image.width, height, width, cubic);
  return { data, width, height };
}

function check(image: Pixels, where: string, like?: Pixels): void {
  const { data, height, width } = image;
  if (!(data instanceof Uint8Array) || data.length !== height * width * 3 || data.length === 0) {
    throw new ImageError({
      where,
      expected: 'RGB bytes [height, width, 3]',
      received: `${data?.length ?? 'no'} bytes for ${height} x ${width}`,
      remedy: 'pass pixels as decodeImage gives them',
    });
  }
  if (like && (like.height !== height || like.width !== width)) {
    throw new ImageError({
      where,
      expected: `${like.height} x ${like.width} pixels like the first image`,
      received: `${height} x ${width}`,
      remedy: 'set do_resize and size in preprocessor_config.json',
    });
  }
}

function concat(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
