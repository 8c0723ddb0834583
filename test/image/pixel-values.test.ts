import { describe, expect, it } from 'vitest';
import { decodeImage, imageSettings, pixelValues, resizeImage } from '../../src/image/index.js';
import { picturePlanes, pictureBytes, resizeCases, values } from '../reference/processor-values.js';

const size = { height: 64, width: 64 };
const settings = imageSettings({ size, resample: 2, do_normalize: false }, 'preprocessor_config.json');

/** The largest difference, in 8-bit levels. */
function levels(a: Float32Array | Uint8Array, b: Float32Array | Uint8Array, scale = 1): number {
  expect(a.length).toBe(b.length);
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!) * scale));
}

describe('pixelValues', () => {
  it.each(values.images)('of %s equal the reference', async (name) => {
    const { data, shape } = await pixelValues([await decodeImage(pictureBytes(name), name)], settings);
    expect(shape).toEqual([1, 3, 64, 64]);
    expect(levels(data, picturePlanes(name), 255)).toBe(0);
    expect(data).toEqual(picturePlanes(name));
  });

  it('puts images behind each other', async () => {
    const names = ['same-size.png', 'large.jpg', 'one-pixel.png'];
    const images = await Promise.all(names.map((name) => decodeImage(pictureBytes(name))));
    const { data, shape } = await pixelValues(images, settings);
    expect(shape).toEqual([3, 3, 64, 64]);
    expect(data).toEqual(Float32Array.from(names.flatMap((name) => [...picturePlanes(name)])));
  });

  it('keeps sizes when nothing resizes, if they are all the same', async () => {
    const keep = imageSettings({ do_resize: false, do_rescale: false, do_normalize: false }, 'p.json');
    const image = { data: Uint8Array.from([1, 2, 3, 4, 5, 6]), width: 2, height: 1 };
    expect(await pixelValues([image], keep)).toEqual({
      data: Float32Array.from([1, 4, 2, 5, 3, 6]),
      shape: [1, 3, 1, 2],
    });
    await expect(pixelValues([image, { ...image, width: 1, height: 2 }], keep)).rejects.toThrow(
      'image 1: expected 1 x 2 pixels like the first image, received 2 x 1; set do_resize and size in preprocessor_config.json',
    );
  });

  it('refuses data that does not fit the size', async () => {
    const image = { data: new Uint8Array(5), width: 2, height: 1 };
    await expect(pixelValues([image], settings, 'row 7')).rejects.toThrow(
      'row 7: expected RGB bytes [height, width, 3], received 5 bytes for 1 x 2; pass pixels as decodeImage gives them',
    );
    await expect(pixelValues([], settings)).rejects.toThrow(
      'image: expected an image, received none; pass at least one',
    );
  });
});

describe('resizeImage', () => {
  it.each(resizeCases().map((entry) => [entry.resample, entry.from, entry.to, entry] as const))(
    '%s from %j to %j equals torchvision',
    async (resample, [height, width], [outHeight, outWidth], { input, output }) => {
      const result = await resizeImage(
        { data: input, height, width },
        { height: outHeight, width: outWidth },
        resample,
      );
      expect(levels(result.data, output)).toBe(0);
    },
  );

  it('leaves the input as it was and takes many at once', async () => {
    const data = Uint8Array.from({ length: 300 }, (_, i) => i % 251);
    const image = { data, height: 10, width: 10 };
    const results = await Promise.all(
      Array.from({ length: 40 }, () => resizeImage(image, { height: 7, width: 13 })),
    );
    for (const result of results) expect(result.data).toEqual(results[0]!.data);
    expect(data).toEqual(Uint8Array.from({ length: 300 }, (_, i) => i % 251));
  });
});

describe('imageSettings', () => {
  const bits = (name: keyof typeof values.normalised): Float32Array =>
    new Float32Array(Int32Array.from(values.normalised[name]).buffer);

  /** What becomes of the values 0 to 255 in each channel. */
  async function scaled(config: object): Promise<Float32Array> {
    const ramp = Uint8Array.from({ length: 3 * 256 }, (_, i) => Math.floor(i / 3));
    const settings = imageSettings({ do_resize: false, ...config }, 'p.json');
    return (await pixelValues([{ data: ramp, height: 1, width: 256 }], settings)).data;
  }

  it('rescale and normalise to the last bit as the reference does', async () => {
    const factor = 1 / 255;
    const mean = [0.485, 0.456, 0.406];
    const std = [0.229, 0.224, 0.225];
    expect(await scaled({ rescale_factor: factor, do_normalize: false })).toEqual(bits('rescale'));
    expect(await scaled({ rescale_factor: factor, image_mean: mean, image_std: std })).toEqual(bits('both'));
    const levels = { do_rescale: false, image_mean: [120, 110, 100], image_std: [60, 57, 55] };
    expect(await scaled(levels)).toEqual(bits('normalize'));
  });

  it('have the defaults of the reference', async () => {
    const { size, resample } = imageSettings({}, 'p.json');
    expect({ size, resample }).toEqual({ size: { height: 224, width: 224 }, resample: 'bicubic' });
    const ramp = await scaled({});
    expect([ramp[0], ramp[255]]).toEqual([-1, 1]);
  });

  it('refuse what is not done, and values of the wrong type', () => {
    const decode = (config: object) => () => imageSettings(config, 'p.json');
    const remedy = "use the model's own preprocessor_config.json";
    expect(decode({ size: { shortest_edge: 224 } })).toThrow(
      `p.json: size: expected { height, width } in whole pixels, received {"shortest_edge":224}; ${remedy}`,
    );
    expect(decode({ resample: 1 })).toThrow(
      `p.json: resample: expected 2 (bilinear) or 3 (bicubic), received 1; ${remedy}`,
    );
    expect(decode({ do_center_crop: true })).toThrow(
      `p.json: do_center_crop: expected false, received true; ${remedy}`,
    );
    expect(decode({ image_mean: 'half', size: 3 })).toThrow(/p\.json: size: [\s\S]*p\.json: image_mean: /);
  });
});
