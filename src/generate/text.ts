// Conversations to answers, as text: encodes prompts, streams characters, ends at stop strings.

import type { MessageInput, Processor } from '../data/processor.js';
import type { Example } from '../data/types.js';
import type { CausalLm } from '../models/gemma3n/causal-lm.js';
import { disposeInputs, inputsOf } from './batch-inputs.js';
import { newTokens } from './generate.js';
import type { EndReason } from './options.js';
import type { Session } from './session.js';
import { StopStrings } from './stop-strings.js';
import { StreamDecoder } from './text-decoder.js';
import {
  type CheckedText,
  type GenerateTextOptions,
  type TextOptions,
  checkTextOptions,
} from './text-options.js';

export interface GeneratedText {
  /** Without the stop string that ended it. */
  readonly text: string;
  /** All new tokens, those of the stop string and the one that ended it included. */
  readonly ids: readonly number[];
  readonly reason: EndReason;
  readonly numPromptTokens: number;
  /** What of the prompt's media was left out, for people to know. */
  readonly notices: readonly string[];
}

/** Answers a conversation.
 *  @throws {ConfigError} for an option out of range, {TextError} when the conversation cannot be encoded, and as `generate`
 *  @example const { text } = await generateText(model, processor, [user(image(bytes), 'what is it?')], { maxNewTokens: 64 }); */
export async function generateText(
  model: CausalLm,
  processor: Processor,
  messages: readonly MessageInput[],
  options: GenerateTextOptions,
): Promise<GeneratedText> {
  return (await generateTexts(model, processor, [messages], options))[0]!;
}

/** Answers several conversations at once, each as it would be answered alone. */
export async function generateTexts(
  model: CausalLm,
  processor: Processor,
  conversations: readonly (readonly MessageInput[])[],
  options: GenerateTextOptions,
): Promise<GeneratedText[]> {
  const checked = checkTextOptions(model, processor, options);
  const examples = await Promise.all(conversations.map((messages) => encodePrompt(processor, messages)));
  const answers = examples.map((example) => new Answer(example));
  for await (const event of textEvents(model, processor, examples, checked)) {
    answers[event.row]!.add(event);
    if (event.text !== '') options.onText?.(event.text, event.row);
  }
  return answers.map((answer) => answer.result);
}

/** Answers a conversation bit by bit, as the consumer asks for it; when it stops asking, so does the model.
 *  @returns the stretches of `onText`, and in the end the whole
 *  @example for await (const piece of textStream(model, processor, [user('hello')], { maxNewTokens: 64 })) process.stdout.write(piece); */
export async function* textStream(
  model: CausalLm,
  processor: Processor,
  messages: readonly MessageInput[],
  options: TextOptions,
): AsyncGenerator<string, GeneratedText, void> {
  const checked = checkTextOptions(model, processor, options);
  const example = await encodePrompt(processor, messages);
  const answer = new Answer(example);
  for await (const event of textEvents(model, processor, [example], checked)) {
    answer.add(event);
    if (event.text !== '') yield event.text;
  }
  return answer.result;
}

/** A conversation with the opening of the answer, however long: the model's context is its bound, not the tokenizer's. */
export async function encodePrompt(
  processor: Processor,
  messages: readonly MessageInput[],
): Promise<Example> {
  return processor.encode(messages, { addGenerationPrompt: true, labels: false, maxTokens: Infinity });
}

/** A row's next token, and the text that is certain with it: '' while characters or stop strings are undecided. */
export interface TextEvent {
  readonly row: number;
  readonly id?: number;
  readonly text: string;
  readonly ended?: EndReason;
}

/** As `newTokens`, with text. */
export async function* textEvents(
  model: CausalLm,
  processor: Processor,
  examples: readonly Example[],
  { options, stopStrings, skipSpecialTokens }: CheckedText,
  session?: Session,
): AsyncGenerator<TextEvent, void, void> {
  const rows = examples.map(() => new RowText(new StreamDecoder(processor, skipSpecialTokens), stopStrings));
  const stop = (ids: readonly number[], row: number): boolean => rows[row]!.push(ids.at(-1)!);
  const inputs = inputsOf(model, examples, processor.padTokenId);
  try {
    for await (const event of newTokens(model, inputs, { ...options, stop }, session)) {
      const row = rows[event.row]!;
      if (event.ended) row.end();
      yield { ...event, text: row.take() };
    }
  } finally {
    disposeInputs(inputs);
  }
}

/** Puts a row's events together. */
export class Answer {
  #text = '';
  readonly #ids: number[] = [];
  #reason: EndReason = 'cancelled';

  constructor(readonly example: Example) {}

  get text(): string {
    return this.#text;
  }

  add({ id, text, ended }: TextEvent): void {
    this.#text += text;
    if (id !== undefined) this.#ids.push(id);
    if (ended) this.#reason = ended;
  }

  get result(): GeneratedText {
    return {
      text: this.#text,
      ids: this.#ids,
      reason: this.#reason,
      numPromptTokens: this.example.inputIds.length,
      notices: this.example.notices ?? [],
    };
  }
}

/** A row's text on its way: characters become whole, then stop strings are looked for. */
class RowText {
  readonly #decoder: StreamDecoder;
  readonly #stops: StopStrings | undefined;
  #ready = '';
  #stopped = false;

  constructor(decoder: StreamDecoder, stops: readonly string[]) {
    this.#decoder = decoder;
    this.#stops = stops.length > 0 ? new StopStrings(stops) : undefined;
  }

  /** @returns whether a stop string has come */
  push(id: number): boolean {
    const piece = this.#decoder.push(id);
    if (!this.#stops) {
      this.#ready += piece;
      return false;
    }
    const { text, stopped } = this.#stops.push(piece, this.#decoder.pending);
    this.#ready += text;
    return (this.#stopped = stopped);
  }

  end(): void {
    if (!this.#stopped) this.#ready += (this.#stops?.end() ?? '') + this.#decoder.end();
  }

  take(): string {
    const text = this.#ready;
    this.#ready = '';
    return text;
  }
}
