// WAV (RIFF, RIFX, RF64, BW64): its chunks, and its samples where they are not compressed. What the sizes in headers say
// beyond the file is not believed; sizes that a writer into a pipe could not know (0, 2^31 - 1, 2^32 - 1) mean "to the end".

import { checkHeader, damaged, NeedsFfmpeg, noSamples, truncated } from './faults.js';
import { type Encoding, isReadable, type Layout, mixFrames } from './pcm.js';
import { latin, piecesOf, type Source, viewOf } from './source.js';
import type { Stream } from './types.js';

/** Samples that lie uncompressed in a file. */
export interface PcmData {
  readonly format: 'WAV' | 'AIFF';
  readonly layout: Layout;
  readonly sampleRateHz: number;
  /** Where the samples begin. */
  readonly offset: number;
  /** Frames as the header tells; undefined where it means "to the end". */
  readonly numFrames: number | undefined;
}

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;
const encodings: ReadonlyMap<number, Encoding> = new Map([
  [PCM, 'signed'],
  [FLOAT, 'float'],
  [6, 'alaw'],
  [7, 'mulaw'],
]);
const compressed: ReadonlyMap<number, string> = new Map([
  [0x02, 'Microsoft ADPCM'],
  [0x11, 'IMA ADPCM'],
  [0x14, 'G.723'],
  [0x31, 'GSM 6.10'],
  [0x45, 'G.726'],
  [0x50, 'MPEG layer 1 or 2'],
  [0x55, 'MP3'],
  [0xff, 'AAC'],
  [0x1610, 'AAC'],
  [0x161, 'WMA'],
  [0x2000, 'AC-3'],
  [0x2001, 'DTS'],
  [0x674f, 'Vorbis'],
]);
/** Sizes from here on are what writers put down who did not know. */
const UNKNOWN_SIZE = 0x7fff_0000;
/** More chunks than this before the samples are no file of any writer. */
const MAX_CHUNKS = 10_000;

/** Opens a WAV file. @throws {AudioError} when it has no samples, or a header that lies
 *  @throws {NeedsFfmpeg} when its samples are compressed */
export async function openWav(source: Source, where: string): Promise<Stream> {
  const littleEndian = latin(await source.read(0, 4), 0, 4) !== 'RIFX';
  let format: Format | undefined;
  let longSize: number | undefined;
  for (let at = 12, chunks = 0; at + 8 <= source.length && chunks < MAX_CHUNKS; chunks++) {
    const head = await source.read(at, 8);
    const size = viewOf(head).getUint32(4, littleEndian);
    const id = latin(head, 0, 4);
    if (id === 'fmt ')
      format = readFormat(await source.read(at + 8, Math.min(size, 64)), littleEndian, where);
    if (id === 'ds64') longSize = await readLongSize(source, at + 8);
    if (id === 'data') {
      if (!format) throw damaged(where, 'WAV', "no 'fmt ' chunk before the samples");
      if (size === 0 && (await hasChunk(source, at + 8, littleEndian))) throw noSamples(where);
      return openPcm(
        source,
        where,
        dataOf(format, at + 8, size === 0xffff_ffff ? (longSize ?? size) : size, where),
      );
    }
    at += 8 + size + (size % 2);
  }
  if (!format) throw damaged(where, 'WAV', "no 'fmt ' chunk");
  throw noSamples(where);
}

interface Format {
  readonly code: number;
  readonly numChannels: number;
  readonly sampleRateHz: number;
  readonly blockAlign: number;
  readonly bits: number;
  readonly littleEndian: boolean;
}

function readFormat(bytes: Uint8Array, littleEndian: boolean, where: string): Format {
  if (bytes.length < 16) throw damaged(where, 'WAV', `a 'fmt ' chunk of ${bytes.length} bytes`);
  const view = viewOf(bytes);
  const code = view.getUint16(0, littleEndian);
  return {
    // The extensible form has the code of old in the first two bytes of a GUID.
    code: code === EXTENSIBLE && bytes.length >= 26 ? view.getUint16(24, littleEndian) : code,
    numChannels: view.getUint16(2, littleEndian),
    sampleRateHz: view.getUint32(4, littleEndian),
    blockAlign: view.getUint16(12, littleEndian),
    bits: view.getUint16(14, littleEndian),
    littleEndian,
  };
}

/** Whether one chunk, such as the title, fills the file from `at` on: then a size of 0 means what it says. */
async function hasChunk(source: Source, at: number, littleEndian: boolean): Promise<boolean> {
  const head = await source.read(at, 8);
  if (head.length < 8 || !/^[A-Za-z0-9 ]{4}$/.test(latin(head, 0, 4))) return false;
  const size = viewOf(head).getUint32(4, littleEndian);
  return at + 8 + size + (size % 2) === source.length;
}

/** RF64: the size of the samples in 64 bits, after that of the whole. */
async function readLongSize(source: Source, at: number): Promise<number | undefined> {
  const bytes = await source.read(at, 16);
  return bytes.length < 16 ? undefined : Number(viewOf(bytes).getBigUint64(8, true));
}

function dataOf(format: Format, offset: number, size: number, where: string): PcmData {
  const { code, numChannels, sampleRateHz, blockAlign, bits, littleEndian } = format;
  checkHeader(where, 'WAV', sampleRateHz, numChannels);
  const encoding = encodings.get(code);
  if (!encoding) {
    throw new NeedsFfmpeg(where, 'wav', `${compressed.get(code) ?? `codec 0x${code.toString(16)}`} in WAV`);
  }
  const stated = Math.ceil(bits / 8);
  // 24 bits may lie in places of four bytes.
  const place = blockAlign / numChannels;
  const bytesPerSample = Number.isInteger(place) && place >= stated && place > 0 ? place : stated;
  const layout: Layout = {
    encoding: encoding === 'signed' && bytesPerSample === 1 ? 'unsigned' : encoding,
    bytesPerSample,
    numChannels,
    littleEndian,
  };
  if (bits === 0 || !isReadable(layout))
    throw new NeedsFfmpeg(where, 'wav', `${bits}-bit ${encoding} samples in WAV`);
  const known = size !== 0 && (size < UNKNOWN_SIZE || size > 0xffff_ffff);
  const numFrames = known ? Math.floor(size / (bytesPerSample * numChannels)) : undefined;
  return { format: 'WAV', layout, sampleRateHz, offset, numFrames };
}

/** The stream of samples that lie uncompressed in a file. */
export function openPcm(source: Source, where: string, data: PcmData): Stream {
  const { format, layout, sampleRateHz, offset } = data;
  const frameBytes = layout.bytesPerSample * layout.numChannels;
  const there = Math.max(0, Math.floor((source.length - offset) / frameBytes));
  const numFrames = data.numFrames ?? there;
  const pieceBytes = Math.ceil(2 ** 18 / frameBytes) * frameBytes;
  async function* pieces(): AsyncGenerator<Float32Array> {
    const end = offset + Math.min(numFrames, there) * frameBytes;
    for await (const piece of piecesOf(source, offset, end, () => pieceBytes)) yield mixFrames(piece, layout);
    if (there < numFrames) throw truncated(where, format, numFrames, there, sampleRateHz);
  }
  return {
    sampleRateHz,
    pieces: pieces(),
    length: { stated: numFrames, there: Math.min(numFrames, there) },
    totalSeconds: async () => numFrames / sampleRateHz,
  };
}
