// Vorbis in Ogg through libvorbis.

import { decoder } from '@audio/decode-vorbis';
import { checkHeader, damaged } from './faults.js';
import type { OggDecoder } from './ogg-decoder.js';
import type { OggPage } from './ogg-page.js';
import { mixChannels } from './pcm.js';
import { viewOf } from './source.js';

type LibVorbis = Awaited<ReturnType<typeof decoder>>;

export class OggVorbis implements OggDecoder {
  private constructor(
    readonly where: string,
    readonly sampleRateHz: number,
    readonly libVorbis: LibVorbis,
  ) {}

  /** @param packet the identification header, which `page` holds */
  static async open(page: OggPage, packet: Uint8Array, where: string): Promise<OggVorbis> {
    if (packet.length < 30) throw damaged(where, 'Vorbis', 'no header that is known');
    const sampleRateHz = viewOf(packet).getUint32(12, true);
    checkHeader(where, 'Vorbis', sampleRateHz, packet[11]!);
    const libVorbis = await decoder();
    libVorbis.decode(page.bytes);
    return new OggVorbis(where, sampleRateHz, libVorbis);
  }

  push(page: OggPage): Float32Array[] {
    return monoOf(this.libVorbis.decode(page.bytes));
  }

  finish(): Float32Array[] {
    return monoOf(this.libVorbis.flush());
  }

  free(): void {
    this.libVorbis.free();
  }

  samplesAt(granule: number): number {
    return granule;
  }
}

function monoOf({ channelData }: ReturnType<LibVorbis['flush']>): Float32Array[] {
  const piece = mixChannels(channelData);
  return piece.length > 0 ? [piece] : [];
}
