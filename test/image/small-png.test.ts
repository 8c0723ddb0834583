import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeSmallPng } from '../../src/image/small-png.js';
import { pictureBytes } from '../reference/processor-values.js';

/** Bytes that look random, and repeat in every run. */
function noise(length: number, levels = 256): Uint8Array {
  let state = length;
  return Uint8Array.from(
    { length },
    () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % levels,
  );
}

const kinds = [1, 2, 3, 4].flatMap((channels) =>
  [true, false].flatMap((adaptiveFiltering) =>
    [
      [1, 1],
      [5, 3],
      [64, 64],
      [97, 31],
    ].map(([width, height]) => ({
      channels: channels as 1 | 2 | 3 | 4,
      adaptiveFiltering,
      width: width!,
      height: height!,
    })),
  ),
);

describe('decodeSmallPng', () => {
  it.each(kinds)('gives what sharp gives: %j', async ({ channels, adaptiveFiltering, width, height }) => {
    for (const levels of [256, 4]) {
      const raw = sharp(noise(width * height * channels, levels), { raw: { width, height, channels } });
      const png = await raw.png({ adaptiveFiltering }).toBuffer();
      const expected = await sharp(png).toColourspace('srgb').removeAlpha().raw().toBuffer();
      expect(decodeSmallPng(png)).toEqual({ data: new Uint8Array(expected), width, height });
    }
  });

  it('looks palettes up', async () => {
    const raw = sharp(noise(40 * 40 * 3), { raw: { width: 40, height: 40, channels: 3 } });
    const png = await raw.png({ palette: true, colours: 200 }).toBuffer();
    expect(png[25]).toBe(3);
    const expected = await sharp(png).removeAlpha().raw().toBuffer();
    expect(decodeSmallPng(png)!.data).toEqual(new Uint8Array(expected));
  });

  it.each(['larger.png', 'gray16.png', 'bits.png', 'palette.png'])(
    'decodes or leaves %s to sharp',
    (name) => {
      expect(decodeSmallPng(pictureBytes(name)) === undefined).toBe(name !== 'larger.png');
    },
  );

  it('leaves what is large or interlaced to sharp', async () => {
    const raw = (side: number) =>
      sharp(noise(side * side * 3), { raw: { width: side, height: side, channels: 3 } });
    expect(decodeSmallPng(await raw(128).png().toBuffer())).toBeDefined();
    expect(decodeSmallPng(await raw(129).png().toBuffer())).toBeUndefined();
    expect(decodeSmallPng(await raw(16).png({ progressive: true }).toBuffer())).toBeUndefined();
  });

  it('leaves damage to sharp, wherever it is', () => {
    const png = pictureBytes('rgba.png');
    for (let at = 8; at < png.length; at++) {
      const damaged = png.slice();
      damaged[at]! ^= 1 + (at % 255);
      expect(decodeSmallPng(damaged), `byte ${at}`).toBeUndefined();
    }
    for (let length = 0; length < png.length; length += 7) {
      expect(decodeSmallPng(png.slice(0, length)), `cut at ${length}`).toBeUndefined();
    }
  });
});
