// What a file of sound is, from its bytes alone: names lie. Formats that are read here, those that ffmpeg is given with the
// name of its demuxer, so that it never guesses (a playlist that it took for sound could name other files), and what else
// people put in columns of sound.

import { firstFrame, id3Length } from './mpeg-frame.js';
import { latin, startsWith } from './source.js';

/** Formats that are decoded in process. */
export type Format = 'wav' | 'aiff' | 'mp3' | 'flac' | 'ogg';

export type Sniffed =
  | { readonly kind: 'known'; readonly format: Format }
  /** @property container as people call it */
  | { readonly kind: 'ffmpeg'; readonly demuxer: string; readonly container: string }
  | { readonly kind: 'unknown'; readonly found: string };

/** Bytes in which MPEG audio must show itself. */
const SEARCHED_BYTES = 2 ** 18;

const known: readonly (readonly [format: Format, offset: number, magic: string])[] = [
  ['wav', 8, 'WAVE'],
  ['aiff', 8, 'AIFF'],
  ['aiff', 8, 'AIFC'],
  ['flac', 0, 'fLaC'],
  ['ogg', 0, 'OggS'],
];
const ffmpegs: readonly (readonly [demuxer: string, container: string, offset: number, magic: string])[] = [
  ...['ftyp', 'moov', 'mdat', 'wide', 'free', 'skip', 'pnot'].map((box) => ['mov', 'MP4', 4, box] as const),
  ['matroska', 'WebM or Matroska', 0, '\x1a\x45\xdf\xa3'],
  ['asf', 'ASF (WMA)', 0, '\x30\x26\xb2\x75\x8e\x66\xcf\x11'],
  ['avi', 'AVI', 8, 'AVI '],
  ['flv', 'FLV', 0, 'FLV\x01'],
  ['caf', 'CAF', 0, 'caff'],
  ['amr', 'AMR', 0, '#!AMR'],
  ['au', 'AU', 0, '.snd'],
  ['w64', 'Wave64', 0, 'riff\x2e\x91\xcf\x11'],
  ['ape', "Monkey's Audio", 0, 'MAC '],
  ['wv', 'WavPack', 0, 'wvpk'],
  ['tta', 'True Audio', 0, 'TTA1'],
  ['mpc', 'Musepack', 0, 'MP+'],
  ['mpc8', 'Musepack', 0, 'MPCK'],
  ['dsf', 'DSD', 0, 'DSD '],
  ['rm', 'RealMedia', 0, '.RMF'],
  ['voc', 'VOC', 0, 'Creative Voice File'],
  ['nistsphere', 'NIST SPHERE', 0, 'NIST_1A\n'],
  ['ac3', 'AC-3', 0, '\x0b\x77'],
  ['dts', 'DTS', 0, '\x7f\xfe\x80\x01'],
  ['mpeg', 'MPEG program stream', 0, '\0\0\x01\xba'],
];
const others: readonly (readonly [found: string, offset: number, magic: string])[] = [
  ['a MIDI file', 0, 'MThd'],
  ['a JPEG image', 0, '\xff\xd8\xff'],
  ['a PNG image', 0, '\x89PNG'],
  ['a GIF image', 0, 'GIF8'],
  ['a WebP image', 8, 'WEBP'],
  ['a PDF', 0, '%PDF'],
  ['a ZIP archive', 0, 'PK\x03\x04'],
  ['a gzip archive', 0, '\x1f\x8b'],
  ['a Parquet file', 0, 'PAR1'],
];

/** Formats that begin as text does. */
const TEXT_HEADERS = /^(NIST_1A\n|#!AMR)/;

/** Names what `bytes` hold. Looks at their beginning only. */
export function sniff(bytes: Uint8Array): Sniffed {
  if (bytes.length === 0) return { kind: 'unknown', found: 'no bytes' };
  let start = 0;
  for (let tag = id3Length(bytes); tag > 0; tag = id3Length(bytes, start)) start += tag;
  const head = bytes.subarray(start, start + SEARCHED_BYTES);
  // Before the magic numbers, many of which are words: "I'm free today" is no MP4.
  const text = head.length > 0 && !TEXT_HEADERS.test(latin(head, 0, 8)) ? textOf(head) : undefined;
  if (text) return { kind: 'unknown', found: text };
  for (const [format, offset, magic] of known) {
    if (startsWith(head, magic, offset) && (offset === 0 || isIff(head))) return { kind: 'known', format };
  }
  for (const [demuxer, container, offset, magic] of ffmpegs) {
    if (startsWith(head, magic, offset)) return { kind: 'ffmpeg', demuxer, container };
  }
  if (isTransportStream(head))
    return { kind: 'ffmpeg', demuxer: 'mpegts', container: 'MPEG transport stream' };
  if (isAdts(head)) return { kind: 'ffmpeg', demuxer: 'aac', container: 'AAC' };
  for (const [found, offset, magic] of others) {
    if (startsWith(head, magic, offset)) return { kind: 'unknown', found };
  }
  const isAll = start + head.length === bytes.length;
  if (firstFrame(head, 0, isAll) !== undefined) return { kind: 'known', format: 'mp3' };
  if (start > 0) return { kind: 'unknown', found: 'an ID3 tag with no sound behind it' };
  const hex = [...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return { kind: 'unknown', found: `${bytes.length} bytes of no known format (they begin with ${hex})` };
}

const isIff = (bytes: Uint8Array): boolean => /^(RIFF|RIFX|RF64|BW64|FORM)$/.test(latin(bytes, 0, 4));

/** Packets of 188 bytes, each with its mark. */
function isTransportStream(bytes: Uint8Array): boolean {
  return bytes.length >= 3 * 188 && [0, 188, 376].every((at) => bytes[at] === 0x47);
}

/** A frame of AAC where the next begins behind it. */
function isAdts(bytes: Uint8Array): boolean {
  const mark = (at: number): boolean => bytes[at] === 0xff && (bytes[at + 1]! & 0xf6) === 0xf0;
  const length = ((bytes[3]! & 3) << 11) | (bytes[4]! << 3) | (bytes[5]! >> 5);
  return bytes.length > 7 && mark(0) && length >= 7 && (length === bytes.length || mark(length));
}

/** What text is taken for; undefined for bytes that are none. */
function textOf(bytes: Uint8Array): string | undefined {
  const start = bytes.subarray(0, 512);
  // Control characters other than tab, line feed, form feed and carriage return are in no text.
  if (
    start.some(
      (byte) => (byte < 32 && byte !== 9 && byte !== 10 && byte !== 12 && byte !== 13) || byte === 127,
    )
  ) {
    return undefined;
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(start, { stream: true }).trim();
    if (/^(<!doctype html|<html)/i.test(text)) return 'an HTML page';
    if (text.startsWith('version https://git-lfs')) return 'a Git LFS pointer';
    return `text ("${text.slice(0, 24).replaceAll('\n', ' ')}${text.length > 24 ? '...' : ''}")`;
  } catch {
    return undefined;
  }
}
