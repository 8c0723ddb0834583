// The processor of a model folder: conversations to token ids, labels, pixel values and log-mel features, and ids back to
// text. Equal to transformers' Gemma3nProcessor, save that text from data never becomes a marker, whatever it spells.

import { maxFeatureBytes } from '../audio/index.js';
import { type Fault, TextError } from '../errors.js';
import { resolveFolder, type ResolveOptions } from '../hub/index.js';
import { ChatTemplate, type TemplateMessage, Tokenizer, unguard } from '../text/index.js';
import { assistantSpans, labelsOf, type Span } from './labels.js';
import { type MediaReader, wholeMedia } from './media-arrays.js';
import { AUDIO, checkPlaceholders, clipsIn, IMAGE, imagesIn, type Media, mediaOf, present } from './media.js';
import { checkMessages, type MessageInput } from './messages.js';
import { expandPlaceholders } from './placeholders.js';
import { contextOf, readProcessorFiles } from './processor-files.js';
import type { Example, Sample } from './types.js';
import { checkVocabulary } from './vocabulary.js';

export type { MessageInput };

export interface EncodeOptions {
  /** Ends with the opening of the assistant's turn, for generation. */
  readonly addGenerationPrompt?: boolean;
  /** Gives labels. By default where the conversation has an assistant's turn and no generation prompt is added. */
  readonly labels?: boolean;
  /** A longer conversation is an error; by default the tokenizer's `model_max_length`, where it states one. */
  readonly maxTokens?: number;
}

export class Processor {
  /** Pads batches. */
  readonly padTokenId: number;
  /** Tokens that end an answer: the end of the text and the end of a turn. */
  readonly eosTokenIds: readonly number[];
  readonly #variables: Readonly<Record<string, string>>;
  readonly #markers: readonly string[];

  /** @param template none where the folder has none: then only `decode` and the tokenizer work
   *  @param media none for a text-only model
   *  @param maxTokens the context, where the tokenizer states it
   *  @param reader makes the arrays of pictures and clips
   *  @param folder holds the files that it was made of; none where it was made of none */
  constructor(
    readonly tokenizer: Tokenizer,
    readonly template: ChatTemplate | undefined,
    readonly media: Media = {},
    readonly maxTokens?: number,
    readonly reader: MediaReader = wholeMedia,
    readonly folder?: string,
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

  /** The same processor, which reads media otherwise. */
  withReader(reader: MediaReader): Processor {
    const { tokenizer, template, media, maxTokens, folder } = this;
    return new Processor(tokenizer, template, media, maxTokens, reader, folder);
  }

  /** Bytes of one image's pixel values; 0 without images, and where images keep their own sizes. */
  get imageBytes(): number {
    const size = this.media.image?.settings.size;
    return size ? 3 * size.height * size.width * Float32Array.BYTES_PER_ELEMENT : 0;
  }

  /** Bytes of the longest clip's features and mask; 0 without audio. */
  get clipBytes(): number {
    return this.media.audio ? maxFeatureBytes(this.media.audio.settings) : 0;
  }

  /** The conversation as the model reads it, media as placeholders.
   *  @throws {TextError} without a chat template, when it refuses the conversation, or when a part is none */
  applyChatTemplate(
    messages: readonly MessageInput[],
    { addGenerationPrompt = false }: { readonly addGenerationPrompt?: boolean } = {},
  ): string {
    checkMessages(messages);
    return unguard(this.#render(this.#guarded(messages), addGenerationPrompt));
  }

  /** Token ids of a conversation, with labels (-100 but on the assistant's tokens and the ends of its turns), pixel values
   *  and log-mel features. Encoded media are decoded on the way, off the JavaScript thread. What was left out, such as the
   *  end of a long clip, stands in the example's `notices`.
   *  @throws {TextError} when a part is none, the template refuses the conversation or writes another number of placeholders
   *    than there are media, labels are asked for and nothing is the assistant's, or the conversation is longer than `maxTokens`
   *  @throws {ImageError} {AudioError} naming the image or clip that cannot be decoded */
  async encode(
    conversation: readonly MessageInput[] | Sample,
    { addGenerationPrompt = false, labels, maxTokens = this.maxTokens }: EncodeOptions = {},
  ): Promise<Example> {
    const messages: readonly MessageInput[] =
      'messages' in conversation ? conversation.messages : conversation;
    checkMessages(messages);
    const [images, clips] = [imagesIn(messages), clipsIn(messages)];
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
    const { text, holes, shift } = this.#expand(rendered, images.length, clips.length);
    const moved = spans.map(({ start, end }) => ({ start: shift(start), end: shift(end) }));
    const stretches = this.tokenizer.encodeStretches(
      text,
      'tokens',
      moved.flatMap(({ start, end }) => [start, end]),
    );
    const ids = stretches.flatMap((stretch) => stretch.ids);
    const bos = this.#missingBos(ids);
    this.#checkLength(bos.length + ids.length, maxTokens);
    const { image, audio } = this.media;
    const [pixels, heard] = await Promise.all([
      images.length > 0
        ? this.reader.pixels(present(IMAGE, images, this.#where), image!.settings)
        : undefined,
      clips.length > 0
        ? this.reader.features(present(AUDIO, clips, this.#where), audio!.settings)
        : undefined,
    ]);
    return {
      inputIds: Int32Array.from([...bos, ...ids]),
      ...(withLabels && {
        labels: Int32Array.from([...bos.map(() => -100), ...labelsOf(stretches, moved, holes)]),
      }),
      ...(pixels && { pixelValues: pixels }),
      ...(heard && { inputFeatures: heard.features, inputFeaturesMask: heard.mask }),
      ...(heard && heard.notices.length > 0 && { notices: heard.notices }),
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

  /** Writes the media's tokens in their placeholders' stead, as many as there are.
   *  @returns the text, the stretches that stand for media, and where a position of `rendered` went */
  #expand(
    rendered: string,
    numImages: number,
    numClips: number,
  ): { text: string; holes: readonly Span[]; shift: (at: number) => number } {
    const { image, audio } = this.media;
    const expanded = expandPlaceholders(
      rendered,
      [image, audio].filter((medium) => medium !== undefined),
    );
    const found = (part: string): number =>
      expanded.holes.filter(({ medium }) => medium.kind.part === part).length;
    checkPlaceholders(IMAGE, this.media, found('image'), numImages, this.#where);
    checkPlaceholders(AUDIO, this.media, found('audio'), numClips, this.#where);
    return expanded;
  }

  #checkLength(length: number, maxTokens: number | undefined): void {
    if (maxTokens === undefined || length <= maxTokens) return;
    const says = maxTokens === this.maxTokens ? ", the tokenizer's model_max_length" : '';
    throw new TextError({
      where: 'encode',
      expected: `a conversation of at most ${maxTokens} tokens${says}`,
      received: String(length),
      remedy: 'shorten it, show fewer media, or raise maxTokens if the model reads that far',
    });
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

  /** The file that errors about conversations name. */
  get #where(): string {
    return this.template?.where ?? this.tokenizer.where;
  }

  #fault(fault: Omit<Fault, 'where'>): TextError {
    return new TextError({ where: this.#where, ...fault });
  }
}

/** Loads the processor of a model folder, or of a repository of the Hub.
 *  @param dirOrRepo holds tokenizer.json, and as the model needs them tokenizer_config.json, a chat template,
 *    preprocessor_config.json and processor_config.json
 *  @throws {TextError} on a missing or damaged file, on files of another model's processor, when media are configured and
 *    the tokenizer has no tokens for them, and when the folder's config.json is of a model with another vocabulary
 *  @throws {ImageError} {AudioError} on settings that are not supported
 *  @throws {ConfigError} on values of the wrong type */
export async function loadProcessor(dirOrRepo: string, options: ResolveOptions = {}): Promise<Processor> {
  const folder = await resolveFolder(dirOrRepo, { kind: 'processor', ...options });
  const files = await readProcessorFiles(folder);
  const tokenizer = new Tokenizer(files.tokenizer, files.tokenizerConfig, `${folder}/tokenizer.json`);
  if (files.model) checkVocabulary(tokenizer, files.model);
  const template = files.template && new ChatTemplate(files.template.source, files.template.where);
  const media = mediaOf(tokenizer, files);
  return new Processor(tokenizer, template, media, contextOf(files.tokenizerConfig), wholeMedia, folder);
}
