// A conversation that goes on: history is kept, and what the model has read and written already is not read again.

import type { MessageInput, Processor } from '../data/processor.js';
import type { Example, NdArray } from '../data/types.js';
import type { Gemma3nConfig } from '../models/gemma3n/config.js';
import type { CausalLm } from '../models/gemma3n/causal-lm.js';
import { Session } from './session.js';
import { Answer, type GeneratedText, type TextEvent, encodePrompt, textEvents } from './text.js';
import { type TextOptions, checkTextOptions } from './text-options.js';

/** Its keys and values live until `dispose` or `reset`. One answer at a time. */
export class Chat {
  readonly #model: CausalLm;
  readonly #processor: Processor;
  readonly #opening: readonly MessageInput[];
  readonly #session = new Session();
  #messages: MessageInput[];
  #answer: Answer | undefined;

  /** @param opening a system turn, or turns that went before */
  constructor(model: CausalLm, processor: Processor, opening: readonly MessageInput[] = []) {
    this.#model = model;
    this.#processor = processor;
    this.#opening = opening;
    this.#messages = [...opening];
  }

  get messages(): readonly MessageInput[] {
    return this.#messages;
  }

  /** Tokens that the conversation may have. */
  get context(): number {
    return this.#model.config.text.maxPositionEmbeddings;
  }

  /** The last answer, as far as it has come; none before the first prompt is encoded. */
  get answer(): GeneratedText | undefined {
    return this.#answer?.result;
  }

  /** Answers a user's turn, as `textStream` does. The turn and its answer become history: also an answer that was stopped
   *  on its way, as far as it came; neither of them where nothing came of it. */
  async *send(
    content: MessageInput['content'],
    options: TextOptions,
  ): AsyncGenerator<TextEvent, GeneratedText, void> {
    const checked = checkTextOptions(this.#model, this.#processor, options);
    const messages: readonly MessageInput[] = [...this.#messages, { role: 'user', content }];
    this.#answer = undefined;
    const example = await encodePrompt(this.#processor, messages);
    const numKept = this.#session.matching(example.inputIds);
    const rest = numKept > 0 ? after(example, numKept, this.#model.config) : example;
    const answer = (this.#answer = new Answer(example));
    try {
      for await (const event of textEvents(this.#model, this.#processor, [rest], checked, this.#session)) {
        answer.add(event);
        yield event;
      }
    } finally {
      if (answer.text !== '') this.#messages = [...messages, { role: 'assistant', content: answer.text }];
    }
    return answer.result;
  }

  /** Forgets all but the opening. */
  reset(): void {
    this.#session.dispose();
    this.#messages = [...this.#opening];
  }
  dispose(): void {
    this.#session.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What of an example comes behind its first `count` tokens, which hold whole pictures and clips. */
function after(example: Example, count: number, config: Gemma3nConfig): Example {
  const { inputIds, pixelValues, inputFeatures, inputFeaturesMask } = example;
  const before = inputIds.subarray(0, count);
  const media = (token: number, softTokens: number): number =>
    before.filter((id) => id === token).length / softTokens;
  const images = media(config.imageTokenId, config.visionSoftTokensPerImage);
  const clips = media(config.audioTokenId, config.audioSoftTokensPerImage);
  const pixels = pixelValues && without(pixelValues, images);
  const features = inputFeatures && without(inputFeatures, clips);
  const mask = inputFeaturesMask && without(inputFeaturesMask, clips);
  return {
    inputIds: inputIds.slice(count),
    ...(pixels && { pixelValues: pixels }),
    ...(features && { inputFeatures: features }),
    ...(mask && { inputFeaturesMask: mask }),
  };
}

/** The array without its first `count` items; undefined where none are left. */
function without<A extends Float32Array | Uint8Array>(
  { data, shape }: NdArray<A>,
  count: number,
): NdArray<A> | undefined {
  const [total = 0, ...item] = shape;
  if (count >= total) return undefined;
  return { data: data.slice((count * data.length) / total) as A, shape: [total - count, ...item] };
}
