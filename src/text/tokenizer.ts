// The tokenizer of a model folder, from its tokenizer.json: ids equal to those of Hugging Face's tokenizers. The model part
// (normalizer, BPE, byte fallback) is npm's @huggingface/tokenizers; added tokens and decoding are ours (see there why).

import * as library from '@huggingface/tokenizers';
import { messageOf, TextError } from '../errors.js';
import { decode, z } from '../schema.js';
import { AddedTokens, guard, unguard, wellFormed, type AddedToken } from './added-tokens.js';
import { isByteFallbackDecoder, joinPieces } from './decoder.js';

/** What is used of @huggingface/tokenizers, whose own types NodeNext does not resolve. */
interface Pieces {
  readonly model: { readonly vocab: readonly string[] } | null;
  encode(text: string, options: { add_special_tokens: boolean }): { readonly ids: number[] };
  decode(
    ids: readonly number[],
    options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean },
  ): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

const { Tokenizer: PiecesClass } = library as unknown as {
  Tokenizer: new (file: object, config: object) => Pieces;
};

/** A stretch of text and the ids that it became. */
export interface EncodedStretch {
  readonly start: number;
  readonly end: number;
  readonly ids: readonly number[];
  /** True for one special token. */
  readonly special: boolean;
}

/** A token that tokenizer_config.json names: 'bos', 'eos', 'pad', 'unk', 'image', 'boi', 'eoi', 'audio', ... */
export interface NamedToken {
  readonly content: string;
  readonly id: number;
}

const addedSchema = z.object({
  id: z.number().int().nonnegative(),
  content: z.string(),
  special: z.boolean().default(false),
  normalized: z.boolean().optional(),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
});

const fileSchema = z.looseObject({
  added_tokens: z.array(addedSchema).nullish(),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: z.unknown().optional(),
  decoder: z.unknown().optional(),
  model: z.looseObject({ type: z.string().optional(), vocab: z.unknown() }),
});

const named = z.union([z.string(), z.looseObject({ content: z.string() })]);

export class Tokenizer {
  readonly #pieces: Pieces;
  readonly #added: AddedTokens;
  readonly #addedById = new Map<number, AddedToken>();
  readonly #idByContent = new Map<string, number>();
  readonly #named = new Map<string, NamedToken>();
  readonly #join: ((pieces: string[]) => string) | undefined;
  /** Contents of the special tokens. */
  readonly specialTokens: readonly string[];
  /** Contents of all added tokens, special or not. */
  readonly addedTokens: readonly string[];
  /** The token that the tokenizer puts before a text that does not begin with it. */
  readonly bosToAdd: number | undefined;
  /** Ids from 0 to this are known, or holes of the vocabulary. */
  readonly vocabSize: number;

  /** @param file tokenizer.json, parsed
   *  @param config tokenizer_config.json, parsed; it names tokens
   *  @throws {TextError} when it is no tokenizer that is known here
   *  @throws {ConfigError} when its parts have wrong types */
  constructor(
    file: unknown,
    config: Readonly<Record<string, unknown>> = {},
    readonly where = 'tokenizer.json',
  ) {
    const { added_tokens, ...rest } = decode(fileSchema, file, where);
    const names = namesOf(config);
    const specials = new Set([...names.values(), ...listOf(config['additional_special_tokens'])]);
    const added = (added_tokens ?? []).map((token) => {
      const special = token.special || specials.has(token.content);
      return { ...token, special, normalized: token.normalized ?? !token.special };
    });
    const raw = added.filter((token) => token.special || !token.normalized);
    if (rest.model.type !== 'BPE') throw unknownModel(where, rest.model.type);
    refuseExpressions([rest.normalizer, rest.pre_tokenizer, rest.decoder], where);
    try {
      const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...rest };
      this.#pieces = new PiecesClass(
        { ...parts, added_tokens: added.filter((token) => !raw.includes(token)) },
        {},
      );
    } catch (cause) {
      throw unknownModel(where, rest.model.type, cause);
    }
    for (const token of added) {
      this.#addedById.set(token.id, token);
      this.#idByContent.set(token.content, token.id);
    }
    for (const [name, content] of names) {
      const id = this.idOf(content);
      if (id !== undefined) this.#named.set(name, { content, id });
    }
    this.#added = new AddedTokens(raw);
    this.#join = isByteFallbackDecoder(rest.decoder) ? joinPieces : undefined;
    this.specialTokens = added.filter((token) => token.special).map((token) => token.content);
    this.addedTokens = added.map((token) => token.content);
    const adds = config['add_bos_token'] !== false && beginsWithBos(rest.post_processor, names.get('bos'));
    this.bosToAdd = adds ? this.#named.get('bos')?.id : undefined;
    const vocabulary = this.#pieces.model?.vocab.length ?? 0;
    this.vocabSize = added.reduce((size, token) => Math.max(size, token.id + 1), vocabulary);
  }

  /** The ids of a text; nothing is put before or after it.
   *  @param special 'tokens': spellings of special tokens become those tokens, as in a rendered chat template;
   *    'text': they stay text, as in what comes from data. */
  encode(text: string, special: 'tokens' | 'text' = 'tokens'): number[] {
    return this.encodeStretches(text, special).flatMap((stretch) => stretch.ids);
  }

  /** As `encode`, told which stretch of the text became which ids. Guarded spellings (see `guard`) stay text.
   *  @param cuts positions at which text between added tokens is cut as well */
  encodeStretches(
    text: string,
    special: 'tokens' | 'text' = 'tokens',
    cuts: readonly number[] = [],
  ): EncodedStretch[] {
    const encoded: EncodedStretch[] = [];
    for (const { start, end, token } of this.#added.split(text, special === 'tokens')) {
      if (token) {
        encoded.push({ start, end, ids: [token.id], special: token.special });
        continue;
      }
      const edges = [start, ...cuts.filter((cut) => cut > start && cut < end), end];
      for (let i = 0; i + 1 < edges.length; i++) {
        const part = wellFormed(unguard(text.slice(edges[i], edges[i + 1])));
        encoded.push({ start: edges[i]!, end: edges[i + 1]!, ids: this.#piecesOf(part), special: false });
      }
    }
    return encoded;
  }

  /** The text of ids.
   *  @param skipSpecialTokens leaves special tokens out
   *  @throws {TextError} on an id that the vocabulary does not have */
  decode(ids: Iterable<number | bigint>, skipSpecialTokens = false): string {
    const kept: number[] = [];
    for (const value of ids) {
      const id = Number(value);
      if (this.tokenOf(id) === undefined) throw this.#unknownId(id);
      if (!skipSpecialTokens || !this.#addedById.get(id)?.special) kept.push(id);
    }
    if (kept.length === 0) return '';
    if (this.#join) return this.#join(kept.map((id) => this.tokenOf(id)!));
    return this.#using(() =>
      this.#pieces.decode(kept, { skip_special_tokens: false, clean_up_tokenization_spaces: false }),
    );
  }

  /** Whether the text of ids is that of their stretches, cut anywhere but between byte tokens: Gemma's decoder. */
  get decodesPieceByPiece(): boolean {
    return this.#join !== undefined;
  }

  /** The token's string, as the vocabulary spells it. */
  tokenOf(id: number): string | undefined {
    return this.#addedById.get(id)?.content ?? this.#pieces.id_to_token(id);
  }

  /** The id of a token of the vocabulary. */
  idOf(token: string): number | undefined {
    return this.#idByContent.get(token) ?? this.#pieces.token_to_id(token);
  }

  /** A token by the name that tokenizer_config.json gives it, without "_token": 'bos', 'eos', 'image'. */
  named(name: string): NamedToken | undefined {
    return this.#named.get(name);
  }

  /** As `named`. @throws {TextError} when there is none, with what it is needed for */
  requireNamed(name: string, purpose: string): NamedToken {
    const token = this.#named.get(name);
    if (token) return token;
    throw new TextError({
      where: this.where,
      expected: `${name === 'image' || name === 'audio' ? `the ${name} token` : `a token named ${name}_token`} (${purpose})`,
      received: `none among its ${this.addedTokens.length} added tokens`,
      remedy: `take all tokenizer files from the same model's folder; tokenizer_config.json names it as "${name}_token"`,
    });
  }

  /** Text in which no special token, and none of `more`, is spelt any more for `encodeStretches`. */
  guard(text: string, more: readonly string[] = []): string {
    return guard(wellFormed(text), [...this.specialTokens, ...more]);
  }

  #piecesOf(text: string): readonly number[] {
    if (text === '') return [];
    return this.#using(() => this.#pieces.encode(text, { add_special_tokens: false }).ids);
  }

  /** The library finds some faults of a file only when it meets them in use. */
  #using<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw unknownModel(this.where, 'BPE', cause);
    }
  }

  #unknownId(id: number): TextError {
    return new TextError({
      where: `${this.where}: decode`,
      expected: `ids from 0 to ${this.vocabSize - 1}`,
      received: String(id),
      remedy: 'decode with the tokenizer of the model that made the ids',
    });
  }
}

function unknownModel(where: string, type: unknown, cause?: unknown): TextError {
  return new TextError(
    {
      where,
      expected: 'a BPE tokenizer with parts that @huggingface/tokenizers knows',
      received: `model type ${JSON.stringify(type)}${cause === undefined ? '' : ` (${messageOf(cause)})`}`,
      remedy: "use the tokenizer.json of a Gemma model's folder",
    },
    { cause },
  );
}

/** Gemma's tokenizers split and replace plain strings. A stranger's regular expression could take for ever to match.
 *  @throws {TextError} naming the first */
function refuseExpressions(parts: readonly unknown[], where: string): void {
  const open = [...parts];
  while (open.length > 0) {
    const part = open.pop();
    if (typeof part !== 'object' || part === null) continue;
    if ('Regex' in part) {
      throw new TextError({
        where,
        expected: "patterns that are plain strings, as Gemma's are",
        received: `the regular expression ${JSON.stringify(part.Regex)?.slice(0, 80)}`,
        remedy: "use the tokenizer.json of a Gemma model's folder",
      });
    }
    for (const inner of Object.values(part)) open.push(inner);
  }
}

/** True where the post-processor's template for one text begins with BOS. */
function beginsWithBos(postProcessor: unknown, bos: string | undefined): boolean {
  const template = postProcessor as
    { single?: readonly { SpecialToken?: { id?: string } }[] } | null | undefined;
  return bos !== undefined && template?.single?.[0]?.SpecialToken?.id === bos;
}

/** What transformers' GemmaTokenizer takes for named when the configuration does not say so. */
const gemmaNames = ['bos', 'eos', 'pad', 'unk', 'mask'].map((name) => [name, `<${name}>`] as const);

/** Every token that the configuration names, by name without "_token". Newer files nest the media tokens. */
function namesOf(config: Readonly<Record<string, unknown>>): Map<string, string> {
  const names = new Map<string, string>(/^Gemma/.test(String(config['tokenizer_class'])) ? gemmaNames : []);
  const sources = [config['model_specific_special_tokens'], config['extra_special_tokens'], config];
  for (const source of sources) {
    if (typeof source !== 'object' || source === null || Array.isArray(source)) continue;
    for (const [key, value] of Object.entries(source)) {
      const token = named.safeParse(value);
      if (!key.endsWith('_token') || !token.success) continue;
      names.set(
        key.slice(0, -'_token'.length),
        typeof token.data === 'string' ? token.data : token.data.content,
      );
    }
  }
  return names;
}

function listOf(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((entry) => {
    const token = named.safeParse(entry);
    return token.success ? [typeof token.data === 'string' ? token.data : token.data.content] : [];
  });
}
