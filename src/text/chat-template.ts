// The chat template of a model folder: jinja that writes a conversation as the model was trained to read it. It comes with
// the checkpoint, so it is foreign code: it gets plain values only, and bounded time and memory.

import { Template } from '@huggingface/jinja';
import { messageOf, TextError } from '../errors.js';
import { BudgetError, maxSourceLength, renderBounded } from './bounded-jinja.js';
import { Remembered } from './remembered.js';

/** One turn as templates see it. */
export interface TemplateMessage {
  readonly role: string;
  readonly content: string | readonly { readonly type: string; readonly text?: string }[];
}

export interface RenderOptions {
  /** Opens the assistant's turn at the end. */
  readonly addGenerationPrompt?: boolean;
  /** What templates find by name: bos_token and the like. */
  readonly variables?: Readonly<Record<string, string>>;
}

/** What a template may make, in characters and steps, beside sixteen times its input. */
const slack = 1 << 20;

/** Characters of conversations, as given and as written, that a template remembers: data asks the same questions often. */
const rememberedSize = 1 << 22;

export class ChatTemplate {
  readonly #template: Template;
  readonly #remembered = new Remembered(rememberedSize);

  /** @throws {TextError} when the template does not parse */
  constructor(
    readonly source: string,
    readonly where = 'chat template',
  ) {
    if (source.length > maxSourceLength) {
      throw new TextError({
        where,
        expected: `a template of at most ${maxSourceLength} characters`,
        received: String(source.length),
        remedy: "take chat_template.jinja from the model's folder",
      });
    }
    try {
      // As in Python, where a line of a template ends with a line feed whatever ends it in the file.
      this.#template = new Template(source.replace(/\r\n?/g, '\n'));
    } catch (cause) {
      throw new TextError(
        {
          where,
          expected: 'a jinja template',
          received: messageOf(cause),
          remedy: "take chat_template.jinja from the model's folder",
        },
        { cause },
      );
    }
  }

  /** Writes a conversation.
   *  @throws {TextError} with the template's own words when it refuses the conversation (roles out of turn), when it fails,
   *    and when it runs or writes out of all proportion */
  render(
    messages: readonly TemplateMessage[],
    { addGenerationPrompt = false, variables }: RenderOptions = {},
  ): string {
    if (messages.length === 0) {
      throw new TextError({
        where: this.where,
        expected: 'at least one message',
        received: 'none',
        remedy: 'drop empty conversations',
      });
    }
    const given = { ...variables, messages, add_generation_prompt: addGenerationPrompt };
    // A template that writes the time of day writes another text each time.
    if (this.source.includes('strftime_now')) return this.#render(given);
    return this.#remembered.get(JSON.stringify(given), () => this.#render(given));
  }

  #render(given: { readonly messages: readonly TemplateMessage[] }): string {
    const { messages } = given;
    const size = slack + 16 * sizeOf(messages);
    const budget = { steps: size / 4, size, total: 64 * size };
    try {
      return renderBounded(this.#template, given, budget);
    } catch (cause) {
      if (cause instanceof BudgetError) throw this.#tooMuch(cause);
      throw new TextError(
        {
          where: this.where,
          expected: 'a conversation that the template takes',
          received: `roles ${messages.map(({ role }) => role).join(', ')}: ${messageOf(cause)}`,
          remedy: 'order the turns as the model expects them',
        },
        { cause },
      );
    }
  }

  #tooMuch(cause: BudgetError): TextError {
    return new TextError(
      {
        where: this.where,
        expected: `at most ${cause.limit} for this conversation`,
        received: 'a template that goes on',
        remedy: "take chat_template.jinja from the model's folder",
      },
      { cause },
    );
  }
}

function sizeOf(messages: readonly TemplateMessage[]): number {
  return messages.reduce((sum, { role, content }) => {
    const parts = typeof content === 'string' ? [{ text: content }] : content;
    return sum + role.length + parts.reduce((size, part) => size + 64 + (part.text?.length ?? 0), 0);
  }, 0);
}
