// Opus in Ogg (RFC 7845) through libopus, at 48 kHz whatever the encoder was given.

import { createOpusDecoder } from '@audio/decode-opus/core';
import { checkHeader, damaged } from './faults.js';
import type { OggDecoder } from './ogg-decoder.js';
import { PacketJoiner } from './ogg-packets.js';
import type { OggPage } from './ogg-page.js';
import { mixChannels } from './pcm.js';
import { viewOf } from './source.js';

const RATE_HZ = 48_000;

type LibOpus = Awaited<ReturnType<typeof createOpusDecoder>>;

export class OggOpus implements OggDecoder {
  readonly sampleRateHz = RATE_HZ;
  readonly #joiner = new PacketJoiner();
  #numDecoded = 0;
  /** The packet behind the header holds the clip's title and the like. */
  #isTagged = false;
  /** Position of the first sample, pre-skip included; not zero where a recording begins within a broadcast. */
  #start: number | undefined;

  private constructor(
    readonly where: string,
    readonly libOpus: LibOpus,
    readonly preSkip: number,
  ) {}

  /** @param packet the identification header */
  static async open(packet: Uint8Array, where: string): Promise<OggOpus> {
    if (packet.length < 19 || packet[8]! >> 4 !== 0) throw damaged(where, 'Opus', 'no header that is known');
    const view = viewOf(packet);
    const channels = packet[9]!;
    checkHeader(where, 'Opus', RATE_HZ, channels);
    const mapped = packet[18] !== 0;
    if (mapped && packet.length < 21 + channels) throw damaged(where, 'Opus', 'no channel mapping');
    const preSkip = view.getUint16(10, true);
    const libOpus = await createOpusDecoder();
    libOpus.configure({
      channels,
      preSkip,
      outputGain: view.getInt16(16, true),
      ...(mapped && {
        streamCount: packet[19]!,
        coupledStreamCount: packet[20]!,
        channelMappingTable: packet.slice(21, 21 + channels),
      }),
    });
    return new OggOpus(where, libOpus, preSkip);
  }

  push(page: OggPage): Float32Array[] {
    const packets = this.#joiner.push(page).filter((packet) => packet.length > 0);
    if (!this.#isTagged) this.#isTagged = packets.shift() !== undefined;
    const pieces: Float32Array[] = [];
    const before = this.#numDecoded;
    // Packet by packet: a few bytes may hold a second of many channels.
    for (const packet of packets) {
      const { errors, channelData } = this.libOpus.decodeFrames([packet]);
      if (errors[0]) throw damaged(this.where, 'Opus', errors[0].message);
      const piece = mixChannels(channelData);
      this.#numDecoded += piece.length;
      if (piece.length > 0) pieces.push(piece);
    }
    if (this.#start === undefined && packets.length > 0 && page.granule !== undefined) {
      const inPage = packets.reduce((sum, packet) => sum + packetSamples(packet), 0);
      // The last page may end before its packets do; then it says so by its position, and the stream began at zero.
      this.#start = page.isLast ? 0 : Math.max(0, page.granule - inPage);
    }
    if (!page.isLast) return pieces;
    const end = page.granule === undefined ? Infinity : this.samplesAt(page.granule);
    return keepFirst(pieces, end - before);
  }

  finish(): Float32Array[] {
    return [];
  }

  free(): void {
    this.libOpus.free();
  }

  samplesAt(granule: number): number {
    return Math.max(0, granule - (this.#start ?? 0) - this.preSkip);
  }
}

/** Samples at 48 kHz that a packet holds, from its first bytes (RFC 6716, section 3.1). */
function packetSamples(packet: Uint8Array): number {
  const [toc, second] = [packet[0]!, packet[1] ?? 0];
  const mode = toc >> 3;
  const frame =
    mode < 12 ? [480, 960, 1920, 2880][mode & 3]! : mode < 16 ? [480, 960][mode & 1]! : 120 << (mode & 3);
  const count = [1, 2, 2, second & 63][toc & 3]!;
  return frame * count;
}

/** The first `length` samples. */
function keepFirst(pieces: readonly Float32Array[], length: number): Float32Array[] {
  let left = length;
  return pieces.flatMap((piece) => {
    const kept = piece.subarray(0, Math.max(0, left));
    left -= piece.length;
    return kept.length > 0 ? [kept] : [];
  });
}
