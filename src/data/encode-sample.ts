// A sample's last two steps before it is batched, each a plain function: media decoded, then tokens, labels and arrays.

import { AudioError, TextError } from '../errors.js';
import { type Hearing, type MediaReader, wholeMedia } from './media-arrays.js';
import type { Processor } from './processor.js';
import type { DecodedImage, Example, Message, Sample } from './types.js';

export interface DecodeSampleOptions {
  /** Rate and length of what the model hears; 16 kHz and 30 s by default. */
  readonly hearing?: Hearing;
  readonly signal?: AbortSignal;
  /** The processor's. */
  readonly reader?: MediaReader;
}

/** The sample with its pictures and clips decoded. Off the JavaScript thread.
 *  @throws {ImageError} {AudioError} naming the picture or clip that cannot be decoded */
export async function decodeSampleMedia(
  sample: Sample,
  { hearing, signal, reader = wholeMedia }: DecodeSampleOptions = {},
): Promise<Sample> {
  const counts = { image: 0, audio: 0 };
  const messages = await Promise.all(
    sample.messages.map(async (message) => ({
      ...message,
      content: await Promise.all(
        message.content.map(async (part) => {
          switch (part.type) {
            case 'image':
              return { ...part, image: await reader.image(part.image, counts.image++) };
            case 'audio':
              return { ...part, audio: await reader.audio(part.audio, counts.audio++, hearing, signal) };
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
 *  @throws {TextError} when it does not end with an assistant's turn but should be answered
 *  @throws {AudioError} when a clip needs more soft tokens than the model has for one; else as `encode` */
export async function encodeSample(
  processor: Processor,
  sample: Sample,
  { purpose = 'train', ...bounds }: EncodeSampleOptions = {},
): Promise<Example> {
  if (purpose === 'train') {
    return fitting(processor, await processor.encode(sample, { labels: true, ...bounds }));
  }
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
  const example = fitting(
    processor,
    await processor.encode(prompt, { addGenerationPrompt: true, ...bounds }),
  );
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

/** The example, whose clips all fit: in a batch one that does not would end the run.
 *  @throws {AudioError} naming the longest clip */
function fitting({ media: { audio } }: Processor, example: Example): Example {
  const [clips = 0, frames = 0] = example.inputFeatures?.shape ?? [];
  if (audio?.maxFrames === undefined || frames <= audio.maxFrames) return example;
  const { hopLength, sampleRateHz } = audio.settings;
  const seconds = (count: number): string => {
    return `${count} frames of features (${((count * hopLength) / sampleRateHz).toFixed(1)} s)`;
  };
  const mask = example.inputFeaturesMask?.data ?? new Uint8Array();
  const ends = Array.from({ length: clips }, (_, clip) =>
    mask.subarray(clip * frames, (clip + 1) * frames).lastIndexOf(1),
  );
  throw new AudioError({
    where: `clip ${ends.indexOf(Math.max(...ends))}`,
    expected: `at most ${seconds(audio.maxFrames)}, since config.json gives a clip no more soft tokens`,
    received: seconds(frames),
    remedy: 'cut the clip, or drop the row',
  });
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
