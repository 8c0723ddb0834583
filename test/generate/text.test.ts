// Answers as text, on the small model that captions pictures.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assistant, audio, image, system, user } from '../../src/data/chat.js';
import { loadProcessor, type MessageInput } from '../../src/data/processor.js';
import type { DecodedAudio } from '../../src/data/types.js';
import { Chat, generateText, generateTexts, textStream } from '../../src/generate/index.js';
import { fromPretrained } from '../../src/models/gemma3n/index.js';
import { liveTensors, setNumThreads } from '../../src/tensor/index.js';
import { shapePicture } from './pictures.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const folder = 'fixtures/tiny-gemma3n';
const model = await fromPretrained(folder);
const processor = await loadProcessor(folder);
afterAll(() => model.dispose());

const pictures = {
  circle: await shapePicture('circle', 'blue'),
  triangle: await shapePicture('triangle', 'red'),
};
const describe_ = (name: keyof typeof pictures): MessageInput[] => [user(image(pictures[name]))];
const caption = 'a red triangle';
const options = { maxNewTokens: 16 };

/** @returns a clip of so many seconds */
function tone(seconds: number): DecodedAudio {
  const data = Float32Array.from({ length: 16_000 * seconds }, (_, i) => 0.3 * Math.sin(i * seconds));
  return { data, sampleRateHz: 16_000 };
}

describe('generateText', () => {
  it('captions a picture, and says why it ended and from how many tokens', async () => {
    const answer = await generateText(model, processor, describe_('triangle'), options);
    expect(answer).toMatchObject({ text: caption, reason: 'stop', notices: [] });
    expect(processor.decode(answer.ids)).toBe(`${caption}<end_of_turn>`);
    const { inputIds } = await processor.encode(describe_('triangle'), { addGenerationPrompt: true });
    expect(answer.numPromptTokens).toBe(inputIds.length);
  });

  it('shows markers where they are asked for', async () => {
    const { text } = await generateText(model, processor, describe_('triangle'), {
      ...options,
      skipSpecialTokens: false,
    });
    expect(text).toBe(`${caption}<end_of_turn>`);
  });

  it('answers conversations at once as one by one, with pictures in some of them', async () => {
    const conversations = [
      describe_('triangle'),
      [user('what is red?')],
      [user(image(pictures.circle), image(pictures.triangle), 'which of the two?')],
      [system('be brief'), user(image(pictures.circle)), assistant('a blue circle'), user('sure?')],
      [user(audio(tone(0.5)), image(pictures.circle), audio(tone(0.2)), 'what do you hear?')],
    ];
    const alone = [];
    for (const one of conversations) alone.push(await generateText(model, processor, one, options));
    const together = await generateTexts(model, processor, conversations, options);
    expect(together).toEqual(alone);
    const seeds = [4, 5, 6, 7, 8];
    const drawn = [];
    for (const [i, one] of conversations.entries()) {
      drawn.push(await generateText(model, processor, one, { ...options, temperature: 2, seed: seeds[i]! }));
    }
    const drawnTogether = await generateTexts(model, processor, conversations, {
      ...options,
      temperature: 2,
      seed: seeds,
    });
    expect(drawnTogether).toEqual(drawn);
  });

  it.each([
    ['within a token', 'ed', 'a r'],
    ['across tokens', 'd tri', 'a re'],
    ['the first of several', ['angle', 'tri', 'nothing'], 'a red '],
    ['at the very end', 'angle', 'a red tri'],
    ['at the beginning', 'a red', ''],
  ])('ends at a stop string %s, and cuts it off', async (_, stopStrings, expected) => {
    const pieces: string[] = [];
    const answer = await generateText(model, processor, describe_('triangle'), {
      ...options,
      stopStrings,
      onText: (text) => pieces.push(text),
    });
    expect(answer).toMatchObject({ text: expected, reason: 'stop' });
    expect(pieces.join('')).toBe(expected);
    expect(pieces).not.toContain('');
  });

  it('gives what was held back when no stop string comes', async () => {
    const answer = await generateText(model, processor, describe_('triangle'), {
      ...options,
      stopStrings: ['triangles', 'e and more'],
    });
    expect(answer).toMatchObject({ text: caption, reason: 'stop' });
    const cut = await generateText(model, processor, describe_('triangle'), {
      maxNewTokens: answer.ids.length - 2,
      stopStrings: 'triangles',
    });
    expect(cut.reason).toBe('length');
    expect(cut.text).toBe(processor.decode(cut.ids));
  });

  it("takes a marker's spelling among the stop strings for the marker", async () => {
    const answer = await generateText(model, processor, describe_('triangle'), {
      ...options,
      eosTokenIds: [],
      stopStrings: '<end_of_turn>',
    });
    expect(answer).toMatchObject({ text: caption, reason: 'stop' });
  });

  it('refuses options by their names, and a conversation that the template refuses', async () => {
    const bad = { maxNewTokens: 1.5, stopStrings: [''], topk: 3, minP: 2 };
    await expect(generateText(model, processor, describe_('circle'), bad as never)).rejects.toThrow(
      /generateText: maxNewTokens: [^]*generateText: minP: [^]*generateText: stopStrings[^]*generateText: topk: expected a known key/,
    );
    await expect(generateText(model, processor, [assistant('a')], options)).rejects.toThrow(
      'roles must alternate',
    );
  });
});

describe('textStream', () => {
  it('gives the text bit by bit, and in the end the whole', async () => {
    const stream = textStream(model, processor, describe_('triangle'), options);
    const pieces: string[] = [];
    let next = await stream.next();
    for (; !next.done; next = await stream.next()) pieces.push(next.value);
    expect(pieces.length).toBeGreaterThan(1);
    expect(next.value).toMatchObject({ text: caption, reason: 'stop' });
    expect(pieces.join('')).toBe(caption);
  });

  it('frees everything when its consumer stops asking, or aborts', async () => {
    const before = await settledTensors();
    for await (const piece of textStream(model, processor, describe_('triangle'), options)) {
      expect(piece).not.toBe('');
      break;
    }
    expect(liveTensors()).toBe(before);
    const controller = new AbortController();
    const stream = textStream(model, processor, describe_('triangle'), {
      ...options,
      signal: controller.signal,
    });
    await stream.next();
    controller.abort(new Error('enough'));
    await expect(stream.next()).rejects.toThrow('enough');
    expect(liveTensors()).toBe(before);
  });

  it('runs no further than its consumer', async () => {
    const stream = textStream(model, processor, describe_('triangle'), options);
    await stream.next();
    const during = await settledTensors();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(liveTensors()).toBe(during);
    await stream.return(undefined as never);
  });
});

describe('a chat', () => {
  const turns: MessageInput['content'][] = [
    user(image(pictures.triangle)).content,
    user(audio(tone(0.4)), 'and what do you hear?').content,
    user(image(pictures.circle), audio(tone(0.3)), 'and this?').content,
    'which was the first?',
  ];

  it('answers each turn as one who reads the whole conversation anew', async () => {
    using chat = new Chat(model, processor, [system('say what you see')]);
    for (const content of turns) {
      const expected = await generateText(
        model,
        processor,
        [...chat.messages, { role: 'user', content }],
        options,
      );
      const stream = chat.send(content, options);
      let next = await stream.next();
      while (!next.done) next = await stream.next();
      expect(next.value).toEqual(expected);
    }
    expect(chat.messages.map(({ role }) => role).join(' ')).toBe(
      'system user assistant user assistant user assistant user assistant',
    );
  });

  it('keeps what came of an answer that was stopped, and nothing of a turn that failed', async () => {
    const before = await settledTensors();
    using chat = new Chat(model, processor);
    const controller = new AbortController();
    const send = async (content: MessageInput['content'], signal?: AbortSignal): Promise<string> => {
      let text = '';
      for await (const event of chat.send(content, { ...options, ...(signal && { signal }) })) {
        text += event.text;
        if (text.startsWith('a ')) controller.abort(new Error('enough'));
      }
      return text;
    };
    await expect(send(turns[0]!, controller.signal)).rejects.toThrow('enough');
    expect(chat.messages).toHaveLength(2);
    expect(chat.messages[1]!.content).toMatch(/^a /);
    await expect(send('word '.repeat(3000))).rejects.toThrow(
      /generate: prompt of row 0: expected fewer tokens than the model's context of 2048/,
    );
    expect(chat.messages).toHaveLength(2);
    await send('go on');
    expect(chat.messages).toHaveLength(4);
    chat.reset();
    expect(chat.messages).toEqual([]);
    expect(liveTensors()).toBe(before);
  });

  it('reads only what is new', async () => {
    using chat = new Chat(model, processor);
    const read: number[] = []; // tokens of each forward
    const { languageModel } = model;
    const forward = languageModel.forward.bind(languageModel);
    languageModel.forward = (inputs) => {
      read.push(inputs.inputsEmbeds.shape[1]!);
      return forward(inputs);
    };
    try {
      let known = 0;
      for (const content of turns) {
        read.length = 0;
        for await (const event of chat.send(content, options)) void event;
        const { numPromptTokens, ids } = chat.answer!;
        expect(read).toEqual([numPromptTokens - known, ...ids.slice(1).map(() => 1)]);
        known = numPromptTokens + ids.length - 1; // the token that ends an answer is not read
      }
    } finally {
      languageModel.forward = forward;
    }
  });
});
