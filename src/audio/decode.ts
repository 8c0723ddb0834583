// Encoded bytes to samples that the model hears: one channel (the mean of all), at one rate, in worker threads.

import { AudioError } from '../errors.js';
import { codecInContainer } from './codec.js';
import { compiledModule } from './compiled.js';
import type { ClipRequest } from './decode-clip.js';
import { NeedsFfmpeg } from './faults.js';
import { extractWav, findFfmpeg } from './ffmpeg.js';
import { sniff } from './format.js';
import { DecoderPool } from './pool.js';
import { type DecodedAudio, MAX_RATE_HZ, MIN_RATE_HZ } from './types.js';

export interface DecodeOptions {
  /** Decoding stops there, so that a clip of hours costs no more. */
  readonly maxSeconds?: number;
  /** Rate of the result. */
  readonly sampleRateHz?: number;
  readonly signal?: AbortSignal;
}

let threads: DecoderPool | undefined;

/** Decodes one clip off the JavaScript thread: WAV, AIFF, MP3, FLAC, Ogg (Vorbis, Opus, FLAC) here, other codecs and the
 *  sound of videos through ffmpeg where it is installed. What a file is, its bytes say.
 *
 *  Channels become one by their mean; the rate is changed as ffmpeg changes it, within 1e-6. A clip longer than `maxSeconds`
 *  is cut there and says so in `cutFromSeconds`: the whole length as its header tells, or as estimated from its bytes and
 *  bitrate (MP3 without such a header), and never less than was decoded.
 *
 *  A FLAC, WAV or AIFF file that ends too early, within what is wanted of it, is an error that tells how much is missing; an
 *  Ogg file that lacks a page or ends within one is an error too. An MP3, or an Ogg file that ends after a page, cannot be
 *  told from a whole one: where the row states a duration, compare it.
 *  @param bytes the encoded file; must stay unchanged until the promise settles
 *  @param where names the clip in errors
 *  @throws {AudioError} when it is no sound, of a codec that nothing here decodes, damaged, empty, of more than 64 channels,
 *    or holds samples that are not finite; the signal's reason when it is aborted */
export async function decodeAudio(
  bytes: Uint8Array,
  where = 'audio',
  { maxSeconds = 30, sampleRateHz = 16_000, signal }: DecodeOptions = {},
): Promise<DecodedAudio> {
  check(bytes, where, maxSeconds, sampleRateHz);
  signal?.throwIfAborted();
  const sniffed = sniff(bytes);
  if (sniffed.kind === 'unknown') {
    throw new AudioError({
      where,
      expected: 'WAV, MP3, FLAC, Ogg Vorbis or Opus, or what ffmpeg decodes',
      received: sniffed.found,
      remedy: 'pass the bytes of a file of sound, or drop the row',
    });
  }
  const wanted = { where, maxSeconds, sampleRateHz };
  if (sniffed.kind === 'ffmpeg') {
    const found = codecInContainer(bytes, sniffed.demuxer, sniffed.container);
    return throughFfmpeg(bytes, sniffed.demuxer, found, wanted, signal);
  }
  try {
    return await pool().decode(bytes, { ...wanted, format: sniffed.format }, signal);
  } catch (error) {
    if (!(error instanceof NeedsFfmpeg)) throw error;
    return throughFfmpeg(bytes, error.demuxer, error.found, wanted, signal);
  }
}

async function throughFfmpeg(
  bytes: Uint8Array,
  demuxer: string,
  found: string,
  wanted: Omit<ClipRequest, 'format'>,
  signal: AbortSignal | undefined,
): Promise<DecodedAudio> {
  const { where, maxSeconds } = wanted;
  const ffmpeg = findFfmpeg();
  if (ffmpeg === undefined) throw new NeedsFfmpeg(where, demuxer, found);
  const { wav, seconds } = await extractWav(ffmpeg, bytes, { where, demuxer, found, maxSeconds, signal });
  const decoded = await pool().decode(wav, { ...wanted, format: 'wav' }, signal);
  const { cutFromSeconds } = decoded;
  // The extract ends soon after what is wanted; only the container knows how much there is.
  return cutFromSeconds === undefined
    ? decoded
    : { ...decoded, cutFromSeconds: Math.max(cutFromSeconds, seconds ?? 0) };
}

function check(bytes: Uint8Array, where: string, maxSeconds: number, sampleRateHz: number): void {
  const fault = (expected: string, received: string, remedy: string): AudioError =>
    new AudioError({ where, expected, received, remedy });
  if (!(bytes instanceof Uint8Array)) {
    const received = bytes === null ? 'null' : typeof bytes;
    throw fault("a clip's bytes as Uint8Array", received, 'pass the encoded file, such as row.audio.bytes');
  }
  if (!(maxSeconds > 0 && Number.isFinite(maxSeconds))) {
    throw fault('maxSeconds above 0', String(maxSeconds), 'pass a number of seconds');
  }
  if (!(Number.isInteger(sampleRateHz) && sampleRateHz >= MIN_RATE_HZ && sampleRateHz <= MAX_RATE_HZ)) {
    const expected = `sampleRateHz, a whole number from ${MIN_RATE_HZ} to ${MAX_RATE_HZ}`;
    throw fault(expected, String(sampleRateHz), 'pass the rate of the feature extractor');
  }
}

function pool(): DecoderPool {
  return (threads ??= new DecoderPool({ entry: compiledModule('worker.js') }));
}
