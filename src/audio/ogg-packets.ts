// Packets from pages: some go on over several.

import type { OggPage } from './ogg-page.js';

/** No packet of sound is longer. */
const MAX_PACKET_BYTES = 2 ** 24;

/** Puts packets together. */
export class PacketJoiner {
  #open: Uint8Array[] | undefined;

  /** The packets that end in `page`. */
  push({ segments, isContinued, isOpen }: OggPage): Uint8Array[] {
    const packets: Uint8Array[] = [];
    segments.forEach((segment, index) => {
      const goesOn = index === 0 && isContinued;
      // The rest of a packet whose beginning is not there is of no use.
      if (goesOn && !this.#open) return;
      const parts = goesOn && this.#open ? [...this.#open, segment] : [segment];
      const length = parts.reduce((sum, part) => sum + part.length, 0);
      if (length > MAX_PACKET_BYTES) throw new Error(`a packet of more than ${MAX_PACKET_BYTES} bytes`);
      const open = isOpen && index === segments.length - 1;
      this.#open = open ? parts : undefined;
      if (!open) packets.push(join(parts, length));
    });
    return packets;
  }
}

function join(parts: readonly Uint8Array[], length: number): Uint8Array {
  const [only] = parts;
  if (parts.length === 1 && only) return only;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
