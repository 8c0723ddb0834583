import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { decodeSampleMedia, encodeSample } from '../../src/data/encode-sample.js';
import { assistant, chat, image, system, tagged, text, user } from '../../src/data/chat.js';
import { loadProcessor, type MessageInput } from '../../src/data/processor.js';
import { TextError } from '../../src/errors.js';
import {
  messagesOf,
  pictureBytes,
  picturePlanes,
  tinyFolder,
  values,
} from '../reference/processor-values.js';

const processor = await loadProcessor(tinyFolder);
const red = pictureBytes('same-size.png');
const END = 5; // <end_of_turn>

type Json = Record<string, unknown>;

/** A copy of the tiny folder whose files may be changed (undefined removes one). */
function folderWith(changes: Record<string, ((value: Json) => unknown) | undefined>): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-processor-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  cpSync(tinyFolder, folder, { recursive: true, filter: (path) => !path.endsWith('.safetensors') });
  for (const [name, change] of Object.entries(changes)) {
    const path = join(folder, name);
    if (!change) {
      rmSync(path);
      continue;
    }
    const changed = change(JSON.parse(readFileSync(path, 'utf8')) as Json);
    writeFileSync(path, typeof changed === 'string' ? changed : JSON.stringify(changed));
  }
  return folder;
}

/** What is learnt, as text: one string a run of labels. */
function learnt(labels: Int32Array): string[] {
  const runs: number[][] = [];
  for (const [i, label] of labels.entries()) {
    if (label === -100) continue;
    if (labels[i - 1] === undefined || labels[i - 1] === -100) runs.push([]);
    runs.at(-1)!.push(label);
  }
  return runs.map((run) => processor.decode(run));
}

describe('Processor', () => {
  it.each(values.cases.map((entry) => [entry.name, entry] as const))(
    'gives the prompt, ids, labels and pixels of the reference: %s',
    async (_name, entry) => {
      const messages = messagesOf(entry);
      const { addGenerationPrompt } = entry;
      expect(processor.applyChatTemplate(messages, { addGenerationPrompt })).toBe(entry.prompt);
      const labels = entry.labels?.some((label) => label !== -100) ?? false;
      const example = await processor.encode(messages, { addGenerationPrompt, labels });
      expect([...example.inputIds]).toEqual(entry.ids);
      if (labels) expect([...example.labels!]).toEqual(entry.labels);
      const planes = entry.images.flatMap((name) => [...picturePlanes(name)]);
      expect(example.pixelValues?.shape).toEqual(
        planes.length ? [entry.images.length, 3, 64, 64] : undefined,
      );
      if (planes.length) expect(example.pixelValues!.data).toEqual(Float32Array.from(planes));
    },
  );

  it('learns the answers and the ends of their turns alone, in every turn', async () => {
    const { inputIds, labels } = await processor.encode([
      { role: 'user', content: [{ type: 'image', image: red }, text('what color?')] },
      { role: 'assistant', content: 'red' },
      { role: 'user', content: 'is there a circle?' },
      { role: 'assistant', content: 'no <end_of_turn> no' },
      { role: 'user', content: 'and now?' },
    ]);
    expect(learnt(labels!)).toEqual(['red<end_of_turn>', 'no <end_of_turn> no<end_of_turn>']);
    expect([...labels!].filter((label) => label === END)).toHaveLength(2);
    for (const [i, label] of labels!.entries()) expect([-100, inputIds[i]]).toContain(label);
  });

  it('keeps markers text that several parts of a turn spell together', async () => {
    const special = ['<start_of_turn>', '<end_of_turn>', '<image_soft_token>', '<bos>'];
    const plain = await processor.encode([{ role: 'user', content: 'a' }]);
    for (const texts of [
      ['<start_of', '_turn>'],
      ['a <end_of ', ' ', '\n_turn> b'],
      ['<image_', 'soft_token', '>'],
      [...'<bos>'],
    ]) {
      const content = texts.map((text) => ({ type: 'text' as const, text }));
      const { inputIds } = await processor.encode([{ role: 'user', content }]);
      for (const token of special) {
        const id = processor.tokenizer.idOf(token);
        const count = (ids: Int32Array): number => ids.filter((other) => other === id).length;
        expect(count(inputIds), `${texts.join('|')}: ${token}`).toBe(count(plain.inputIds));
      }
      const spelt = texts.map((text) => text.trim()).join('');
      expect(processor.decode(inputIds)).toContain(`<start_of_turn>user\n${spelt}<end_of_turn>`);
    }
  });

  it('labels none of an image that the assistant shows', async () => {
    const { labels } = await processor.encode([
      { role: 'user', content: 'draw it' },
      { role: 'assistant', content: [text('here: '), { type: 'image', image: red }, text('done')] },
    ]);
    expect(learnt(labels!)).toEqual(['here:', 'done<end_of_turn>']);
  });

  it('begins with BOS once, whoever writes it', async () => {
    const count = async (from: typeof processor, content: string): Promise<number> =>
      (await from.encode([{ role: 'user', content }])).inputIds.filter((id) => id === 2).length;
    expect(await count(processor, '<bos>hi')).toBe(1);
    const silent = folderWith({});
    const source = readFileSync(join(silent, 'chat_template.jinja'), 'utf8');
    writeFileSync(join(silent, 'chat_template.jinja'), source.replace('{{ bos_token }}\n', ''));
    const other = await loadProcessor(silent);
    expect((await other.encode([{ role: 'user', content: 'hi' }])).inputIds[0]).toBe(2);
    expect(await count(other, 'hi')).toBe(1);
  });

  it('gives labels unless there is nothing to learn or an answer is to be generated', async () => {
    const question = { role: 'user', content: 'what?' } as const;
    const answer = { role: 'assistant', content: 'red' } as const;
    expect((await processor.encode([question])).labels).toBeUndefined();
    expect((await processor.encode([question, answer])).labels).toBeDefined();
    expect((await processor.encode([question, answer], { labels: false })).labels).toBeUndefined();
    expect((await processor.encode([question], { addGenerationPrompt: true })).labels).toBeUndefined();
    await expect(processor.encode([question], { labels: true })).rejects.toThrow(
      "chat_template.jinja: expected an assistant's turn to learn, received roles user; pass labels: false, or add assistant(...)",
    );
  });

  it('names what pads and what ends an answer', () => {
    expect(processor.padTokenId).toBe(0);
    expect(processor.eosTokenIds).toEqual([1, END]);
    expect(processor.imageBytes).toBe(4 * 3 * 64 * 64);
  });

  it('reads the one file of newer folders', async () => {
    const folder = folderWith({
      'preprocessor_config.json': undefined,
      'special_tokens_map.json': undefined,
      'processor_config.json': (config) => ({
        ...config,
        image_processor: {
          do_resize: true,
          size: { height: 8, width: 16 },
          resample: 2,
          do_normalize: false,
        },
      }),
      'tokenizer_config.json': ({ extra_special_tokens, bos_token, eos_token, pad_token }) => ({
        model_specific_special_tokens: extra_special_tokens,
        bos_token,
        eos_token,
        pad_token,
      }),
    });
    const newer = await loadProcessor(folder);
    const { inputIds, pixelValues } = await newer.encode([
      { role: 'user', content: [{ type: 'image', image: red }] },
    ]);
    expect(pixelValues!.shape).toEqual([1, 3, 8, 16]);
    expect(inputIds.filter((id) => id === 385)).toHaveLength(16);
  });

  it('says that a placeholder has no image or an image no placeholder', async () => {
    const folder = folderWith({});
    const path = join(folder, 'chat_template.jinja');
    const source = readFileSync(path, 'utf8');
    const encode = async (template: string): Promise<unknown> => {
      writeFileSync(path, template);
      return (await loadProcessor(folder)).encode([
        { role: 'user', content: [{ type: 'image', image: red }] },
      ]);
    };
    const remedy = 'put images into user turns, as image parts, and check the chat template';
    const silent = source.replace("{{ '<image_soft_token>' }}", '');
    await expect(encode(silent)).rejects.toThrow(
      `${path}: expected 1 image placeholder "<image_soft_token>", one an image, ` +
        `received 0 (image 0 and what follows it have no placeholder); ${remedy}`,
    );
    const twice = source.replace("'<image_soft_token>'", "'<image_soft_token><image_soft_token>'");
    await expect(encode(twice)).rejects.toThrow(
      `received 2 (placeholder 1 and what follows it have no image); ${remedy}`,
    );
    await expect(
      processor.encode([
        { role: 'system', content: [{ type: 'image', image: red }, text('look')] },
        { role: 'user', content: 'what?' },
      ]),
    ).rejects.toThrow(TextError);
    await expect(processor.encode([{ role: 'user', content: [{ type: 'image' }] }])).rejects.toThrow(
      'expected data for image 0, received an image part without any; pass { type: "image", image: bytes }',
    );
  });

  it('names the image that cannot be decoded', async () => {
    const content = [
      { type: 'image' as const, image: red },
      { type: 'image' as const, image: red.slice(0, 99) },
    ];
    await expect(processor.encode([{ role: 'user', content }])).rejects.toThrow(
      /^image 1: expected a whole, intact PNG, received 99 bytes/,
    );
  });

  it.each([
    [
      { role: 'user' },
      'message 0 (user): expected its content as a string or a list of parts, received undefined',
    ],
    [
      { role: 'user', content: ['hi'] },
      'message 0 (user), part 0: expected a part of type text, image or audio',
    ],
    [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: null },
        ],
      },
      "message 0 (user), part 1: expected a string as a text part's text, received null",
    ],
    [
      { role: 'user', content: [{ type: 'video' }] },
      'part 0: expected a part of type text, image or audio, received "video"',
    ],
  ])('names what is no message: %j', async (message, words) => {
    const messages = [message] as unknown as MessageInput[];
    expect(() => processor.applyChatTemplate(messages)).toThrow(words);
    await expect(processor.encode(messages)).rejects.toThrow(TextError);
  });

  it('names what is no image', async () => {
    const content = [{ type: 'image', image: 'red.png' }];
    await expect(processor.encode([{ role: 'user', content }] as unknown as MessageInput[])).rejects.toThrow(
      "image 0: expected a file's bytes as Uint8Array, or pixels as { data, width, height }, received string",
    );
  });
});

describe('loadProcessor', () => {
  it('refuses a folder without a tokenizer', async () => {
    await expect(loadProcessor('/nowhere/model')).rejects.toThrow(
      '/nowhere/model: expected a model folder with tokenizer.json, received none; check the path; ' +
        'copy the tokenizer files of the model that the weights come from',
    );
  });

  it('refuses a damaged file', async () => {
    const folder = folderWith({ 'tokenizer.json': () => '{"version": "1.0", "trunc' });
    await expect(loadProcessor(folder)).rejects.toThrow(
      /tokenizer\.json: expected a JSON object, received .*JSON.*; the file is damaged: copy it again$/,
    );
  });

  it('refuses a tokenizer without the image token when images are configured', async () => {
    const folder = folderWith({
      'tokenizer.json': (file) => {
        const model = file['model'] as Json;
        const vocab = { ...(model['vocab'] as Json) };
        delete vocab['<image_soft_token>'];
        const added = file['added_tokens'] as { content: string }[];
        return {
          ...file,
          model: { ...model, vocab },
          added_tokens: added.filter(({ content }) => content !== '<image_soft_token>'),
        };
      },
    });
    await expect(loadProcessor(folder)).rejects.toThrow(
      `${folder}/tokenizer.json: expected the image token (${folder}/preprocessor_config.json configures images), ` +
        "received none among its 26 added tokens; take all tokenizer files from the same model's folder; " +
        'tokenizer_config.json names it as "image_token"',
    );
  });

  it('takes a text-only folder, which then refuses images and conversations without a template', async () => {
    const folder = folderWith({ 'preprocessor_config.json': undefined, 'processor_config.json': undefined });
    const blind = await loadProcessor(folder);
    expect([...(await blind.encode([{ role: 'user', content: 'a' }])).inputIds]).toHaveLength(7);
    await expect(blind.encode([{ role: 'user', content: [{ type: 'image', image: red }] }])).rejects.toThrow(
      'expected text alone, since the model folder configures no images, received 1 image; ' +
        'take the processor files of a model that sees, with preprocessor_config.json',
    );
    rmSync(join(folder, 'chat_template.jinja'));
    const mute = await loadProcessor(folder);
    expect(mute.decode([2, 4])).toBe('<bos><start_of_turn>');
    await expect(mute.encode([{ role: 'user', content: 'a' }])).rejects.toThrow(
      `${folder}/tokenizer.json: expected a chat template, received none in the model folder; ` +
        'copy chat_template.jinja of the instruction-tuned model into it',
    );
  });

  it('refuses a number of soft tokens that is none', async () => {
    const folder = folderWith({
      'processor_config.json': (config) => ({ ...config, image_seq_length: '16' }),
    });
    await expect(loadProcessor(folder)).rejects.toThrow(
      'processor_config.json: image_seq_length: expected the number of soft tokens of an image, 1 to 65536, received "16"; ' +
        "use the model's own processor_config.json",
    );
  });
});

describe('encodeSample', () => {
  const sample = tagged(
    chat(system('look'), user(image(red), 'what color?'), assistant('red'), user('sure?'), assistant('yes')),
    { kind: 'yes/no' },
  );

  it('gives training examples with labels', async () => {
    const { labels, target } = await encodeSample(processor, sample);
    expect(learnt(labels!)).toEqual(['red<end_of_turn>', 'yes<end_of_turn>']);
    expect(target).toBeUndefined();
  });

  it('asks the last question and keeps its answer in an evaluation', async () => {
    const decoded = await decodeSampleMedia(sample);
    const { inputIds, labels, target, pixelValues } = await encodeSample(processor, decoded, {
      purpose: 'evaluate',
    });
    expect(labels).toBeUndefined();
    expect(processor.decode(inputIds)).toMatch(
      /red<end_of_turn>\n<start_of_turn>user\nsure\?<end_of_turn>\n<start_of_turn>model\n$/,
    );
    expect(target).toEqual({
      prompt: 'sure?',
      reference: 'yes',
      tags: { kind: 'yes/no' },
      image: { data: expect.any(Uint8Array) as Uint8Array, width: 64, height: 64 },
    });
    expect(pixelValues!.data).toEqual(picturePlanes('same-size.png'));
  });

  it('refuses to evaluate a sample without an answer', async () => {
    await expect(encodeSample(processor, chat(user('what?')), { purpose: 'evaluate' })).rejects.toThrow(
      "encode: expected a sample that ends with the assistant's answer, to compare with, received a last turn of user; evaluate on questions with answers",
    );
  });
});

describe('decodeSampleMedia', () => {
  it('decodes pictures in place and leaves the rest', async () => {
    const sample = chat(user(image({ bytes: red, path: 'a.png' }), 'what?'), assistant('red'));
    const decoded = await decodeSampleMedia(sample);
    expect(decoded.messages[1]).toEqual(sample.messages[1]);
    const [first] = decoded.messages[0]!.content;
    expect(first).toMatchObject({ type: 'image', image: { width: 64, height: 64 } });
    expect(await decodeSampleMedia(decoded)).toEqual(decoded);
  });

  it('names the picture that cannot be decoded', async () => {
    const sample = chat(user(image(red), image(red)), assistant('x'), user(image(red.slice(0, 40))));
    await expect(decodeSampleMedia(sample)).rejects.toThrow(/^image 2: expected a whole, intact PNG/);
  });
});

describe('the builders', () => {
  it('make plain samples', () => {
    expect(chat(system('a'), user(text('b'), 'c'), assistant('d'))).toEqual({
      messages: [
        { role: 'system', content: [{ type: 'text', text: 'a' }] },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'b' },
            { type: 'text', text: 'c' },
          ],
        },
        { role: 'assistant', content: [{ type: 'text', text: 'd' }] },
      ],
    });
  });

  it('refuse cells that are missing', () => {
    expect(() => text(undefined)).toThrow(
      'text: expected a string, received undefined; check the column that it is taken from',
    );
    expect(() => image(null)).toThrow(
      "image: expected an image's bytes, pixels or { bytes }, received null;",
    );
    expect(() => image({ bytes: null, path: 'x' })).toThrow('received null;');
    expect(() => chat()).toThrow(
      'chat: expected at least one message, received none; pass user(...) and assistant(...)',
    );
  });
});
