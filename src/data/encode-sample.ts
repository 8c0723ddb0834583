// A sample's last two steps before it is batched, each a plain function: pictures decoded, then tokens, labels, pixel values.

import { TextError } from '../errors.js';
import { decodeImage } from '../image/index.js';
import type { Processor } from './processor.js';
import type { DecodedImage, Example, Message, Sample } from './types.js';

/** The sample with its pictures decoded. Off the JavaScript thread.
 *  @throws {ImageError} naming the picture that cannot be decoded */
export async function decodeSampleMedia(sample: Sample): Promise<Sample> {
  let count = 0;
  const messages = await Promise.all(
    sample.messages.map(async (message) => ({
      ...message,
      content: await Promise.all(
        message.content.map(async (part) => {
          if (part.type !== 'image') return part;
          const where = `image ${count++}`;
          return part.image instanceof Uint8Array
            ? { ...part, image: await decodeImage(part.image, where) }
            : part;
        }),
      ),
    })),
  );
  return { ...sample, messages };
}

/** A sample as the model takes it: to train on, or to be answered and compared with the sample's own last answer.
 *  @throws {TextError} when it does not end with an assistant's turn but should be answered; else as `encode` */
export async function encodeSample(
  processor: Processor,
  sample: Sample,
  { purpose = 'train' }: { readonly purpose?: 'train' | 'evaluate' } = {},
): Promise<Example> {
  if (purpose === 'train') return processor.encode(sample, { labels: true });
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
  const example = await processor.encode(prompt, { addGenerationPrompt: true });
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
