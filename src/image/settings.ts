// How a model wants its images: preprocessor_config.json as Hugging Face writes it (SigLIP's processor), decoded.

import { ImageError } from '../errors.js';
import { decode, z } from '../schema.js';

/** What becomes of a channel's 8-bit value v, in float32: v * by, or (v - shift) / by. */
export interface Scaling {
  /** The three channels' shifts, then their `by`. */
  readonly numbers: Float32Array;
  readonly divide: boolean;
}

/** What happens to pixels before the model sees them. */
export interface ImageSettings {
  /** Every image becomes this size; undefined leaves sizes as they are. */
  readonly size?: { readonly height: number; readonly width: number };
  /** Both with antialias. */
  readonly resample: 'bilinear' | 'bicubic';
  readonly scaling: Scaling;
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
    scaling: scalingOf({
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

/** Rounded to float32 where transformers' processor rounds: v * factor, or (v - mean / factor) / (std / factor). */
function scalingOf({
  factor,
  mean,
  std,
}: {
  factor: number | undefined;
  mean: number | readonly number[] | undefined;
  std: number | readonly number[];
}): Scaling {
  if (mean === undefined) {
    const by = factor ?? 1;
    return { numbers: Float32Array.of(0, 0, 0, by, by, by), divide: false };
  }
  const levels = Math.fround(1 / (factor ?? 1));
  const scaled = (value: number | readonly number[]): number[] =>
    [0, 1, 2].map((c) => Math.fround(typeof value === 'number' ? value : value[c]!) * levels);
  return { numbers: Float32Array.of(...scaled(mean), ...scaled(std)), divide: true };
}

function unsupported(where: string, key: string, expected: string, received: string): ImageError {
  return new ImageError({
    where: `${where}: ${key}`,
    expected,
    received,
    remedy: "use the model's own preprocessor_config.json",
  });
}
