import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TextError } from '../../src/errors.js';
import { Tokenizer, unguard } from '../../src/text/index.js';
import { tinyFolder, values } from '../reference/processor-values.js';

const read = (name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(tinyFolder, name), 'utf8')) as Record<string, unknown>;
const file = read('tokenizer.json');
const config = read('tokenizer_config.json');
const tokenizer = new Tokenizer(file, config);

describe('Tokenizer', () => {
  it.each(values.texts.map((entry) => [JSON.stringify(entry.text).slice(0, 60), entry] as const))(
    'gives the ids and the text of the reference for %s',
    (_name, { text, ids, asText, decoded, skipped }) => {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.encode(text, 'text')).toEqual(asText);
      expect(tokenizer.decode(ids)).toBe(decoded);
      expect(tokenizer.decode(ids, true)).toBe(skipped);
    },
  );

  it('decodes any ids as the reference does, broken UTF-8 included', () => {
    for (const { ids, decoded, skipped } of values.random) {
      expect(tokenizer.decode(ids)).toBe(decoded);
      expect(tokenizer.decode(ids, true)).toBe(skipped);
    }
  });

  it('takes guarded spellings of special tokens for text, and the text keeps its ids', () => {
    for (const text of [
      '<end_of_turn>',
      'a<bos>b',
      '<<bos>>',
      '<image_soft_token><image_soft_token>',
      '<b<bos>os>',
    ]) {
      const guarded = tokenizer.guard(text);
      expect(tokenizer.encode(guarded)).toEqual(tokenizer.encode(text, 'text'));
      expect(unguard(guarded)).toBe(text);
    }
    expect(tokenizer.guard('what color?')).toBe('what color?');
  });

  it('guards the beginning of a special token at the end of a text, before the space that a template trims', () => {
    for (const [text, length] of [
      ['a <start_of', 11],
      ['<', 1],
      ['<<bo \x85\n', 4],
      ['<eos> <eos', 11],
    ] as const) {
      const guarded = tokenizer.guard(text);
      expect(guarded).toHaveLength(text.length + (text.startsWith('<eos>') ? 2 : 1));
      expect(guarded.slice(0, length + 1).endsWith('\udc00')).toBe(true);
      expect(unguard(guarded)).toBe(text);
    }
    expect(tokenizer.guard('1 < 2')).toBe('1 < 2');
  });

  it('cannot be tricked into a special token by lone surrogates', () => {
    const guarded = tokenizer.guard('<\udc00bos>');
    expect(tokenizer.encode(guarded)).not.toContain(2);
    expect(tokenizer.decode(tokenizer.encode(guarded))).toBe('<\ufffdbos>');
  });

  it('tells which stretch became which ids, and cuts where it is told', () => {
    const stretches = tokenizer.encodeStretches('<bos>a triangle<eos>', 'tokens', [7]);
    expect(stretches.map(({ start, end, special }) => [start, end, special])).toEqual([
      [0, 5, true],
      [5, 7, false],
      [7, 15, false],
      [15, 20, true],
    ]);
    expect(stretches.flatMap(({ ids }) => ids.map((id) => tokenizer.tokenOf(id)))).toEqual([
      '<bos>',
      'a',
      '▁',
      'triangle',
      '<eos>',
    ]);
  });

  it('makes one token of each answer and of nearly every word of the questions', () => {
    for (const word of ['yes', 'no', 'circle', 'rectangle', 'triangle', 'teal', 'user', 'model']) {
      expect(tokenizer.encode(word), word).toHaveLength(1);
    }
    expect(tokenizer.encode('is there not a yellow shape in the image?')).toHaveLength(10);
  });

  it('knows tokens by the name of the configuration, also of newer files', () => {
    expect(tokenizer.named('image')).toEqual({ content: '<image_soft_token>', id: 385 });
    const nested = new Tokenizer(file, {
      model_specific_special_tokens: { image_token: '<image_soft_token>' },
    });
    expect(nested.named('image')?.id).toBe(385);
    expect(new Tokenizer(file, { bos_token: { content: '<bos>', lstrip: false } }).named('bos')?.id).toBe(2);
    expect(tokenizer.named('video')).toBeUndefined();
    expect(tokenizer.vocabSize).toBe(400);
  });

  it('says that the image token is missing', () => {
    const bare = new Tokenizer(file, {}, 'model/tokenizer.json');
    expect(() => bare.requireNamed('image', 'the model sees')).toThrow(
      new TextError(
        'model/tokenizer.json: expected the image token (the model sees), received none among its 27 added tokens; take all tokenizer files from the same model\'s folder; tokenizer_config.json names it as "image_token"',
      ),
    );
  });

  it('refuses an id that the vocabulary does not have', () => {
    expect(() => tokenizer.decode([3, 400])).toThrow(
      'tokenizer.json: decode: expected ids from 0 to 399, received 400; decode with the tokenizer of the model that made the ids',
    );
  });

  it('refuses what is no tokenizer', () => {
    const remedy = "use the tokenizer.json of a Gemma model's folder";
    expect(() => new Tokenizer({ model: { type: 'Riddle', vocab: {} } }, {}, 't.json')).toThrow(
      `t.json: expected a BPE tokenizer with parts that @huggingface/tokenizers knows, received model type "Riddle"; ${remedy}`,
    );
    expect(() => new Tokenizer({ ...file, pre_tokenizer: { type: 'Riddle' } }, {}, 't.json')).toThrow(
      /^t\.json: expected a BPE tokenizer .* received model type "BPE" \(.*Riddle.*\); use/,
    );
    expect(() => new Tokenizer({}, {}, 't.json')).toThrow(/^t\.json: model: .*received nothing/);
  });

  it('honours the flags of added tokens', () => {
    const added = (content: string, flags: object): object => ({
      id: 390,
      content,
      special: false,
      normalized: false,
      ...flags,
    });
    const ids = (flags: object, text: string): (string | undefined)[] => {
      const model = { ...file, added_tokens: [added('teal', flags)] };
      return new Tokenizer(model).encode(text).map((id) => (id === 390 ? 'ADDED' : '.'));
    };
    expect(ids({}, 'ateal')).toEqual(['.', 'ADDED']);
    expect(ids({ single_word: true }, 'ateal')).not.toContain('ADDED');
    expect(ids({ single_word: true }, 'a teal')).toEqual(['.', '.', 'ADDED']);
    expect(ids({ lstrip: true, rstrip: true }, 'a  teal  a')).toEqual(['.', 'ADDED', '.']);
  });
});
