// `pipe generate`: checks the command line, loads model and processor, and writes one answer; or hands over to a chat.

import { text as textOf } from 'node:stream/consumers';
import { loadProcessor } from '../data/processor.js';
import { system } from '../data/chat.js';
import type { Message } from '../data/types.js';
import { ConfigError } from '../errors.js';
import { Chat, type TextOptions, refuseFaults } from '../generate/index.js';
import type { DownloadProgress } from '../hub/index.js';
import { fromPretrained, loadConfig, placeOf } from '../models/gemma3n/index.js';
import { streamLog } from '../native/progress.js';
import { ensureAddon } from '../native/setup.js';
import { jsonWriter, tellLength, textWriter, writeAnswer } from './answer-writer.js';
import { chatLoop } from './chat-loop.js';
import { mediaFiles, mediaPart, turn } from './media-arguments.js';
import { takeOutput } from './output.js';
import { stopOnSignals } from './stop.js';

export interface GenerateArguments {
  readonly checkpoint: string;
  readonly prompt: string | undefined;
  readonly image: string[] | undefined;
  readonly audio: string[] | undefined;
  readonly system: string | undefined;
  readonly interactive: boolean;
  readonly 'max-new-tokens': number;
  readonly stop: string[] | undefined;
  readonly 'repetition-penalty': number | undefined;
  readonly temperature: number | undefined;
  readonly 'top-k': number | undefined;
  readonly 'top-p': number | undefined;
  readonly 'min-p': number | undefined;
  readonly seed: number | undefined;
  readonly dtype: 'float32' | 'bfloat16' | 'float16' | 'float64' | undefined;
  readonly device: string;
  readonly revision: string | undefined;
  readonly offline: boolean | undefined;
  readonly json: boolean;
  /** The command line as it was written. */
  readonly rawArguments?: readonly string[];
}

/** @throws {ConfigError} for a command line that is wrong, and what loading and generating throw */
export async function runGenerate(args: GenerateArguments): Promise<void> {
  const options = textOptions(args);
  const opening = args.system === undefined ? [] : [system(args.system)];
  if (args.interactive) refuseOneShot(args);
  using output = takeOutput({ alone: args.json, remedy: 'nobody would read the rest' });
  const write = (text: string): void => output.write(text);
  const writer = args.json ? jsonWriter(write) : textWriter(write);
  if (args.interactive) {
    const chat = await openChat(args, opening, output.signal);
    return chatLoop({ chat, options, writer, signal: output.signal });
  }
  using stop = stopOnSignals();
  const signal = AbortSignal.any([stop.signal, output.signal]);
  try {
    const content = await turnOf(args);
    using chat = await openChat(args, opening, signal);
    await writeAnswer(chat, content, { ...options, signal }, writer);
    tellLength(chat);
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  }
}

async function openChat(
  { checkpoint, revision, offline, dtype, device }: GenerateArguments,
  opening: readonly Message[],
  signal: AbortSignal,
): Promise<Chat> {
  const log = streamLog();
  const onProgress = ({ repository, doneBytes, totalBytes }: DownloadProgress): void =>
    log.progress(repository, doneBytes, totalBytes, 'bytes');
  const { folder, adapter } = await placeOf(checkpoint, { revision, offline, signal, onProgress });
  await loadConfig(folder); // is it a model at all?
  const processor = await loadProcessor(folder);
  await ensureAddon({ log, signal });
  const model = await fromPretrained(folder, {
    device,
    ...(dtype && { dtype }),
    ...(adapter && { adapter }),
  });
  return new Chat(model, processor, opening);
}

/** The user's turn: pictures and clips as they stand on the command line, then the text, if there is any. */
async function turnOf({ prompt, rawArguments = [] }: GenerateArguments): Promise<Message['content']> {
  const media = await Promise.all(mediaFiles(rawArguments).map(mediaPart));
  const text = prompt === '-' ? await textOf(process.stdin) : prompt;
  if (text !== undefined && (text !== '' || media.length > 0)) return turn(media, text);
  throw new ConfigError({
    where: 'pipe generate',
    expected: '--prompt TEXT, or --interactive',
    received: text === undefined ? 'neither' : 'an empty prompt',
    remedy: "give a prompt; --prompt - reads it from stdin, --prompt '' asks about pictures or clips alone",
  });
}

function textOptions(args: GenerateArguments): TextOptions {
  const { temperature, seed, stop: stopStrings } = args;
  const drawing = { temperature, topK: args['top-k'], topP: args['top-p'], minP: args['min-p'], seed };
  const given = Object.fromEntries(
    Object.entries({
      ...drawing,
      repetitionPenalty: args['repetition-penalty'],
      stopStrings,
    }).filter(([, value]) => value !== undefined),
  );
  const options: TextOptions = {
    ...given,
    doSample: Object.values(drawing).some((option) => option !== undefined),
    maxNewTokens: args['max-new-tokens'],
  };
  refuseFaults(options, 'pipe generate');
  return options;
}

function refuseOneShot({ prompt, image, audio }: GenerateArguments): void {
  const [given] = Object.entries({ prompt, image, audio }).find(([, value]) => value !== undefined) ?? [];
  if (given === undefined) return;
  throw new ConfigError({
    where: 'pipe generate --interactive',
    expected: 'the turns from stdin',
    received: `--${given}`,
    remedy: 'leave it out; in the chat, write the text, /image FILE and /audio FILE',
  });
}
