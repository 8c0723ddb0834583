import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { assistant, audio, chat, image, text, user } from '../../src/data/chat.js';
import { decodeSampleMedia, encodeSample } from '../../src/data/encode-sample.js';
import { loadProcessor, type MessageInput } from '../../src/data/processor.js';
import type { Example } from '../../src/data/types.js';
import { AudioError, TextError } from '../../src/errors.js';
import {
  type AudioCase,
  audioCases,
  audioMessagesOf,
  clipOf,
  publishedFolder,
  unrolled,
} from '../reference/processor-audio-values.js';
import { pictureBytes, picturePlanes, tinyFolder } from '../reference/processor-values.js';
import { wave } from '../reference/waves.js';

const tiny = await loadProcessor(tinyFolder);
const published = await loadProcessor(publishedFolder);
const CLIP_TOKEN = 393; // <audio_soft_token>

type Json = Record<string, unknown>;

/** A copy of a processor's files that may be changed (undefined removes one). */
function folderWith(
  changes: Record<string, ((value: Json) => unknown) | undefined>,
  from = tinyFolder,
): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-processor-audio-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  cpSync(from, folder, { recursive: true, filter: (path) => !path.endsWith('.safetensors') });
  for (const [name, change] of Object.entries(changes)) {
    const path = join(folder, name);
    if (change) writeFileSync(path, JSON.stringify(change(JSON.parse(readFileSync(path, 'utf8')) as Json)));
    else rmSync(path);
  }
  return folder;
}

function checkFeatures(
  example: Example,
  { clips, frames, mask, features }: (typeof audioCases)[number],
): void {
  expect(example.inputFeatures?.shape).toEqual(clips.length > 0 ? [clips.length, frames, 128] : undefined);
  expect(example.inputFeaturesMask?.shape).toEqual(clips.length > 0 ? [clips.length, frames] : undefined);
  for (const [c, stored] of features.entries()) {
    const ours = example.inputFeatures!.data.subarray(c * frames! * 128, (c + 1) * frames! * 128);
    const picked = [0, frames! >> 1, frames! - 1].flatMap((t) => [...ours.subarray(t * 128, (t + 1) * 128)]);
    const worst = picked.reduce((max, value, i) => Math.max(max, Math.abs(value - stored.frames[i]!)), 0);
    expect(worst).toBeLessThan(1e-5);
    expect(ours.reduce((sum, value) => sum + value, 0) / ours.length).toBeCloseTo(stored.mean, 4);
    const row = [...example.inputFeaturesMask!.data.subarray(c * frames!, (c + 1) * frames!)];
    expect(row).toEqual(row.map((_, t) => (t < mask![c]! ? 1 : 0)));
  }
}

describe('Processor with audio', () => {
  const named = audioCases.map((entry) => {
    return [`${entry.name}${entry.addGenerationPrompt ? ', with a generation prompt' : ''}`, entry] as const;
  });

  it.each(named)(
    'gives the prompt, ids, labels, pixels and features of the reference: %s',
    async (_name, entry) => {
      const messages = audioMessagesOf(entry);
      const { addGenerationPrompt } = entry;
      expect(tiny.applyChatTemplate(messages, { addGenerationPrompt })).toBe(entry.prompt);
      const labels = entry.labels !== undefined && entry.labels.some(([label]) => label !== -100);
      const example = await tiny.encode(messages, { addGenerationPrompt, labels });
      expect([...example.inputIds]).toEqual(unrolled(entry.ids));
      if (labels) expect([...example.labels!]).toEqual(unrolled(entry.labels!));
      const planes = entry.images.flatMap((name) => [...picturePlanes(name)]);
      expect(example.pixelValues?.data).toEqual(planes.length > 0 ? Float32Array.from(planes) : undefined);
      checkFeatures(example, entry);
    },
  );

  it.each(named)(
    'gives 256 tokens an image and 188 a clip where the folder says so: %s',
    async (_name, entry) => {
      const messages = audioMessagesOf(withShortClips(entry));
      const { addGenerationPrompt } = entry;
      expect(published.applyChatTemplate(messages, { addGenerationPrompt })).toBe(entry.prompt);
      const { inputIds } = await published.encode(messages, { addGenerationPrompt, labels: false });
      expect([...inputIds]).toEqual(unrolled(entry.published));
      expect(inputIds.filter((id) => id === CLIP_TOKEN)).toHaveLength(188 * entry.clips.length);
    },
  );

  it('says of a clip longer than 30 s that its end is not heard', async () => {
    const content = [
      { type: 'audio' as const, audio: clipOf('hello') },
      { type: 'audio' as const, audio: clipOf('speech') },
    ];
    const { notices, inputFeatures } = await tiny.encode([{ role: 'user', content }]);
    expect(notices).toEqual(['clip 1 lasts 32.0 s: only its first 30.0 s are heard']);
    expect(inputFeatures!.shape).toEqual([2, 2997, 128]);
    expect((await tiny.encode([{ role: 'user', content: content.slice(0, 1) }])).notices).toBeUndefined();
  });

  it('decodes clips on the way, at their own rates', async () => {
    const rate = 22_050;
    const bytes = wavFile(wave({ kind: 'voice', samples: rate / 2, rate }), rate);
    const { inputFeatures } = await tiny.encode(chat(user(audio({ bytes, path: 'a.wav' }))));
    expect(inputFeatures!.shape).toEqual([1, 48, 128]);
    const given = { data: wave({ kind: 'voice', samples: rate / 2, rate }), sampleRateHz: rate };
    const again = await tiny.encode(chat(user(audio(given))));
    expect(again.inputFeatures!.shape).toEqual([1, 48, 128]);
  });

  it('learns nothing of a clip that the assistant speaks', async () => {
    const { inputIds, labels } = await tiny.encode([
      { role: 'user', content: 'say it' },
      {
        role: 'assistant',
        content: [text('here: '), { type: 'audio', audio: clipOf('hello') }, text('done')],
      },
    ]);
    const learnt = [...labels!].filter((label) => label !== -100);
    expect(tiny.decode(learnt)).toBe('here:done<end_of_turn>');
    expect(inputIds.filter((id) => id === CLIP_TOKEN)).toHaveLength(16);
  });

  it('says what it keeps: the bytes of the longest clip', () => {
    expect(tiny.clipBytes).toBe(2997 * (128 * 4 + 1));
    expect(tiny.maxTokens).toBe(1024);
    expect(published.maxTokens).toBeUndefined();
  });
});

describe('Clips and placeholders that do not match', () => {
  const clip = { type: 'audio' as const, audio: clipOf('hello') };
  const templateOf = (folder: string) => join(folder, 'chat_template.jinja');
  const encodeWith = async (change: (source: string) => string, messages: readonly MessageInput[]) => {
    const folder = folderWith({});
    writeFileSync(templateOf(folder), change(readFileSync(templateOf(folder), 'utf8')));
    return (await loadProcessor(folder)).encode(messages);
  };
  const remedy = 'put clips into user turns, as audio parts, and check the chat template';

  it('are named: a clip that reaches no token', async () => {
    const deaf = encodeWith(
      (source) => source.replace("{{ '<audio_soft_token>' }}", ''),
      [{ role: 'user', content: [clip, clip] }],
    );
    await expect(deaf).rejects.toThrow(TextError);
    await expect(deaf).rejects.toThrow(
      'expected 2 clip placeholders "<audio_soft_token>", one a clip, ' +
        `received 0 (clip 0 and what follows it have no placeholder); ${remedy}`,
    );
    // One of them stands in a system turn, where the template reads text alone.
    await expect(
      tiny.encode([
        { role: 'system', content: [text('listen'), clip] },
        { role: 'user', content: [clip, text('what?')] },
      ]),
    ).rejects.toThrow('received 1 (clip 1 and what follows it have no placeholder)');
  });

  it('are named: a placeholder without a clip', async () => {
    const twice = (source: string) =>
      source.replace("'<audio_soft_token>'", "'<audio_soft_token><audio_soft_token>'");
    await expect(encodeWith(twice, [{ role: 'user', content: [clip] }])).rejects.toThrow(
      `received 2 (placeholder 1 and what follows it have no clip); ${remedy}`,
    );
    const always = (source: string) => source.replace('{{ bos_token }}', '{{ bos_token }}<audio_soft_token>');
    await expect(encodeWith(always, [{ role: 'user', content: 'hi' }])).rejects.toThrow(
      'expected 0 clip placeholders "<audio_soft_token>", one a clip, received 1 (placeholder 0 and what follows it have no clip)',
    );
  });

  it('are named: images where clips should be', async () => {
    const swapped = (source: string) => source.replaceAll('<audio_soft_token>', '<image_soft_token>');
    await expect(encodeWith(swapped, [{ role: 'user', content: [clip] }])).rejects.toThrow(
      'expected 0 image placeholders "<image_soft_token>", one an image, received 1 (placeholder 0 and what follows it have no image)',
    );
  });

  it('are named: a part without data', async () => {
    await expect(tiny.encode([{ role: 'user', content: [clip, { type: 'audio' }] }])).rejects.toThrow(
      'expected data for clip 1, received an audio part without any; pass { type: "audio", audio: bytes }',
    );
  });

  it('are named: clips for a model that does not hear', async () => {
    const sighted = await loadProcessor(
      folderWith({ 'preprocessor_config.json': ({ feature_extractor_type: _type, ...rest }) => rest }),
    );
    await expect(sighted.encode([{ role: 'user', content: [clip] }])).rejects.toThrow(
      'expected text and images alone, since the model folder configures no audio, received 1 clip; ' +
        'take the processor files of a model that hears, with preprocessor_config.json',
    );
    const red = { type: 'image' as const, image: pictureBytes('same-size.png') };
    expect((await sighted.encode([{ role: 'user', content: [red] }])).pixelValues!.shape[0]).toBe(1);
  });

  it('are named: clips that cannot be heard', async () => {
    const encode = (...clips: readonly (Uint8Array | { data: Float32Array; sampleRateHz: number })[]) =>
      tiny.encode(chat(user(...clips.map((one) => audio(one)), 'what?')));
    const words = new TextEncoder().encode('this is a text file, whatever its name says: song.mp3');
    await expect(encode(clipOf('hello'), words)).rejects.toThrow(/^clip 1: expected .*received text/);
    await expect(encode(new Uint8Array(0))).rejects.toThrow(/^clip 0: /);
    const silent = { data: new Float32Array(0), sampleRateHz: 16_000 };
    await expect(encode(silent)).rejects.toThrow('clip 0: expected at least one sample');
    const broken = { data: Float32Array.of(0, NaN), sampleRateHz: 16_000 };
    await expect(encode(clipOf('hello'), broken)).rejects.toThrow(
      'clip 1: expected samples that are finite numbers',
    );
    const short = { data: new Float32Array(300), sampleRateHz: 16_000 };
    await expect(encode(short)).rejects.toThrow(AudioError);
  });

  it.each([
    [null, 'null'],
    ['hello.wav', 'string'],
    [new Float32Array(16_000), 'Float32Array'],
    [{ array: new Float32Array(16_000), sampling_rate: 16_000 }, 'an object of array, sampling_rate'],
    [{ data: new Int16Array(16_000), sampleRateHz: 16_000 }, 'an object of data, sampleRateHz'],
  ])('are named: what is neither bytes nor samples, %#', async (value, received) => {
    const content = [
      { type: 'audio' as const, audio: clipOf('hello') },
      { type: 'audio' as const, audio: value as unknown as Uint8Array },
    ];
    await expect(tiny.encode([{ role: 'user', content }])).rejects.toThrow(
      "clip 1: expected a file's bytes as Uint8Array, or samples as { data: Float32Array, sampleRateHz }, received " +
        `${received}; pass the bytes`,
    );
  });
});

describe('Clips that are too long for the model of the folder', () => {
  const sample = (...clips: readonly Float32Array[]) =>
    chat(user(...clips.map((data) => audio({ data, sampleRateHz: 16_000 })), 'what?'), assistant('a tone'));
  const tone = (frames: number): Float32Array => wave({ kind: 'tone', samples: 512 + frames * 160 });

  it('are refused before they are batched, to train on and to be asked; shorter ones are not', async () => {
    expect(tiny.media.audio!.maxFrames).toBe(16 * 16);
    for (const purpose of ['train', 'evaluate'] as const) {
      const fits = await encodeSample(tiny, sample(tone(255), tone(40)), { purpose });
      expect(fits.inputFeatures!.shape).toEqual([2, 256, 128]);
      await expect(encodeSample(tiny, sample(tone(40), tone(257)), { purpose })).rejects.toThrow(
        'clip 1: expected at most 256 frames of features (2.6 s), since config.json gives a clip no more soft tokens, ' +
          'received 258 frames of features (2.6 s); cut the clip, or drop the row',
      );
    }
  });

  it('are not known where there is no config.json, and are those of Gemma 3n where it leaves them out', async () => {
    expect(
      (await loadProcessor(folderWith({ 'config.json': undefined }))).media.audio!.maxFrames,
    ).toBeUndefined();
    const bare = { 'config.json': (): unknown => ({ audio_config: {} }) };
    expect((await loadProcessor(folderWith(bare))).media.audio!.maxFrames).toBe(188 * 16);
    const odd = { 'config.json': (): unknown => ({ audio_config: { conf_reduction_factor: 'four' } }) };
    expect((await loadProcessor(folderWith(odd))).media.audio!.maxFrames).toBeUndefined();
  });
});

describe('Conversations that are too long', () => {
  const long = 'triangle '.repeat(1100);

  it("are refused with both lengths, by the tokenizer's own bound and by a given one", async () => {
    await expect(tiny.encode([{ role: 'user', content: long }])).rejects.toThrow(
      /^encode: expected a conversation of at most 1024 tokens, the tokenizer's model_max_length, received 11\d\d; shorten it/,
    );
    await expect(tiny.encode([{ role: 'user', content: 'hello' }], { maxTokens: 3 })).rejects.toThrow(
      'encode: expected a conversation of at most 3 tokens, received 9;',
    );
    const { inputIds } = await tiny.encode([{ role: 'user', content: long }], { maxTokens: 5000 });
    expect(inputIds.length).toBeGreaterThan(1100);
  });

  it('are measured with their media', async () => {
    const clip = { type: 'audio' as const, audio: clipOf('hello') };
    const { inputIds } = await tiny.encode([{ role: 'user', content: [clip] }]);
    const exact = { maxTokens: inputIds.length };
    expect((await tiny.encode([{ role: 'user', content: [clip] }], exact)).inputIds).toEqual(inputIds);
    await expect(tiny.encode([{ role: 'user', content: [clip, text('a')] }], exact)).rejects.toThrow(
      `at most ${inputIds.length} tokens, received ${inputIds.length + 1}`,
    );
  });
});

describe('loadProcessor, with files of another model', () => {
  const refusal = async (...args: Parameters<typeof folderWith>) => {
    const folder = folderWith(...args);
    return loadProcessor(folder).then(
      () => 'none',
      (error: unknown) => String(error).replaceAll(folder, ''),
    );
  };
  const changed = (key: string, value: unknown) => (file: Json) => ({ ...file, [key]: value });

  it('names the extractor, the image processor and the processor that it does not know', async () => {
    const preprocessor = 'preprocessor_config.json';
    expect(
      await refusal({ [preprocessor]: changed('feature_extractor_type', 'WhisperFeatureExtractor') }),
    ).toBe(
      'AudioError: /preprocessor_config.json: feature_extractor_type: expected Gemma3nAudioFeatureExtractor, ' +
        "received WhisperFeatureExtractor; use the model's own preprocessor_config.json",
    );
    expect(await refusal({ [preprocessor]: changed('image_processor_type', 'CLIPImageProcessor') })).toBe(
      'TextError: /preprocessor_config.json: image_processor_type: expected SiglipImageProcessor, ' +
        "received CLIPImageProcessor; take all processor files from the Gemma 3n model's own folder",
    );
    expect(await refusal({ 'processor_config.json': changed('processor_class', 'LlavaProcessor') })).toMatch(
      /^TextError: \/processor_config\.json: processor_class: expected Gemma3nProcessor, received LlavaProcessor;/,
    );
    const nested = (file: Json) => ({
      ...file,
      feature_extractor: { ...(file['feature_extractor'] as Json), feature_size: 'many' },
    });
    expect(await refusal({ 'processor_config.json': nested }, publishedFolder)).toMatch(
      /^ConfigError: \/processor_config\.json: feature_extractor: feature_size: .*received "many"/,
    );
  });

  it('names the tokens that a text-only tokenizer lacks', async () => {
    const without = (file: Json): Json => ({
      ...file,
      model: { ...(file['model'] as Json), vocab: withoutToken((file['model'] as Json)['vocab'] as Json) },
      added_tokens: (file['added_tokens'] as { content: string }[]).filter(
        ({ content }) => content !== '<audio_soft_token>',
      ),
    });
    const withoutToken = ({ '<audio_soft_token>': _token, ...rest }: Json): Json => rest;
    expect(await refusal({ 'tokenizer.json': without })).toBe(
      'TextError: /tokenizer.json: expected the audio token (/preprocessor_config.json configures audio), ' +
        "received none among its 26 added tokens; take all tokenizer files from the same model's folder; " +
        'tokenizer_config.json names it as "audio_token"',
    );
  });

  it("names the ids of a tokenizer that is not the model's", async () => {
    const smaller = (file: Json) => ({
      ...file,
      text_config: { ...(file['text_config'] as Json), vocab_size: 384 },
    });
    expect(await refusal({ 'config.json': smaller })).toBe(
      'TextError: /tokenizer.json: expected ids below 384, as /config.json says, received ids up to 399; ' +
        "take the tokenizer files from the model's own folder",
    );
    expect(await refusal({ 'config.json': changed('audio_token_id', 262_273) })).toMatch(
      /expected the id 262273 for <audio_soft_token>, as \/config\.json says, received 393;/,
    );
  });

  it('refuses a number of soft tokens that is none', async () => {
    expect(await refusal({ 'processor_config.json': changed('audio_seq_length', 0) })).toBe(
      'TextError: processor_config.json: audio_seq_length: expected the number of soft tokens of a clip, 1 to 65536, received 0; ' +
        "use the model's own processor_config.json",
    );
  });

  it('takes the published numbers where none are written', async () => {
    const folder = folderWith({ 'processor_config.json': undefined });
    const { inputIds } = await (await loadProcessor(folder)).encode(chat(user(audio(clipOf('hello')))));
    expect(inputIds.filter((id) => id === CLIP_TOKEN)).toHaveLength(188);
  });
});

describe('samples with clips', () => {
  const bytes = wavFile(wave({ kind: 'voice', samples: 8000 }), 16_000);
  const red = pictureBytes('same-size.png');
  const sample = chat(
    user(image(red), audio(bytes), 'what?'),
    assistant('hello'),
    user(audio(bytes)),
    assistant('again'),
  );

  it('are decoded in place', async () => {
    const decoded = await decodeSampleMedia(sample);
    const clips = decoded.messages.flatMap(({ content }) => content.filter((part) => part.type === 'audio'));
    expect(clips.map(({ audio: clip }) => clip)).toMatchObject([
      { sampleRateHz: 16_000, data: { length: 8000 } },
      { sampleRateHz: 16_000, data: { length: 8000 } },
    ]);
    expect(await decodeSampleMedia(decoded)).toEqual(decoded);
    const short = await decodeSampleMedia(sample, { hearing: { sampleRateHz: 8000, maxSeconds: 0.25 } });
    expect(short.messages[2]!.content[0]).toMatchObject({
      audio: { sampleRateHz: 8000, data: { length: 2000 }, cutFromSeconds: 0.5 },
    });
  });

  it('name the clip that cannot be decoded', async () => {
    const bad = chat(user(audio(bytes)), assistant('x'), user(image(red), audio(bytes.slice(0, 100))));
    await expect(decodeSampleMedia(bad)).rejects.toThrow(/^clip 1: /);
  });

  it('become the same example decoded before or on the way, to train on and to be asked', async () => {
    const decoded = await decodeSampleMedia(sample);
    const trained = await encodeSample(tiny, sample);
    expect(trained.inputFeatures!.shape).toEqual([2, 48, 128]);
    expect(await encodeSample(tiny, decoded)).toEqual(trained);
    const asked = await encodeSample(tiny, decoded, { purpose: 'evaluate' });
    expect(asked.inputFeatures).toEqual(trained.inputFeatures);
    expect(asked.target).toMatchObject({ prompt: '', reference: 'again' });
    await expect(encodeSample(tiny, decoded, { maxTokens: 20 })).rejects.toThrow('at most 20 tokens');
  });
});

/** The case with its long clip replaced: only the text matters. */
function withShortClips(entry: AudioCase): AudioCase {
  const swap = (name: string | undefined) => (name === 'speech' ? 'rain' : name);
  return {
    ...entry,
    messages: entry.messages.map(({ role, content }) => ({
      role,
      content:
        typeof content === 'string'
          ? content
          : content.map((part) => ({
              ...part,
              ...(part.audio !== undefined && { audio: swap(part.audio)! }),
            })),
    })),
  };
}

/** 16-bit PCM, one channel. */
function wavFile(samples: Float32Array, rate: number): Uint8Array {
  const file = Buffer.alloc(44 + 2 * samples.length);
  file.write('RIFF', 0, 'latin1');
  file.writeUInt32LE(36 + 2 * samples.length, 4);
  file.write('WAVEfmt ', 8, 'latin1');
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20);
  file.writeUInt16LE(1, 22);
  file.writeUInt32LE(rate, 24);
  file.writeUInt32LE(2 * rate, 28);
  file.writeUInt16LE(2, 32);
  file.writeUInt16LE(16, 34);
  file.write('data', 36, 'latin1');
  file.writeUInt32LE(2 * samples.length, 40);
  samples.forEach((sample, i) => file.writeInt16LE(Math.round(sample * 32767), 44 + 2 * i));
  return new Uint8Array(file);
}
