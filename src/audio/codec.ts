// The codec inside a container, for the error that says what cannot be decoded here. A look, not a parser: what is not
// found is left out.

import { latin, viewOf } from './source.js';

const mp4Codecs: Readonly<Record<string, string>> = {
  mp4a: 'AAC',
  alac: 'ALAC',
  'ac-3': 'AC-3',
  'ec-3': 'E-AC-3',
  Opus: 'Opus',
  fLaC: 'FLAC',
  '.mp3': 'MP3',
  samr: 'AMR',
  sawb: 'AMR-WB',
  sowt: 'PCM',
  twos: 'PCM',
  lpcm: 'PCM',
  ulaw: 'mu-law',
  alaw: 'A-law',
};
const matroskaCodecs: Readonly<Record<string, string>> = {
  A_AAC: 'AAC',
  A_OPUS: 'Opus',
  A_VORBIS: 'Vorbis',
  A_FLAC: 'FLAC',
  A_AC3: 'AC-3',
  A_EAC3: 'E-AC-3',
};

/** The codec of a file's first track of sound, as "AAC in MP4"; the container alone where it cannot be found. */
export function codecInContainer(bytes: Uint8Array, demuxer: string, container: string): string {
  const codec =
    demuxer === 'mov' ? mp4Codec(bytes) : demuxer === 'matroska' ? matroskaCodec(bytes) : undefined;
  return codec ? `${codec} in ${container}` : container;
}

/** moov > trak > mdia > minf > stbl > stsd; a track of sound has smhd in its minf. */
function mp4Codec(bytes: Uint8Array): string | undefined {
  for (const moov of boxes(bytes, 'moov')) {
    for (const minf of boxes(moov, 'trak', 'mdia', 'minf')) {
      if (boxes(minf, 'smhd').length === 0) continue;
      for (const stsd of boxes(minf, 'stbl', 'stsd')) {
        const name = latin(stsd, 12, 16);
        return mp4Codecs[name] ?? `'${name}'`;
      }
    }
  }
  return undefined;
}

/** The contents of all boxes on a path. */
function boxes(bytes: Uint8Array, name: string, ...below: readonly string[]): Uint8Array[] {
  const found: Uint8Array[] = [];
  const view = viewOf(bytes);
  for (let at = 0, count = 0; at + 8 <= bytes.length && count < 10_000; count++) {
    let [size, head] = [view.getUint32(at), 8];
    if (size === 1 && at + 16 <= bytes.length) [size, head] = [Number(view.getBigUint64(at + 8)), 16];
    if (size === 0) size = bytes.length - at;
    if (size < head) break;
    if (latin(bytes, at + 4, at + 8) === name) found.push(bytes.subarray(at + head, at + size));
    at += size;
  }
  const [next, ...rest] = below;
  return next === undefined ? found : found.flatMap((box) => boxes(box, next, ...rest));
}

function matroskaCodec(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 2 ** 16)).toString(
    'latin1',
  );
  // The element CodecID: its mark, its length in one byte, its text.
  const [, length, text] = /\x86([\x82-\xa0])(A_[A-Z0-9_/]+)/.exec(head) ?? [];
  const id = length && text?.slice(0, length.charCodeAt(0) & 0x7f);
  return id && (matroskaCodecs[id.split('/')[0]!] ?? id);
}
