// The errors that every format shares.

import { AudioError, messageOf } from '../errors.js';
import { MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ } from './types.js';

/** A clip in a codec or container that the system's ffmpeg may know: caught where ffmpeg can be asked. */
export class NeedsFfmpeg extends AudioError {
  /** @param demuxer FFmpeg's name of the container @param found in words, as "ADPCM in WAV" */
  constructor(
    where: string,
    readonly demuxer: string,
    readonly found: string,
  ) {
    super({
      where,
      expected: 'WAV, MP3, FLAC, Ogg Vorbis or Opus, or ffmpeg on PATH for other formats',
      received: `${found}, and no ffmpeg`,
      remedy: 'install ffmpeg, convert the clip to FLAC, or drop the row',
    });
    this.name = 'AudioError';
  }
}

/** @param format as people call it @param reason what the reader of the format said */
export function damaged(where: string, format: string, reason: unknown): AudioError {
  return new AudioError(
    {
      where,
      expected: `a whole, intact ${format} file`,
      received: `bytes that do not decode (${messageOf(reason).split('\n')[0]})`,
      remedy: 'the file is truncated or corrupt: fetch it again, or drop the row',
    },
    reason instanceof Error ? { cause: reason } : undefined,
  );
}

/** A file that ends before the samples that its header promises. */
export function truncated(
  where: string,
  format: string,
  declared: number,
  there: number,
  rateHz: number,
): AudioError {
  const seconds = (samples: number): string => `${samples} samples (${(samples / rateHz).toFixed(2)} s)`;
  return new AudioError({
    where,
    expected: `${seconds(declared)} as its ${format} header says`,
    received: `${seconds(there)}, ${seconds(declared - there)} missing`,
    remedy: 'the file is truncated or corrupt: fetch it again, or drop the row',
  });
}

export function noSamples(where: string): AudioError {
  return new AudioError({
    where,
    expected: 'at least one sample',
    received: 'none',
    remedy: 'the clip is empty: fetch it again, or drop the row',
  });
}

/** Refuses what no recorder writes. @throws {AudioError} */
export function checkHeader(where: string, format: string, sampleRateHz: number, numChannels: number): void {
  const faulty = (expected: string, received: string): AudioError =>
    new AudioError({
      where,
      expected: `${expected} in its ${format} header`,
      received,
      remedy: 'the header is damaged: fetch the file again, or drop the row',
    });
  if (!(numChannels >= 1 && numChannels <= MAX_CHANNELS)) {
    throw faulty(`1 to ${MAX_CHANNELS} channels`, String(numChannels));
  }
  if (!(sampleRateHz >= MIN_RATE_HZ && sampleRateHz <= MAX_RATE_HZ)) {
    throw faulty(`${MIN_RATE_HZ} to ${MAX_RATE_HZ} samples a second`, String(sampleRateHz));
  }
}

/** The rate that a clip begins with must stay. @throws {AudioError} */
export function checkRate(received: number, expected: number, format: string, where: string): void {
  if (received === expected) return;
  throw new AudioError({
    where,
    expected: `one sampling rate throughout the ${format} file, ${expected} Hz as at its beginning`,
    received: `${received} Hz further on`,
    remedy: 'encode the clip anew, or drop the row',
  });
}
