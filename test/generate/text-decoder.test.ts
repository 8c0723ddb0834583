// Whole characters, in time; and together exactly what `decode` gives for all ids.

import { describe, expect, it } from 'vitest';
import { type TextCodec, StreamDecoder } from '../../src/generate/text-decoder.js';
import { StopStrings } from '../../src/generate/stop-strings.js';
import { loadProcessor } from '../../src/data/processor.js';
import { randomOf } from './random.js';

const processor = await loadProcessor('fixtures/tiny-gemma3n');
const { tokenizer } = processor;
const bytesOf = (text: string): number[] =>
  [...new TextEncoder().encode(text)].map((byte) =>
    tokenizer.idOf(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)!,
  );

/** The pieces that come with each id, and the rest. */
function stream(ids: readonly number[], skip = true, codec: TextCodec = processor): string[] {
  const decoder = new StreamDecoder(codec, skip);
  return [...ids.map((id) => decoder.push(id)), decoder.end()];
}

describe('a stream of text', () => {
  it('gives a character made of byte tokens whole, with the token behind it', () => {
    const word = tokenizer.encode('red', 'text');
    const ids = [...bytesOf('🔺'), ...word];
    const pieces = stream(ids);
    expect(pieces.slice(0, 4)).toEqual(['', '', '', '']);
    expect(pieces[4]!.startsWith('🔺')).toBe(true);
    expect(pieces.join('')).toBe(processor.decode(ids));
  });

  it('gives a character that ends the text with the end', () => {
    expect(stream(bytesOf('é'))).toEqual(['', '', 'é']);
    expect(stream(bytesOf('é').slice(0, 1))).toEqual(['', '\ufffd']);
  });

  it('takes bytes around a marker that is left out for one run', () => {
    const [first = 0, second = 0] = bytesOf('é');
    const end = tokenizer.idOf('<end_of_turn>')!;
    const pieces = stream([first, end, second]);
    expect(pieces.join('')).toBe('é');
    expect(stream([first, end, second], false).join('')).toBe('\ufffd<end_of_turn>\ufffd');
  });

  it.each([true, false])('of any ids is their text, markers skipped: %s', (skipSpecialTokens) => {
    const random = randomOf(1);
    const bytes = Array.from({ length: 256 }, (_, byte) => tokenizer.idOf(byteToken(byte))!);
    for (let i = 0; i < 400; i++) {
      const ids = Array.from({ length: 1 + random(30) }, () =>
        random(2) ? bytes[random(256)]! : random(tokenizer.vocabSize),
      );
      const pieces = stream(ids, skipSpecialTokens);
      expect(pieces.join('')).toBe(processor.decode(ids, { skipSpecialTokens }));
      for (const piece of pieces) expect(piece).not.toMatch(/\p{Surrogate}/u);
    }
  });

  it('of a decoder that looks at several tokens waits for whole characters', () => {
    const utf8 = new TextDecoder();
    const codec: TextCodec = {
      tokenizer: { decodesPieceByPiece: false, tokenOf: () => undefined },
      decode: (ids) => utf8.decode(Uint8Array.from(ids, Number)),
    };
    const ids = [...new TextEncoder().encode('a🔺b')];
    expect(stream(ids, true, codec)).toEqual(['a', '', '', '', '🔺', 'b', '']);
  });
});

function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

describe('stop strings', () => {
  /** What comes out of pieces until a stop. */
  function run(stops: string[], pieces: string[]): { out: string[]; stopped: boolean } {
    const watch = new StopStrings(stops);
    const out: string[] = [];
    for (const piece of pieces) {
      const { text, stopped } = watch.push(piece);
      out.push(text);
      if (stopped) return { out, stopped };
    }
    return { out: [...out, watch.end()], stopped: false };
  }

  it('are found across pieces, and cut off with what follows', () => {
    expect(run(['END'], ['a b E', 'N', 'D and more'])).toEqual({ out: ['a b ', '', ''], stopped: true });
    expect(run(['\n\n'], ['one\n', '\ntwo'])).toEqual({ out: ['one', ''], stopped: true });
  });

  it('hold their beginnings back until these are decided', () => {
    expect(run(['aab'], ['a', 'a', 'a', 'c'])).toEqual({ out: ['', '', 'a', 'aac', ''], stopped: false });
    expect(run(['END'], ['the E', 'N'])).toEqual({ out: ['the ', '', 'EN'], stopped: false });
  });

  it('of several, the one that begins first counts', () => {
    expect(run(['world', 'o w'], ['hello world'])).toEqual({ out: ['hell'], stopped: true });
  });

  it('are found in what is not decided yet', () => {
    const watch = new StopStrings(['é']);
    expect(watch.push('caf', '')).toEqual({ text: 'caf', stopped: false });
    expect(watch.push('', '\ufffd')).toEqual({ text: '', stopped: false });
    expect(watch.push('', 'é')).toEqual({ text: '', stopped: true });
  });

  it('in any pieces cut where they do in the whole', () => {
    const random = randomOf(2);
    for (let i = 0; i < 2000; i++) {
      const letters = (length: number) => Array.from({ length }, () => 'abc'[random(3)]).join('');
      const stops = Array.from({ length: 1 + random(2) }, () => letters(1 + random(4)));
      const pieces = Array.from({ length: 8 }, () => letters(random(4)));
      const { out, stopped } = run(stops, pieces);
      // up to the first piece with which any of them is whole, cut at the one that begins first
      let text = '';
      let cut = -1;
      for (const piece of pieces) {
        text += piece;
        cut = Math.min(...stops.map((stop) => text.indexOf(stop)).map((at) => (at < 0 ? Infinity : at)));
        if (cut < Infinity) break;
      }
      expect(stopped).toBe(cut < Infinity);
      expect(out.join('')).toBe(stopped ? text.slice(0, cut) : text);
    }
  });
});
