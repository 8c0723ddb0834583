// An encoded clip that is read where it is needed. Long clips are never held whole: their bytes are asked for in pieces.

/** Bytes behind a length and a question. */
export interface Source {
  readonly length: number;
  /** The bytes from `offset` on: `length` of them, fewer only at the end. They stay as they are. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** How much is read at a time. */
export const PIECE_BYTES = 2 ** 16;

export function sourceOf(bytes: Uint8Array): Source {
  return { length: bytes.length, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

/** The bytes from `from` to `to` in order. @param pieceBytes asked before each piece */
export async function* piecesOf(
  source: Source,
  from: number,
  to: number,
  pieceBytes: () => number = () => PIECE_BYTES,
): AsyncGenerator<Uint8Array, void, undefined> {
  const end = Math.min(to, source.length);
  for (let at = from; at < end;) {
    const piece = await source.read(at, Math.min(pieceBytes(), end - at));
    if (piece.length === 0) return;
    at += piece.length;
    yield piece;
  }
}

export function latin(bytes: Uint8Array, start: number, end: number): string {
  return String.fromCharCode(...bytes.subarray(start, end));
}

export function startsWith(bytes: Uint8Array, magic: string, offset = 0): boolean {
  if (bytes.length < offset + magic.length) return false;
  for (let i = 0; i < magic.length; i++) if (bytes[offset + i] !== magic.charCodeAt(i)) return false;
  return true;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
