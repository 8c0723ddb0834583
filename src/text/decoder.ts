// Tokens to text, for the decoder that Gemma's tokenizers state: '▁' is a space, byte tokens are UTF-8, the rest is joined.
// Ours, since npm's swallows a leading byte order mark and counts the characters of broken UTF-8 otherwise than the
// reference does.

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** True for the decoder that `joinPieces` is. */
export function isByteFallbackDecoder(decoder: unknown): boolean {
  const { type, decoders } = (decoder ?? {}) as { type?: string; decoders?: { type?: string }[] };
  const kinds = decoders?.map((part) => part.type).join(' ');
  const replace = decoders?.[0] as { pattern?: { String?: string }; content?: string } | undefined;
  const spaces = replace?.pattern?.String === '▁' && replace.content === ' ';
  return type === 'Sequence' && kinds === 'Replace ByteFallback Fuse' && spaces;
}

/** Joins tokens. Each byte of a run of byte tokens that is not UTF-8 becomes U+FFFD. */
export function joinPieces(pieces: readonly string[]): string {
  let text = '';
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length > 0) text += textOf(bytes);
    bytes = [];
  };
  for (const piece of pieces) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1];
    if (byte !== undefined) {
      bytes.push(parseInt(byte, 16));
      continue;
    }
    flush();
    text += piece.replaceAll('▁', ' ');
  }
  flush();
  return text;
}

function textOf(bytes: readonly number[]): string {
  try {
    return utf8.decode(Uint8Array.from(bytes));
  } catch {
    return '\ufffd'.repeat(bytes.length);
  }
}
