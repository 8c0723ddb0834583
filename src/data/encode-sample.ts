// A sample's last two steps before it is batched, each a plain function: media decoded, then tokens, labels and arrays.

import { TextError } from '../errors.js';
import { decodedAudio, decodedImage, type Hearing } from './media-arrays.js';
import type { Processor } from './processor.js';
import type { DecodedImage, Example, Message, Sample } from './types.js';

export interface DecodeSampleOptions {
  /** Rate and length of what the model hears; 16 kHz and 30 s by default. */
  readonly hearing?: Hearing;
  readonly signal?: AbortSignal;
}

/** The sample with its pictures and clips decoded. Off the JavaScript thread.
 *  @throws {ImageError} {AudioError} naming the picture or clip that cannot be decoded */
export async function decodeSampleMedia(
  sample: Sample,
  { hearing, signal }: DecodeSampleOptions = {},
): Promise<Sample> {
  const counts = { image: 0, audio: 0 };
  const messages = await Promise.all(
    sample.messages.map(async (message) => ({
      ...message,
      content: await Promise.all(
        message.content.map(async (part) => {
          switch (part.type) {
            case 'image':
              return { ...part, image: await decodedImage(part.image, counts.image++) };
            case 'audio':
              return { ...part, audio: await decodedAudio(part.audio, counts.audio++, hearing, signal) };
            case 'text':
              return part;
            default:
              return part satisfies never;
          }
        }),
      ),
    })),
  );
  return { ...sample, messages };
}

export interface EncodeSampleOptions {
  readonly purpose?: 'train' | 'evaluate';
  /** A longer sample is an error; by default the tokenizer's own bound. */
  readonly maxTokens?: number;
}

/** A sample as the model takes it: to train on, or to be answered and compared with the sample's own last answer.
 *  @throws {TextError} when it does not end with an assistant's turn but should be answered; else as `encode` */
export async function encodeSample(
  processor: Processor,
  sample: Sample,
  { purpose = 'train', ...bounds }: EncodeSampleOptions = {},
): Promise<Example> {
  if (purpose === 'train') return processor.encode(sample, { labels: true, ...bounds });
  const last = sample.messages.at(-1);
  if (last?.role !== 'assistant') {
    throw new TextError({
      where: 'encode',
      expected: "a sample that ends with the assistant's answer, to compare with",
      received: last ? `a last turn of ${last.role}` : 'no turns',
      remedy: 'evaluate on questions with answers',
    });
  }
  const prompt = sample.messages.slice(0, -1);
  const example = await processor.encode(prompt, { addGenerationPrompt: true, ...bounds });
  const image = pictureOf(prompt);
  return {
    ...example,
    target: {
      prompt: textOf(prompt.findLast(({ role }) => role === 'user')),
      reference: textOf(last),
      tags: sample.tags ?? {},
      ...(image ? { image } : {}),
    },
  };
}

function textOf(message: Message | undefined): string {
  return message?.content.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('') ?? '';
}

/** The first picture that is decoded. */
function pictureOf(messages: readonly Message[]): DecodedImage | undefined {
  for (const { content } of messages) {
    for (const part of content) {
      if (part.type === 'image' && !(part.image instanceof Uint8Array)) return part.image;
    }
  }
  return undefined;
}
