// How long a clip will be once it is decoded, from its header where that can be trusted: WAV, AIFF, and FLAC that states
// its samples. Of others the end must be looked for, so they are decoded.

import { AudioError } from '../errors.js';
import { decodeAudio, type DecodeOptions } from './decode.js';
import { NeedsFfmpeg, noSamples, truncated } from './faults.js';
import { sniff } from './format.js';
import { inputLength, resampledLength } from './resample.js';
import { type Source, sourceOf } from './source.js';
import type { DecodedAudio, Stream } from './types.js';

/** What `decodeAudio` would give, without the samples. */
export interface ClipLength extends Omit<DecodedAudio, 'data'> {
  readonly numSamples: number;
}

type Open = (source: Source, where: string) => Promise<Stream>;

const openers: Readonly<Record<string, { readonly name: string; readonly open: () => Promise<Open> }>> = {
  wav: { name: 'WAV', open: async () => (await import('./wav.js')).openWav },
  aiff: { name: 'AIFF', open: async () => (await import('./aiff.js')).openAiff },
  flac: { name: 'FLAC', open: async () => (await import('./flac.js')).openFlac },
};

/** The length of a clip as `decodeAudio` would decode it. Damage behind a header that can be trusted is not found.
 *  @throws {AudioError} as `decodeAudio`, as far as the header tells */
export async function clipLength(
  bytes: Uint8Array,
  where = 'audio',
  options: DecodeOptions = {},
): Promise<ClipLength> {
  const told = await lengthInHeader(bytes, where, options);
  if (told) return told;
  const { data, ...rest } = await decodeAudio(bytes, where, options);
  return { numSamples: data.length, ...rest };
}

async function lengthInHeader(
  bytes: Uint8Array,
  where: string,
  { maxSeconds = 30, sampleRateHz = 16_000 }: DecodeOptions,
): Promise<ClipLength | undefined> {
  if (!(bytes instanceof Uint8Array)) return undefined;
  const sniffed = sniff(bytes);
  const opener = sniffed.kind === 'known' ? openers[sniffed.format] : undefined;
  if (!opener) return undefined;
  let stream: Stream;
  try {
    stream = await (await opener.open())(sourceOf(bytes), where);
  } catch (error) {
    // What goes to ffmpeg is decoded, and a decoder's own fault is told as decoding tells it.
    if (error instanceof AudioError && !(error instanceof NeedsFfmpeg)) throw error;
    return undefined;
  }
  if (!stream.length) return undefined;
  const { stated, there } = stream.length;
  const { sampleRateHz: ownRate } = stream;
  const maxSamples = Math.round(maxSeconds * sampleRateHz);
  const enough = inputLength(maxSamples, ownRate, sampleRateHz) + 1;
  if (there < stated && there < enough) throw truncated(where, opener.name, stated, there, ownRate);
  if (stated === 0) throw noSamples(where);
  const seconds = stated / ownRate;
  return {
    numSamples: Math.min(maxSamples, resampledLength(stated, ownRate, sampleRateHz)),
    sampleRateHz,
    ...((stated >= enough || seconds > maxSeconds) && { cutFromSeconds: seconds }),
  };
}
