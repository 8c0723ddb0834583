// AIFF and AIFF-C: big-endian chunks, the rate as an 80-bit float.

import { checkHeader, damaged, NeedsFfmpeg, noSamples } from './faults.js';
import { isReadable, type Layout } from './pcm.js';
import { latin, type Source, viewOf } from './source.js';
import type { Stream } from './types.js';
import { openPcm } from './wav.js';

const MAX_CHUNKS = 10_000;

type Common = Omit<Layout, 'numChannels'> & { numChannels: number; numFrames: number; sampleRateHz: number };

/** Opens an AIFF file. @throws {AudioError} when it has no samples, or a header that lies
 *  @throws {NeedsFfmpeg} when its samples are compressed */
export async function openAiff(source: Source, where: string): Promise<Stream> {
  const isAifc = latin(await source.read(8, 4), 0, 4) === 'AIFC';
  let common: Common | undefined;
  let offset: number | undefined;
  for (let at = 12, chunks = 0; at + 8 <= source.length && chunks < MAX_CHUNKS; chunks++) {
    const head = await source.read(at, 16);
    const size = viewOf(head).getUint32(4);
    const id = latin(head, 0, 4);
    if (id === 'COMM') common = readCommon(await source.read(at + 8, Math.min(size, 22)), isAifc, where);
    // Samples may begin some bytes into their chunk.
    if (id === 'SSND' && head.length === 16) offset = at + 16 + viewOf(head).getUint32(8);
    if (common && offset !== undefined) break;
    at += 8 + size + (size % 2);
  }
  if (!common) throw damaged(where, 'AIFF', "no 'COMM' chunk");
  if (offset === undefined) throw noSamples(where);
  const { numFrames, sampleRateHz, ...layout } = common;
  return openPcm(source, where, { format: 'AIFF', layout, sampleRateHz, offset, numFrames });
}

function readCommon(bytes: Uint8Array, isAifc: boolean, where: string): Common {
  if (bytes.length < 18) throw damaged(where, 'AIFF', `a 'COMM' chunk of ${bytes.length} bytes`);
  const view = viewOf(bytes);
  const numChannels = view.getUint16(0);
  const bits = view.getUint16(6);
  const sampleRateHz = Math.round(extended(view, 8));
  checkHeader(where, 'AIFF', sampleRateHz, numChannels);
  const codec = isAifc ? latin(bytes, 18, 22) : 'NONE';
  const encoding = encodingOf(codec);
  const layout = {
    encoding: encoding ?? 'signed',
    // For logarithmic samples, some write what they stand for: 16.
    bytesPerSample: encoding === 'alaw' || encoding === 'mulaw' ? 1 : Math.ceil(bits / 8),
    littleEndian: codec === 'sowt',
    numChannels,
  };
  if (!encoding || !isReadable(layout)) throw new NeedsFfmpeg(where, 'aiff', `codec '${codec}' in AIFF`);
  return { ...layout, numFrames: view.getUint32(2), sampleRateHz };
}

function encodingOf(codec: string): Layout['encoding'] | undefined {
  switch (codec.toLowerCase()) {
    case 'none':
    case 'twos':
    case 'sowt':
      return 'signed';
    case 'fl32':
    case 'fl64':
      return 'float';
    case 'alaw':
      return 'alaw';
    case 'ulaw':
      return 'mulaw';
    default:
      return undefined;
  }
}

/** A positive IEEE 754 number of 80 bits. */
function extended(view: DataView, at: number): number {
  const exponent = (view.getUint16(at) & 0x7fff) - 16383;
  return Number(view.getBigUint64(at + 2)) * 2 ** (exponent - 63);
}
