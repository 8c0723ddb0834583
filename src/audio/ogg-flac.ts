// FLAC in Ogg: a packet is a metadata block or a frame, as they stand in FLAC's own files.

import { damaged } from './faults.js';
import { FlacDecoder, streamInfo } from './flac.js';
import type { OggDecoder } from './ogg-decoder.js';
import { PacketJoiner } from './ogg-packets.js';
import type { OggPage } from './ogg-page.js';

/** Behind the marker, two bytes of version, two of the number of headers, and FLAC's own marker. */
const INFO_OFFSET = 13;

export class OggFlac implements OggDecoder {
  readonly #joiner = new PacketJoiner();

  private constructor(readonly flac: FlacDecoder) {}

  /** @param packet the first header */
  static async open(packet: Uint8Array, where: string): Promise<OggFlac> {
    if (packet.length < INFO_OFFSET + 38) throw damaged(where, 'FLAC', 'no STREAMINFO block');
    return new OggFlac(await FlacDecoder.create(streamInfo(packet.subarray(INFO_OFFSET), where), where));
  }

  get sampleRateHz(): number {
    return this.flac.info.sampleRateHz;
  }

  push(page: OggPage): Float32Array[] {
    // Frames begin with all ones, as no metadata block does.
    const frames = this.#joiner.push(page).filter((packet) => packet[0] === 0xff);
    return frames.map((frame) => this.flac.push(frame)).filter((piece) => piece !== undefined);
  }

  finish(): Float32Array[] {
    const piece = this.flac.finish();
    return piece ? [piece] : [];
  }

  free(): void {
    this.flac.free();
  }

  samplesAt(granule: number): number {
    return granule;
  }
}
