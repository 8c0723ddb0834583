// Ogg: its first stream of sound, in Opus, Vorbis or FLAC. Streams that follow one another (chained, as radio stations
// send them) are one clip.

import { checkRate, damaged, NeedsFfmpeg } from './faults.js';
import type { OggDecoder } from './ogg-decoder.js';
import { OggFlac } from './ogg-flac.js';
import { lastGranule, type OggPage, oggPages } from './ogg-page.js';
import { OggOpus } from './opus.js';
import { latin, type Source, startsWith } from './source.js';
import type { Stream } from './types.js';
import { OggVorbis } from './vorbis.js';

/** Opens an Ogg file. @throws {AudioError} when it is damaged or has no sound @throws {NeedsFfmpeg} for other codecs */
export async function openOgg(source: Source, where: string): Promise<Stream> {
  const pages = oggPages(source, where);
  const others: string[] = [];
  for (let next = await pages.next(); !next.done && next.value.isFirst; next = await pages.next()) {
    const decoder = await decoderOf(next.value, where);
    if (!decoder) {
      others.push(codecOf(next.value));
      continue;
    }
    const { serial } = next.value;
    return {
      sampleRateHz: decoder.sampleRateHz,
      pieces: decode(pages, decoder, next.value, where),
      totalSeconds: async () => {
        const granule = await lastGranule(source, serial);
        return granule === undefined ? undefined : decoder.samplesAt(granule) / decoder.sampleRateHz;
      },
    };
  }
  if (others.length === 0) throw damaged(where, 'Ogg', 'no stream begins');
  throw new NeedsFfmpeg(where, 'ogg', `${others.join(' and ')} in Ogg`);
}

async function* decode(
  pages: AsyncGenerator<OggPage>,
  first: OggDecoder,
  opening: OggPage,
  where: string,
): AsyncGenerator<Float32Array> {
  let decoder: OggDecoder | undefined = first;
  let { serial, sequence } = opening;
  try {
    for await (const page of pages) {
      if (!decoder && page.isFirst) {
        decoder = await decoderOf(page, where);
        ({ serial, sequence } = page);
        if (decoder) checkRate(decoder.sampleRateHz, first.sampleRateHz, 'Ogg', where);
        continue;
      }
      if (!decoder || page.serial !== serial) continue;
      sequence += 1;
      if (page.sequence !== sequence) {
        throw damaged(where, 'Ogg', `page ${page.sequence} follows page ${sequence - 1}`);
      }
      yield* decoder.push(page);
      if (!page.isLast) continue;
      yield* decoder.finish();
      decoder.free();
      decoder = undefined;
    }
    if (decoder) yield* decoder.finish();
  } finally {
    decoder?.free();
  }
}

async function decoderOf(page: OggPage, where: string): Promise<OggDecoder | undefined> {
  const packet = page.segments[0] ?? new Uint8Array(0);
  if (startsWith(packet, 'OpusHead')) return OggOpus.open(packet, where);
  if (startsWith(packet, '\x01vorbis')) return OggVorbis.open(page, packet, where);
  if (startsWith(packet, '\x7fFLAC')) return OggFlac.open(packet, where);
  return undefined;
}

/** The name that a stream of another codec begins with. */
function codecOf({ segments }: OggPage): string {
  const start = latin(segments[0] ?? new Uint8Array(0), 0, 8);
  return /[A-Za-z]{3,}/.exec(start)?.[0] ?? 'an unknown codec';
}
