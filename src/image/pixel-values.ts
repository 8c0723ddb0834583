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
  const shape = pixelShape(images, settings, where);
  const [, , height, width] = shape;
  const { resample, scaling } = settings;
  const perImage = 3 * height * width;
  const data = floats(images.length * perImage);
  const addon = loadAddon();
  await Promise.all(
    images.map((image, index) =>
      addon.resizeRgbToPlanes(
        image.data,
        image.height,
        image.width,
        height,
        width,
        resample === 'bicubic',
        data.subarray(index * perImage, (index + 1) * perImage),
        scaling.numbers,
        scaling.divide,
      ),
    ),
  );
  return { data, shape };
}

/** The shape of what `pixelValues` gives, [images, 3, height, width]. Of the pixels only their number is looked at.
 *  @throws {ImageError} as `pixelValues` */
export function pixelShape(
  images: readonly Pixels[],
  settings: ImageSettings,
  where = 'image',
): PixelValues['shape'] {
  const first = images[0];
  if (!first)
    throw new ImageError({ where, expected: 'an image', received: 'none', remedy: 'pass at least one' });
  const { height, width } = settings.size ?? first;
  images.forEach((image, index) => {
    check(image, images.length > 1 ? `${where} ${index}` : where, settings.size ? undefined : first);
  });
  return [images.length, 3, height, width];
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
  const data = new Uint8Array(3 * height * width);
  await loadAddon().resizeRgb(image.data, image.height, image.width, height, width, cubic, data);
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

/** Not filled with zeros, since every value is written: an eighth of the time of a large image. */
function floats(count: number): Float32Array {
  const { buffer } = Buffer.allocUnsafeSlow(count * Float32Array.BYTES_PER_ELEMENT);
  return new Float32Array(buffer, 0, count);
}
