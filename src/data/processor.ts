// The processor of a model folder: conversations to token ids, labels and pixel values, and ids back to text. Equal to
// transformers' Gemma3nProcessor, save that text from data never becomes a marker, whatever it spells.

import { type Fault, TextError } from '../errors.js';
import { resolveFolder, type ResolveOptions } from '../hub/index.js';
import {
  decodeImage,
  type ImageSettings,
  imageSettings,
  pixelValues,
  type PixelValues,
} from '../image/index.js';
import { ChatTemplate, type TemplateMessage, Tokenizer, unguard } from '../text/index.js';
import { assistantSpans, labelsOf, type Span } from './labels.js';
import { readProcessorFiles } from './processor-files.js';
import type { AudioPart, Example, ImagePart, Role, Sample, TextPart } from './types.js';

/** A turn as callers may write it: text alone as a string; pictures without data where only text is wanted. */
export interface MessageInput {
  readonly role: Role;
  readonly content:
    | string
    | readonly (
        | TextPart
        | { readonly type: 'image'; readonly image?: ImagePart['image'] }
        | { readonly type: 'audio'; readonly audio?: AudioPart['audio'] }
      )[];
}

export interface EncodeOptions {
  /** Ends with the opening of the assistant's turn, for generation. */
  readonly addGenerationPrompt?: boolean;
  /** Gives labels. By default where the conversation has an assistant's turn and no generation prompt is added. */
  readonly labels?: boolean;
}

/** What an image becomes in the text. */
interface ImageTokens {
  readonly settings: ImageSettings;
  /** The placeholder that the template writes. */
  readonly placeholder: string;
  /** What stands for one image: the soft tokens between their markers. */
  readonly expansion: string;
}

export class Processor {
  /** Pads batches. */
  readonly padTokenId: number;
  /** Tokens that end an answer: the end of the text and the end of a turn. */
  readonly eosTokenIds: readonly number[];
  readonly #variables: Readonly<Record<string, string>>;
  readonly #markers: readonly string[];

  /** @param template none where the folder has none: then only `decode` and the tokenizer work
   *  @param image none for a text-only model */
  constructor(
    readonly tokenizer: Tokenizer,
    readonly template: ChatTemplate | undefined,
    readonly image: ImageTokens | undefined,
  ) {
    const named = ['bos', 'eos', 'pad', 'unk'].flatMap((name) => {
      const token = tokenizer.named(name);
      return token ? [[`${name}_token`, token.content] as const] : [];
    });
    this.#variables = Object.fromEntries(named);
    // Templates may write markers that the tokenizer does not call special.
    this.#markers = tokenizer.addedTokens.filter(
      (token) => token.trim() !== '' && template?.source.includes(token),
    );
    const eos = tokenizer.named('eos')?.id;
    this.padTokenId = tokenizer.named('pad')?.id ?? eos ?? 0;
    const ends = [eos, template && this.#turnEnd(template)];
    this.eosTokenIds = [...new Set(ends.filter((id) => id !== undefined))];
  }

  /** Bytes of one image's pixel values; 0 without images, and where images keep their own sizes. */
  get imageBytes(): number {
    const size = this.image?.settings.size;
    return size ? 3 * size.height * size.width * Float32Array.BYTES_PER_ELEMENT : 0;
  }

  /** The conversation as the model reads it, images as placeholders.
   *  @throws {TextError} without a chat template, or when it refuses the conversation */
  applyChatTemplate(
    messages: readonly MessageInput[],
    { addGenerationPrompt = false }: { readonly addGenerationPrompt?: boolean } = {},
  ): string {
    return unguard(this.#render(this.#guarded(messages), addGenerationPrompt));
  }

  /** Token ids of a conversation, with labels (-100 but on the assistant's tokens and the ends of its turns) and pixel values.
   *  Encoded images are decoded on the way.
   *  @throws {TextError} when the template refuses the conversation, writes another number of image placeholders than there
   *    are images, or labels are asked for and nothing is the assistant's
   *  @throws {ImageError} when an image cannot be decoded */
  async encode(
    conversation: readonly MessageInput[] | Sample,
    { addGenerationPrompt = false, labels }: EncodeOptions = {},
  ): Promise<Example> {
    const messages: readonly MessageInput[] =
      'messages' in conversation ? conversation.messages : conversation;
    const images = imagesOf(messages);
    const turns = this.#guarded(messages);
    const rendered = this.#render(turns, addGenerationPrompt);
    const answered = turns.some(({ role }) => role === 'assistant');
    if (labels && !answered) {
      throw this.#fault({
        expected: "an assistant's turn to learn",
        received: `roles ${turns.map(({ role }) => role).join(', ')}`,
        remedy: 'pass labels: false, or add assistant(...)',
      });
    }
    const withLabels = labels ?? (answered && !addGenerationPrompt);
    const spans = withLabels
      ? assistantSpans(this.template!, turns, rendered, { addGenerationPrompt, variables: this.#variables })
      : [];
    const { text, holes, shift } = this.#expand(rendered, images.length);
    const moved = spans.map(({ start, end }) => ({ start: shift(start), end: shift(end) }));
    const stretches = this.tokenizer.encodeStretches(
      text,
      'tokens',
      moved.flatMap(({ start, end }) => [start, end]),
    );
    const ids = stretches.flatMap((stretch) => stretch.ids);
    const bos = this.#missingBos(ids);
    const pixels = images.length > 0 ? await this.#pixels(images) : undefined;
    return {
      inputIds: Int32Array.from([...bos, ...ids]),
      ...(withLabels
        ? { labels: Int32Array.from([...bos.map(() => -100), ...labelsOf(stretches, moved, holes)]) }
        : {}),
      ...(pixels ? { pixelValues: pixels } : {}),
    };
  }

  /** The text of token ids.
   *  @param options.skipSpecialTokens leaves markers out; false by default
   *  @throws {TextError} on an id that the vocabulary does not have */
  decode(
    ids: Iterable<number | bigint>,
    { skipSpecialTokens = false }: { readonly skipSpecialTokens?: boolean } = {},
  ): string {
    return this.tokenizer.decode(ids, skipSpecialTokens);
  }

  #render(messages: readonly TemplateMessage[], addGenerationPrompt: boolean): string {
    if (!this.template) {
      throw this.#fault({
        expected: 'a chat template',
        received: 'none in the model folder',
        remedy: 'copy chat_template.jinja of the instruction-tuned model into it',
      });
    }
    return this.template.render(messages, { addGenerationPrompt, variables: this.#variables });
  }

  /** Messages for the template: no text of theirs spells a marker. A system turn is one text, since templates read only its
   *  first part. */
  #guarded(messages: readonly MessageInput[]): TemplateMessage[] {
    const guard = (text: string): string => this.tokenizer.guard(text, this.#markers);
    return messages.map(({ role, content }) => {
      if (typeof content === 'string') return { role, content: guard(content) };
      const parts = content.map((part) =>
        part.type === 'text' ? { type: 'text', text: part.text } : { type: part.type },
      );
      if (role === 'system' && parts.length > 1 && parts.every((part) => part.text !== undefined)) {
        return { role, content: [{ type: 'text', text: guard(parts.map(({ text }) => text).join('')) }] };
      }
      return {
        role,
        content: parts.map((part) => (part.text === undefined ? part : { ...part, text: guard(part.text) })),
      };
    });
  }

  /** Writes each image's tokens in its placeholder's stead.
   *  @returns the text, the stretches that stand for images, and where a position of `rendered` went */
  #expand(
    rendered: string,
    numImages: number,
  ): { text: string; holes: Span[]; shift: (at: number) => number } {
    const identity = (at: number): number => at;
    if (numImages > 0 && !this.image) {
      throw this.#fault({
        expected: 'text alone, since the model folder configures no images',
        received: `${numImages} image${numImages === 1 ? '' : 's'}`,
        remedy: 'take the processor files of a model that sees, with preprocessor_config.json',
      });
    }
    if (!this.image) return { text: rendered, holes: [], shift: identity };
    const { placeholder, expansion } = this.image;
    const pieces = rendered.split(placeholder);
    if (pieces.length - 1 !== numImages) throw this.#miscounted(pieces.length - 1, numImages);
    const holes: Span[] = [];
    let at = 0;
    for (const piece of pieces.slice(0, -1)) {
      at += piece.length;
      holes.push({ start: at, end: at + expansion.length });
      at += expansion.length;
    }
    const grown = expansion.length - placeholder.length;
    const places = holes.map(({ start }, index) => start - index * grown);
    const shift = (position: number): number =>
      position + grown * places.filter((place) => place + placeholder.length <= position).length;
    return { text: pieces.join(expansion), holes, shift };
  }

  #miscounted(placeholders: number, numImages: number): TextError {
    const which =
      placeholders < numImages
        ? `image ${placeholders} and what follows it have no placeholder`
        : `placeholder ${numImages} and what follows it have no image`;
    return this.#fault({
      expected: `${numImages} image placeholder${numImages === 1 ? '' : 's'} "${this.image!.placeholder}", one an image`,
      received: `${placeholders} (${which})`,
      remedy: 'put images into user turns, as image parts, and check the chat template',
    });
  }

  /** Images in order, without data faults. */
  async #pixels(images: readonly (ImagePart['image'] | undefined)[]): Promise<PixelValues> {
    const decoded = await Promise.all(
      images.map(async (image, index) => {
        if (image instanceof Uint8Array) return decodeImage(image, `image ${index}`);
        if (image) return image;
        throw this.#fault({
          expected: `data for image ${index}`,
          received: 'an image part without any',
          remedy: 'pass { type: "image", image: bytes }',
        });
      }),
    );
    return pixelValues(decoded, this.image!.settings);
  }

  /** BOS, where neither the template nor the data wrote it and the tokenizer says to. */
  #missingBos(ids: readonly number[]): number[] {
    const bos = this.tokenizer.bosToAdd;
    return bos !== undefined && ids[0] !== bos ? [bos] : [];
  }

  /** The special token that the template writes after an answer. */
  #turnEnd(template: ChatTemplate): number | undefined {
    const messages: TemplateMessage[] = [
      { role: 'user', content: [{ type: 'text', text: 'a' }] },
      { role: 'assistant', content: [{ type: 'text', text: 'a' }] },
    ];
    try {
      const rendered = template.render(messages, { variables: this.#variables });
      const [span] = assistantSpans(template, messages, rendered, { variables: this.#variables });
      const answer = this.tokenizer.encodeStretches(rendered.slice(span!.start, span!.end));
      return answer.find(({ special }) => special)?.ids[0];
    } catch {
      return undefined; // a template that cannot write such a conversation says so when it is used
    }
  }

  #fault(fault: Omit<Fault, 'where'>): TextError {
    return new TextError({ where: this.template?.where ?? this.tokenizer.where, ...fault });
  }
}

/** Loads the processor of a model folder, or of a repository of the Hub.
 *  @param dirOrRepo holds tokenizer.json, and as the model needs them tokenizer_config.json, a chat template,
 *    preprocessor_config.json and processor_config.json
 *  @throws {TextError} on a missing or damaged file, and when images are configured and the tokenizer has no image token
 *  @throws {ImageError} on image settings that are not supported
 *  @throws {ConfigError} on values of the wrong type */
export async function loadProcessor(dirOrRepo: string, options: ResolveOptions = {}): Promise<Processor> {
  const folder = await resolveFolder(dirOrRepo, { kind: 'processor', ...options });
  const files = await readProcessorFiles(folder);
  const tokenizer = new Tokenizer(files.tokenizer, files.tokenizerConfig, `${folder}/tokenizer.json`);
  const template = files.template && new ChatTemplate(files.template.source, files.template.where);
  return new Processor(
    tokenizer,
    template,
    files.image && imageTokens(tokenizer, files.image, files.processor),
  );
}

/** A processor_config.json that asks for more is not a model's. */
const maxSoftTokens = 1 << 16;

function imageTokens(
  tokenizer: Tokenizer,
  { config, where }: { readonly config: Readonly<Record<string, unknown>>; readonly where: string },
  processor: Readonly<Record<string, unknown>>,
): ImageTokens {
  const purpose = `${where} configures images`;
  const soft = tokenizer.requireNamed('image', purpose);
  const begin = tokenizer.requireNamed('boi', purpose);
  const end = tokenizer.requireNamed('eoi', purpose);
  const numSoftTokens = processor['image_seq_length'] ?? 256;
  const isCount = typeof numSoftTokens === 'number' && Number.isInteger(numSoftTokens);
  if (!isCount || numSoftTokens < 1 || numSoftTokens > maxSoftTokens) {
    throw new TextError({
      where: 'processor_config.json: image_seq_length',
      expected: `the number of soft tokens of an image, 1 to ${maxSoftTokens}`,
      received: JSON.stringify(numSoftTokens),
      remedy: "use the model's own processor_config.json",
    });
  }
  return {
    settings: imageSettings(config, where),
    placeholder: soft.content,
    expansion: `\n\n${begin.content}${soft.content.repeat(numSoftTokens)}${end.content}\n\n`,
  };
}

function imagesOf(messages: readonly MessageInput[]): (ImagePart['image'] | undefined)[] {
  return messages.flatMap(({ content }) =>
    typeof content === 'string' ? [] : content.flatMap((part) => (part.type === 'image' ? [part.image] : [])),
  );
}
