// MPEG audio (MP3, and layers 1 and 2) through mpg123. It plays what frames it finds: neither a file that is cut off nor
// one with gaps can be told from a whole one.

import { decoder } from '@audio/decode-mp3';
import { checkHeader, checkRate, damaged } from './faults.js';
import { firstFrame, id3Length, mpegFrame, statedSamples } from './mpeg-frame.js';
import { mixChannels } from './pcm.js';
import { piecesOf, type Source } from './source.js';
import type { Stream } from './types.js';

/** Bytes in which the first frame must lie, behind the tags. */
const SEARCHED_BYTES = 2 ** 18;

/** Opens a file of MPEG audio. @throws {AudioError} when it has no frames */
export async function openMp3(source: Source, where: string): Promise<Stream> {
  const start = await skipTags(source);
  const bytes = await source.read(start, SEARCHED_BYTES);
  const at = firstFrame(bytes, 0, start + bytes.length >= source.length);
  const frame = at === undefined ? undefined : mpegFrame(bytes, at);
  if (at === undefined || !frame) throw damaged(where, 'MP3', 'no frames of MPEG audio');
  const { sampleRateHz } = frame;
  checkHeader(where, 'MP3', sampleRateHz, 2);
  return {
    sampleRateHz,
    pieces: decode(source, start + at, sampleRateHz, where),
    totalSeconds: async () => {
      const stated = statedSamples(bytes, at);
      if (stated !== undefined) return stated / sampleRateHz;
      return (source.length - start - at) / bytesPerSecond(bytes, at);
    },
  };
}

/** Where the tags in front end; pictures in them may be long. */
export async function skipTags(source: Source): Promise<number> {
  for (let at = 0; ;) {
    const length = id3Length(await source.read(at, 10));
    if (length === 0) return at;
    at += length;
  }
}

/** Of the frames that follow each other from `start` on: exact for a file of one bitrate, near for others. */
function bytesPerSecond(bytes: Uint8Array, start: number): number {
  let [at, seconds] = [start, 0];
  for (let frame = mpegFrame(bytes, at); frame; frame = mpegFrame(bytes, at)) {
    seconds += frame.numSamples / frame.sampleRateHz;
    at += frame.numBytes;
  }
  return (at - start) / seconds;
}

async function* decode(
  source: Source,
  from: number,
  sampleRateHz: number,
  where: string,
): AsyncGenerator<Float32Array> {
  const mpg123 = await decoder();
  try {
    for await (const bytes of piecesOf(source, from, source.length)) {
      const decoded = mpg123.decode(bytes);
      if (!decoded.channelData[0]?.length) continue;
      checkRate(decoded.sampleRate, sampleRateHz, 'MP3', where);
      // One channel comes out twice.
      yield mixChannels(decoded.channelData);
    }
  } finally {
    mpg123.free();
  }
}
