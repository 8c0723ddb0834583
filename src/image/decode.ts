// Encoded bytes to RGB pixels, through sharp. The colours are those of PIL's convert('RGB'), bit for bit for JPEG, PNG,
// GIF, WebP and TIFF (AVIF's decoders differ by a few levels in chroma): alpha is dropped, not blended; colour profiles
// are ignored; 16-bit gray is clipped at 255, 16-bit colour keeps its high bytes. Orientation tags are applied, as
// transformers' and datasets' image loading does.

import sharp, { type Sharp } from 'sharp';
import { ImageError, messageOf } from '../errors.js';
import { formatOf, gifBackdrop, layoutOf, type Format, type Layout } from './format.js';
import { decodeSmallPng } from './small-png.js';

/** RGB, 8 bits, rows top to bottom, shape [height, width, 3]. */
export interface Pixels {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** Images of more pixels are refused before they are decoded. */
export const MAX_PIXELS = 50_000_000;

// One thread an image: images in flight fill the cores better than strips of one image do. libvips' cache of
// operations only costs, since no image is decoded twice.
sharp.concurrency(1);
sharp.cache(false);
sharp.block({ operation: ['VipsForeignLoadSvg', 'VipsForeignLoadPdf', 'VipsForeignLoadMagick'] });

const strict = { failOn: 'warning', limitInputPixels: MAX_PIXELS, ignoreIcc: true } as const;

/** Decodes one image off the JavaScript thread; of an animation, the first frame.
 *  @param bytes JPEG, PNG, WebP, GIF, TIFF or AVIF; must stay unchanged until the promise settles
 *  @param where names the image in errors
 *  @throws {ImageError} when it is of another format (SVG for one), larger than 50 megapixels, truncated or corrupt */
export async function decodeImage(bytes: Uint8Array, where = 'image'): Promise<Pixels> {
  const format = formatIn(bytes, where);
  try {
    return await decodeAny(bytes, format);
  } catch (cause) {
    throw await explain(bytes, format, where, cause);
  }
}

/** Width and height that `decodeImage` would give. Of a picture of more than 128 x 128 pixels only the header is read, so
 *  that corrupt pixels behind it are not found.
 *  @throws {ImageError} as `decodeImage`, as far as the header tells */
export async function imageSize(
  bytes: Uint8Array,
  where = 'image',
): Promise<{ readonly width: number; readonly height: number }> {
  const format = formatIn(bytes, where);
  try {
    const small = format === 'png' ? decodeSmallPng(bytes) : undefined;
    if (small) return sizeOf(small);
    const { autoOrient } = await sharp(bytes, strict).metadata();
    const { width, height } = autoOrient;
    if (width * height > MAX_PIXELS) throw new Error(PIXEL_LIMIT);
    return width * height > SMALL_PIXELS ? { width, height } : sizeOf(await decodeAny(bytes, format));
  } catch (cause) {
    throw await explain(bytes, format, where, cause);
  }
}

/** Decoding costs no more than reading the header. */
const SMALL_PIXELS = 128 * 128;
/** As libvips says it. */
const PIXEL_LIMIT = 'exceeds pixel limit';

function sizeOf({ width, height }: Pixels): { width: number; height: number } {
  return { width, height };
}

function formatIn(bytes: Uint8Array, where: string): Format {
  if (!(bytes instanceof Uint8Array)) {
    throw new ImageError({
      where,
      expected: "an image's bytes as Uint8Array",
      received: bytes === null ? 'null' : typeof bytes,
      remedy: 'pass the encoded file, such as row.images[0].bytes',
    });
  }
  const sniffed = formatOf(bytes);
  if (sniffed.format === undefined) {
    throw new ImageError({
      where,
      expected: 'JPEG, PNG, WebP, GIF, TIFF or AVIF',
      received: sniffed.found,
      remedy: 'convert it to PNG or JPEG, or drop the row',
    });
  }
  return sniffed.format;
}

async function decodeAny(bytes: Uint8Array, format: Format): Promise<Pixels> {
  const small = format === 'png' ? decodeSmallPng(bytes) : undefined;
  return small ?? (await decode(bytes, format));
}

async function decode(bytes: Uint8Array, format: Format): Promise<Pixels> {
  const layout = format === 'tiff' ? await tiffLayout(bytes) : layoutOf(bytes, format);
  const image = sharp(bytes, strict).autoOrient();
  if (layout === 'cmyk') return fromCmyk(image);
  if (layout === 'gray16') return fromGray16(image);
  if (format === 'gif') return fromGif(image, bytes);
  const { data, info } = await image
    .toColourspace('srgb')
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

async function tiffLayout(bytes: Uint8Array): Promise<Layout> {
  const { space } = await sharp(bytes, strict).metadata();
  return space === 'cmyk' ? 'cmyk' : space === 'grey16' ? 'gray16' : 'ordinary';
}

/** Inks subtracted from white without a profile: each colour is (255 - k) (255 - ink) / 255, rounded as PIL rounds. */
async function fromCmyk(image: Sharp): Promise<Pixels> {
  const raw = image.pipelineColourspace('cmyk').toColourspace('cmyk').raw();
  const { data: inks, info } = await raw.toBuffer({ resolveWithObject: true });
  const data = new Uint8Array(info.width * info.height * 3);
  for (let from = 0, to = 0; to < data.length; from += info.channels, to += 3) {
    const light = 255 - inks[from + 3]!;
    for (let c = 0; c < 3; c++) {
      const product = inks[from + c]! * light + 128;
      data[to + c] = light - (((product >> 8) + product) >> 8);
    }
  }
  return { data, width: info.width, height: info.height };
}

async function fromGray16(image: Sharp): Promise<Pixels> {
  const raw = image.toColourspace('grey16').raw({ depth: 'ushort' });
  const { data: bytes, info } = await raw.toBuffer({ resolveWithObject: true });
  const grays = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stride = 2 * info.channels;
  const data = new Uint8Array(info.width * info.height * 3);
  for (let i = 0; i < info.width * info.height; i++) {
    data.fill(Math.min(255, grays.getUint16(i * stride, true)), 3 * i, 3 * i + 3);
  }
  return { data, width: info.width, height: info.height };
}

/** Transparent pixels get the colour of their palette entry, which libvips leaves out. */
async function fromGif(image: Sharp, bytes: Uint8Array): Promise<Pixels> {
  const { data: rgba, info } = await image
    .toColourspace('srgb')
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const backdrop = gifBackdrop(bytes) ?? [0, 0, 0];
  const data = new Uint8Array(info.width * info.height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const visible = rgba[from + 3] !== 0;
    for (let c = 0; c < 3; c++) data[to + c] = visible ? rgba[from + c]! : backdrop[c]!;
  }
  return { data, width: info.width, height: info.height };
}

/** The fault behind sharp's error. */
async function explain(
  bytes: Uint8Array,
  format: Format,
  where: string,
  cause: unknown,
): Promise<ImageError> {
  const reason = messageOf(cause).split('\n')[0]!;
  if (reason.includes(PIXEL_LIMIT)) {
    const { width, height } = await sharp(bytes, { limitInputPixels: false, failOn: 'none' }).metadata();
    const size = `${width} x ${height}, ${Math.round((width * height) / 1e6)} megapixels`;
    return new ImageError(
      {
        where,
        expected: `at most ${MAX_PIXELS / 1e6} megapixels`,
        received: size,
        remedy: 'scale it down beforehand, or drop the row',
      },
      { cause },
    );
  }
  return new ImageError(
    {
      where,
      expected: `a whole, intact ${format.toUpperCase()}`,
      received: `${bytes.length} bytes that do not decode (${reason})`,
      remedy: 'the file is truncated or corrupt: fetch it again, or drop the row',
    },
    { cause },
  );
}
