// What `pipe generate` writes to stdout: the text as it comes, or with --json a line for each token and each answer.

import type { Message } from '../data/types.js';
import type { Chat, GeneratedText, TextEvent, TextOptions } from '../generate/index.js';

/** One answer at a time. */
export interface AnswerWriter {
  token(event: TextEvent): void;
  /** @param times of the answer, from the prompt on */
  end(answer: GeneratedText, times: AnswerTimes): void;
}

export interface AnswerTimes {
  /** Until the first token. */
  readonly promptMs: number;
  /** From the first token to the last. */
  readonly answerMs: number;
}

/** Text alone, a line break behind each answer. */
export function textWriter(write: (text: string) => void): AnswerWriter {
  return {
    token: ({ text }) => text !== '' && write(text),
    end: ({ text }) => write(text.endsWith('\n') ? '' : '\n'),
  };
}

/** {"event":"token","id":..,"text":..} and {"event":"end","text":..,"ids":[..],"reason":..,...}, a line each. */
export function jsonWriter(write: (text: string) => void): AnswerWriter {
  const line = (event: object): void => write(`${JSON.stringify(event)}\n`);
  return {
    token: ({ id, text }) => id !== undefined && line({ event: 'token', id, text }),
    end: ({ text, ids, reason, numPromptTokens }, { promptMs, answerMs }) =>
      line({
        event: 'end',
        text,
        ids,
        reason,
        promptTokens: numPromptTokens,
        newTokens: ids.length,
        promptMs: Math.round(promptMs),
        tokensPerSecond: ids.length > 1 ? round((ids.length - 1) / (answerMs / 1000)) : null,
      }),
  };
}

/** Streams one answer of a chat. @throws the signal's reason, after the end was written with reason "cancelled" */
export async function writeAnswer(
  chat: Chat,
  content: Message['content'],
  options: TextOptions,
  writer: AnswerWriter,
): Promise<GeneratedText> {
  const begun = performance.now();
  let first: number | undefined;
  const finish = (): GeneratedText | undefined => {
    const now = performance.now();
    const { answer } = chat;
    for (const notice of answer?.notices ?? []) process.stderr.write(`${notice}\n`);
    if (answer) writer.end(answer, { promptMs: (first ?? now) - begun, answerMs: now - (first ?? now) });
    return answer;
  };
  try {
    for await (const event of chat.send(content, options)) {
      first ??= performance.now();
      writer.token(event);
    }
  } catch (error) {
    if (options.signal?.aborted) finish();
    throw error;
  }
  return finish()!;
}

/** Says on stderr when an answer was cut off. */
export function tellLength(chat: Chat): void {
  const { answer, context } = chat;
  if (answer?.reason !== 'length') return;
  const isFull = answer.numPromptTokens + answer.ids.length >= context;
  const why = isFull
    ? `the context of ${context} tokens is full`
    : `cut off after ${answer.ids.length} tokens; --max-new-tokens allows more`;
  process.stderr.write(`[${why}]\n`);
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
