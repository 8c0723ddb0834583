// How a model wants its images: preprocessor_config.json as Hugging Face writes it (SigLIP's processor), decoded.

import { ImageError } from '../errors.js';
import { decode, z } from '../schema.js';

/** What happens to pixels before the model sees them. */
export interface ImageSettings {
  /** Every image becomes this size; undefined leaves sizes as they are. */
  readonly size?: { readonly height: number; readonly width: number };
  /** Both with antialias. */
  readonly resample: 'bilinear' | 'bicubic';
  /** [3, 256] float32: what a channel's 8-bit value becomes. */
  readonly table: Float32Array;
}

const flag = z.boolean().nullish();
const triple = z.union([z.number(), z.array(z.number()).length(3)]).nullish();

// Not strict: the file is not ours, and holds the audio extractor's keys as well.
const schema = z.object({
  do_resize: flag,
  size: z.record(z.string(), z.number().nullable()).nullish(),
  resample: z.number().int().nullish(),
  do_rescale: flag,
  rescale_factor: z.number().nullish(),
  do_normalize: flag,
  image_mean: triple,
  image_std: triple,
  do_center_crop: flag,
  do_pad: flag,
});

const resamples: Readonly<Record<number, ImageSettings['resample']>> = { 2: 'bilinear', 3: 'bicubic' };

/** Decodes the image part of a preprocessor_config.json; what it leaves out is as in SigLIP's processor.
 *  @throws {ConfigError} on values of the wrong type
 *  @throws {ImageError} on settings that are not supported: a size that keeps the aspect, crops, other filters */
export function imageSettings(value: unknown, where: string): ImageSettings {
  const config = decode(schema, value, where);
  for (const key of ['do_center_crop', 'do_pad'] as const) {
    if (config[key]) throw unsupported(where, key, 'false', 'true');
  }
  const resample = resamples[config.resample ?? 3];
  if (!resample) throw unsupported(where, 'resample', '2 (bilinear) or 3 (bicubic)', String(config.resample));
  return {
    ...(config.do_resize === false ? {} : { size: sizeOf(config.size, where) }),
    resample,
    table: valueTable({
      factor: config.do_rescale === false ? undefined : (config.rescale_factor ?? 1 / 255),
      mean: config.do_normalize === false ? undefined : (config.image_mean ?? 0.5),
      std: config.image_std ?? 0.5,
    }),
  };
}

function sizeOf(
  size: Record<string, number | null> | null | undefined,
  where: string,
): { height: number; width: number } {
  const { height, width, ...others } = size ?? { height: 224, width: 224 };
  const fits = Number.isInteger(height) && Number.isInteger(width) && height! > 0 && width! > 0;
  if (!fits || Object.values(others).some((value) => value !== null)) {
    throw unsupported(where, 'size', '{ height, width } in whole pixels', JSON.stringify(size));
  }
  return { height: height!, width: width! };
}

/** What each 8-bit value becomes, in float32 arithmetic in the order of transformers' processor:
 *  v * factor, or (v - mean / factor) / (std / factor). */
export function valueTable({
  factor,
  mean,
  std,
}: {
  factor?: number | undefined;
  mean?: number | readonly number[] | undefined;
  std: number | readonly number[];
}): Float32Array {
  const f32 = Math.fround;
  const at = (value: number | readonly number[], c: number): number =>
    typeof value === 'number' ? value : value[c]!;
  const table = new Float32Array(3 * 256);
  for (let c = 0; c < 3; c++) {
    const scale = f32(1 / (factor ?? 1));
    const shift = mean === undefined ? 0 : f32(f32(at(mean, c)) * scale);
    const spread = f32(f32(at(std, c)) * scale);
    for (let v = 0; v < 256; v++) {
      if (mean !== undefined) table[256 * c + v] = f32(v - shift) / spread;
      else table[256 * c + v] = factor === undefined ? v : v * f32(factor);
    }
  }
  return table;
}

function unsupported(where: string, key: string, expected: string, received: string): ImageError {
  return new ImageError({
    where: `${where}: ${key}`,
    expected,
    received,
    remedy: "use the model's own preprocessor_config.json",
  });
}
