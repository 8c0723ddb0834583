// How long a clip may be for the model of a folder: its audio tower gives one frame of several, and each needs a soft token.

import { type ConfigFile, isObject, type Json } from './processor-files.js';

/** The most frames of a clip's features, by config.json; undefined where that is not told, or no model's.
 *  What it leaves out is as in Gemma 3n: 188 soft tokens, each for 2 x 2 x 4 frames. */
export function maxClipFrames({ config }: ConfigFile): number | undefined {
  const audio = config['audio_config'];
  if (!isObject(audio)) return undefined;
  const softTokens = config['audio_soft_tokens_per_image'] ?? 188;
  const factors = [softTokens, ...strides(audio), audio['conf_reduction_factor'] ?? 4];
  const frames = factors.reduce<number>((product, n) => product * (typeof n === 'number' ? n : NaN), 1);
  return Number.isSafeInteger(frames) && frames > 0 ? frames : undefined;
}

/** Of the two convolutions that shorten the input, over time. */
function strides({ sscp_conv_stride_size: sizes = [[2], [2]] }: Json): unknown[] {
  if (!Array.isArray(sizes)) return [undefined];
  return sizes.map((size: unknown) => (Array.isArray(size) ? (size[0] as unknown) : undefined));
}
