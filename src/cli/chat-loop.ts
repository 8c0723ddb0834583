// `pipe generate --interactive`: turns from stdin, answers to stdout, everything else on stderr. Ctrl-C stops an answer;
// twice, it leaves.

import { createInterface } from 'node:readline';
import type { AudioPart, ImagePart } from '../data/types.js';
import { SluiceError } from '../errors.js';
import type { Chat, TextOptions } from '../generate/index.js';
import { type AnswerWriter, tellLength, writeAnswer } from './answer-writer.js';

import { mediaPart, turn } from './media-arguments.js';
import { Stopped } from './stop.js';

const help = `/image FILE   show a picture with the next message
/audio FILE   play a clip with the next message
/reset        forget the conversation
/exit         leave (also Ctrl-D)
//...         a message that begins with /
Ctrl-C stops an answer, twice leaves.
`;

export interface ChatLoop {
  readonly chat: Chat;
  readonly options: TextOptions;
  readonly writer: AnswerWriter;
  /** Leaves with its reason. */
  readonly signal: AbortSignal;
}

/** Chats until the input ends or /exit. @throws {Stopped} when it is interrupted twice, or terminated */
export async function chatLoop({ chat, options, writer, signal }: ChatLoop): Promise<void> {
  const say = (text: string): void => void process.stderr.write(text);
  const terminal = process.stdin.isTTY === true;
  const input = createInterface({
    input: process.stdin,
    ...(terminal && { output: process.stderr }),
    prompt: '> ',
  });
  const lines = input[Symbol.asyncIterator]();
  using interrupts = new Interrupts(() => say('\n(once more to leave)\n'));
  input.on('SIGINT', () => interrupts.add()); // on a terminal, readline takes Ctrl-C
  const leaving = AbortSignal.any([signal, interrupts.leaving]);
  // Not a race between a line and this: each would leave something behind on what lasts as long as the conversation.
  const leave = (): void => input.close();
  leaving.addEventListener('abort', leave, { once: true });
  let media: (ImagePart | AudioPart)[] = [];

  const answer = async (line: string): Promise<void> => {
    const content = turn(media, line.trim() === '' ? '' : line.replace(/^\/\//, '/'));
    media = [];
    const answering = interrupts.answering();
    try {
      await writeAnswer(chat, content, { ...options, signal: AbortSignal.any([leaving, answering]) }, writer);
      tellLength(chat);
    } catch (error) {
      if (leaving.aborted) throw leaving.reason;
      if (answering.aborted) say('[stopped]\n');
      else if (error instanceof SluiceError) say(`${error.message}\n[the turn is left out]\n`);
      else throw error;
    } finally {
      interrupts.idle();
    }
  };

  if (terminal) say('/help lists commands; Ctrl-D leaves.\n');
  try {
    for (;;) {
      leaving.throwIfAborted();
      if (terminal) input.prompt();
      const next = await lines.next();
      leaving.throwIfAborted();
      if (next.done) return;
      interrupts.forget();
      const [, command, argument = ''] = /^\/(\w*)\s*(.*?)\s*$/.exec(next.value) ?? [];
      if (command === undefined || next.value.startsWith('//')) {
        if (next.value.trim() !== '' || media.length > 0) await answer(next.value);
      } else if (command === 'image' || command === 'audio') {
        await mediaPart({ kind: command, path: argument }).then(
          (part) => media.push(part),
          (error: unknown) => say(`${(error as Error).message}\n`),
        );
      } else if (command === 'reset') {
        chat.reset();
        media = [];
      } else if (command === 'exit') return;
      else say(command === 'help' ? help : `no command /${command}\n${help}`);
    }
  } finally {
    leaving.removeEventListener('abort', leave);
    input.close();
    chat.dispose();
  }
}

/** Ctrl-C and SIGTERM: one stops the answer, two without a line between them leave, and so does SIGTERM. */
class Interrupts {
  readonly #leaving = new AbortController();
  readonly #tell: () => void;
  #answer: AbortController | undefined;
  #count = 0;
  readonly #onInterrupt = (): void => this.add();
  readonly #onTerminate = (): void => this.#leaving.abort(new Stopped('SIGTERM'));

  /** @param tell called for the first interrupt where there is no answer to stop */
  constructor(tell: () => void) {
    this.#tell = tell;
    process.on('SIGINT', this.#onInterrupt).on('SIGTERM', this.#onTerminate);
  }

  get leaving(): AbortSignal {
    return this.#leaving.signal;
  }

  /** @returns a signal that the next interrupt aborts */
  answering(): AbortSignal {
    this.#answer = new AbortController();
    return this.#answer.signal;
  }

  idle(): void {
    this.#answer = undefined;
  }

  /** A line came: interrupts count anew. */
  forget(): void {
    this.#count = 0;
  }

  add(): void {
    this.#count += 1;
    if (this.#count > 1) this.#leaving.abort(new Stopped('SIGINT'));
    else if (this.#answer) this.#answer.abort(new Stopped('SIGINT'));
    else this.#tell();
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#onInterrupt).off('SIGTERM', this.#onTerminate);
  }
}
