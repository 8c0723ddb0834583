import sharp from 'sharp';
import { deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { ImageError } from '../../src/errors.js';
import { decodeImage } from '../../src/image/index.js';
import { pictureBytes } from '../reference/processor-values.js';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

async function refusal(bytes: Uint8Array): Promise<string> {
  try {
    await decodeImage(bytes, 'train.parquet row 3, image 0');
  } catch (error) {
    expect(error).toBeInstanceOf(ImageError);
    return (error as Error).message;
  }
  return 'decoded';
}

/** A PNG that says it is as large as that and holds nothing. */
function emptyPng(width: number, height: number): Uint8Array {
  const chunk = (type: string, data: Uint8Array): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const whole = Buffer.alloc(body.length + 8);
    whole.writeUInt32BE(data.length, 0);
    body.copy(whole, 4);
    whole.writeUInt32BE(crc32(body), body.length + 4);
    return whole;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const parts = [
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(100))),
    chunk('IEND', new Uint8Array()),
  ];
  return new Uint8Array(Buffer.concat(parts));
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

describe('decodeImage', () => {
  it('gives RGB bytes by rows', async () => {
    const raw = Uint8Array.from([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    const png = await sharp(raw, { raw: { width: 3, height: 2, channels: 3 } })
      .png()
      .toBuffer();
    const { data, width, height } = await decodeImage(png);
    expect({ width, height, data: [...data] }).toEqual({ width: 3, height: 2, data: [...raw] });
  });

  it('decodes a view into a larger buffer, and leaves it as it was', async () => {
    const png = pictureBytes('gray.png');
    const padded = new Uint8Array(png.length + 20).fill(7);
    padded.set(png, 11);
    const { data } = await decodeImage(padded.subarray(11, 11 + png.length));
    expect(data).toEqual((await decodeImage(png)).data);
    expect(padded.subarray(11, 11 + png.length)).toEqual(png);
  });

  it('sets an image upright as its orientation tag says', async () => {
    const { width, height } = await decodeImage(pictureBytes('orientation-6.jpg'));
    expect({ width, height }).toEqual({ width: 20, height: 31 });
  });

  it.each([
    'large.jpg',
    'progressive.jpg',
    'cmyk.jpg',
    'rgba.png',
    'rgb16.png',
    'palette.gif',
    'lossy.webp',
    'lossless.webp',
    'rgb.tif',
  ])('refuses %s when it is cut short, wherever that is', async (name) => {
    const bytes = pictureBytes(name);
    for (const share of [0.3, 0.5, 0.7, 0.9, 0.97]) {
      const message = await refusal(bytes.slice(0, Math.floor(bytes.length * share)));
      expect(message).toMatch(
        /^train\.parquet row 3, image 0: expected a whole, intact \w+, received \d+ bytes that do not decode \(.+\); the file is truncated or corrupt: fetch it again, or drop the row$/,
      );
    }
  });

  it.each(['rgba.png', 'palette.gif', 'large.jpg'])(
    'refuses %s when its data is overwritten',
    async (name) => {
      const bytes = pictureBytes(name);
      bytes.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 60);
      expect(await refusal(bytes)).toMatch(/^train\.parquet row 3, image 0: expected a whole, intact /);
    },
  );

  it('refuses a 400-megapixel image before decoding it', async () => {
    const before = process.memoryUsage().rss;
    expect(await refusal(emptyPng(20_000, 20_000))).toBe(
      'train.parquet row 3, image 0: expected at most 50 megapixels, received 20000 x 20000, 400 megapixels; ' +
        'scale it down beforehand, or drop the row',
    );
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
  });

  it('refuses SVG in every dress', async () => {
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
    const message = (found: string): string =>
      `train.parquet row 3, image 0: expected JPEG, PNG, WebP, GIF, TIFF or AVIF, received ${found}; convert it to PNG or JPEG, or drop the row`;
    expect(await refusal(bytesOf(svg))).toBe(message('SVG'));
    expect(await refusal(bytesOf(`\ufeff \n<?xml version="1.0"?>\n<!-- x -->${svg}`))).toBe(message('SVG'));
    expect(await refusal(bytesOf(`<!DOCTYPE svg>${svg}`))).toBe(message('SVG'));
    expect(await refusal(bytesOf(`<!--${' '.repeat(2000)}-->${svg}`))).toBe(message('XML (SVG?)'));
  });

  it('refuses what is no image, and says what it is', async () => {
    expect(await refusal(new Uint8Array())).toContain('received no bytes;');
    expect(await refusal(bytesOf('%PDF-1.7 ...'))).toContain('received PDF;');
    expect(await refusal(bytesOf('<html><body>404</body></html>'))).toContain('received an HTML page;');
    expect(await refusal(bytesOf('BM......'))).toContain('received BMP;');
    expect(await refusal(Uint8Array.from([1, 2, 3]))).toContain(
      'received 3 bytes of no known format (they begin with 01 02 03);',
    );
    await expect(decodeImage('photo.png' as never)).rejects.toThrow(
      "image: expected an image's bytes as Uint8Array, received string; pass the encoded file, such as row.images[0].bytes",
    );
  });
});
