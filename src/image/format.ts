// What a file of pixels is, from its first bytes: enough to refuse what is no raster image and to know the few layouts
// whose colours need care. Nothing here decodes.

/** Formats that are decoded. */
export type Format = 'jpeg' | 'png' | 'gif' | 'webp' | 'tiff' | 'avif';

/** How the pixels are stored, where that decides how they become RGB. */
export type Layout = 'ordinary' | 'cmyk' | 'gray16';

const signatures: readonly (readonly [name: string, offset: number, bytes: string])[] = [
  ['jpeg', 0, '\xff\xd8\xff'],
  ['png', 0, '\x89PNG\r\n\x1a\n'],
  ['gif', 0, 'GIF8'],
  ['webp', 8, 'WEBP'],
  ['tiff', 0, 'II*\0'],
  ['tiff', 0, 'MM\0*'],
  ['avif', 4, 'ftypavif'],
  ['BMP', 0, 'BM'],
  ['PDF', 0, '%PDF'],
  ['gzip (SVGZ?)', 0, '\x1f\x8b'],
  ['HEIC', 4, 'ftyp'],
  ['JPEG XL', 0, '\0\0\0\x0cJXL '],
  ['JPEG XL', 0, '\xff\x0a'],
  ['JPEG 2000', 0, '\0\0\0\x0cjP'],
  ['PSD', 0, '8BPS'],
];

const decoded: ReadonlySet<string> = new Set<Format>(['jpeg', 'png', 'gif', 'webp', 'tiff', 'avif']);

/** Names what `bytes` hold: a format that is decoded, or in words what it is instead. */
export function formatOf(bytes: Uint8Array): { format: Format } | { format?: undefined; found: string } {
  if (bytes.length === 0) return { found: 'no bytes' };
  for (const [name, offset, magic] of signatures) {
    if (!startsWith(bytes, offset, magic)) continue;
    return decoded.has(name) ? { format: name as Format } : { found: name };
  }
  const text = latin(bytes, 0, 1024).replace(/^\xef\xbb\xbf/, '');
  if (/^\s*<(\?xml|!--|!doctype|svg|html)/i.test(text)) {
    return {
      found: /<html|doctype html/i.test(text) ? 'an HTML page' : /<svg/i.test(text) ? 'SVG' : 'XML (SVG?)',
    };
  }
  const start = [...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return { found: `${bytes.length} bytes of no known format (they begin with ${start})` };
}

/** The layout of JPEG and PNG, from their headers. TIFF's is asked of the decoder. */
export function layoutOf(bytes: Uint8Array, format: Format): Layout {
  if (format === 'jpeg') return jpegComponents(bytes) === 4 ? 'cmyk' : 'ordinary';
  // IHDR: bit depth at 24, colour type at 25.
  if (format === 'png' && bytes[24] === 16 && bytes[25] === 0) return 'gray16';
  return 'ordinary';
}

/** The palette entry that a GIF's first frame leaves where nothing is drawn: its transparent colour, else the first. */
export function gifBackdrop(bytes: Uint8Array): readonly [number, number, number] | undefined {
  const flags = bytes[10] ?? 0;
  let palette = flags & 0x80 ? 13 : 0;
  let at = 13 + (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  let transparent = 0;
  while (at < bytes.length) {
    const block = bytes[at];
    if (block === 0x21) {
      if (bytes[at + 1] === 0xf9 && (bytes[at + 3] ?? 0) & 1) transparent = bytes[at + 6] ?? 0;
      at += 2;
      while ((bytes[at] ?? 0) > 0) at += bytes[at]! + 1;
      at += 1;
      continue;
    }
    if (block === 0x2c && (bytes[at + 9] ?? 0) & 0x80) palette = at + 10;
    break;
  }
  if (palette === 0) return undefined;
  const entry = palette + 3 * transparent;
  return [bytes[entry] ?? 0, bytes[entry + 1] ?? 0, bytes[entry + 2] ?? 0];
}

function jpegComponents(bytes: Uint8Array): number | undefined {
  let at = 2;
  while (at + 9 < bytes.length) {
    if (bytes[at] !== 0xff) return undefined;
    const marker = bytes[at + 1]!;
    if (marker === 0xff) {
      at += 1; // a fill byte
      continue;
    }
    const isFrame = marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
    if (isFrame) return bytes[at + 9];
    at += 2 + ((bytes[at + 2]! << 8) | bytes[at + 3]!);
  }
  return undefined;
}

function startsWith(bytes: Uint8Array, offset: number, magic: string): boolean {
  if (bytes.length < offset + magic.length) return false;
  for (let i = 0; i < magic.length; i++) if (bytes[offset + i] !== magic.charCodeAt(i)) return false;
  return true;
}

function latin(bytes: Uint8Array, start: number, end: number): string {
  return String.fromCharCode(...bytes.subarray(start, end));
}
