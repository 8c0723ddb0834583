import { describe, expect, it } from 'vitest';
import { assistant, audio, chat, image, text, user } from '../../src/data/chat.js';
import { loadProcessor, Processor } from '../../src/data/processor.js';
import { decodeMedia, encode, type SampleNotice, type StageContext } from '../../src/data/stages.js';
import type { DecodedAudio, Example, Sample } from '../../src/data/types.js';
import { ConfigError } from '../../src/errors.js';
import { runFlow, type FlowEvent, type Source, type Stage } from '../../src/flow/index.js';
import { make, part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { pictureBytes, tinyFolder } from '../reference/processor-values.js';
import { wave } from '../reference/waves.js';

const context: StageContext = { processor: await loadProcessor(tinyFolder), purpose: 'train' };
const good = pictureBytes('large.jpg');
const cut = good.slice(0, good.length >> 1);

function stage<A, B>(declared: unknown, given = context): Stage<A, B> {
  return make<StageContext, Stage<A, B>>(decode(part('stage'), declared, 'flow') as never, given);
}

function source(values: readonly Sample[]): Source<Sample> {
  return {
    name: 'samples',
    open: async function* () {
      for (const [row, value] of values.entries()) {
        yield { value, bytes: 1000, origin: { file: 'a.parquet', rowGroup: 0, row } };
      }
    },
  };
}

const sample = (bytes: Uint8Array, answer: string): Sample =>
  chat(user(image(bytes), text('what color?')), assistant(text(answer)));

describe('decodeMedia and encode', () => {
  it('make examples in order, and quarantine a picture that is cut short with its row and reason', async () => {
    const examples: Example[] = [];
    const events: FlowEvent[] = [];
    const answers = ['red', 'blue', 'green', 'teal', 'gray', 'black'];
    const { ledger } = await runFlow({
      source: source(answers.map((answer, row) => sample(row === 2 ? cut : good, answer))),
      stages: [
        stage<Sample, Sample>(decodeMedia({ concurrency: 3 })),
        stage<Sample, Example>(encode({ maxTokens: 64 })),
      ],
      poolBytes: 10e6,
      consume: (example) => void examples.push(example),
      onEvent: (event) => events.push(event),
    });
    expect(ledger).toEqual({ issued: 6, trained: 5, dropped: 0, quarantined: 1 });
    const { processor } = context;
    const said = examples.map(({ labels }) => processor.decode([...labels!].filter((id) => id !== -100)));
    expect(said).toEqual(['red', 'blue', 'teal', 'gray', 'black'].map((answer) => `${answer}<end_of_turn>`));
    const bad = events.find((event) => event.kind === 'quarantine');
    expect(bad).toMatchObject({ stage: 'decodeMedia', origin: { file: 'a.parquet', row: 2 } });
    expect(String(bad!.error)).toMatch(/image 0: expected a whole, intact JPEG/);
  });

  it('ask questions in an evaluation', async () => {
    const examples: Example[] = [];
    await runFlow({
      source: source([sample(good, 'red')]),
      stages: [
        stage<Sample, Sample>(decodeMedia()),
        stage<Sample, Example>(encode(), { ...context, purpose: 'evaluate' }),
      ],
      poolBytes: 10e6,
      consume: (example) => void examples.push(example),
    });
    expect(examples[0]!.target).toMatchObject({
      prompt: 'what color?',
      reference: 'red',
      image: { width: 200 },
    });
    expect(examples[0]!.labels).toBeUndefined();
  });

  it('hear clips, say what of them is not heard, and reserve as much as the heaviest sample took', async () => {
    const clip = (samples: number): DecodedAudio => ({
      data: wave({ kind: 'noise', samples, level: 0.1 }),
      sampleRateHz: 16_000,
    });
    const lengths = [8000, 490_000, 100, 16_000, 8000, 8000];
    const samples = lengths.map((length) => chat(user(audio(clip(length)), 'what?'), assistant('hello')));
    const notices: SampleNotice[] = [];
    const events: FlowEvent[] = [];
    const examples: Example[] = [];
    // Of a folder that does not say how long a clip its model takes: the tiny one takes 2.6 s.
    const { tokenizer, template, media, maxTokens } = context.processor;
    const { maxFrames, ...hearing } = media.audio!;
    expect(maxFrames).toBe(256);
    const processor = new Processor(tokenizer, template, { ...media, audio: hearing }, maxTokens);
    const given = { ...context, processor, onNotice: (notice: SampleNotice) => notices.push(notice) };
    const decoding = stage<Sample, Sample>(decodeMedia({ concurrency: 2 }), given);
    const encoding = stage<Sample, Example>(encode({ maxTokens: 64 }), given);
    const before = encoding.itemBytes!;
    expect(decoding.itemBytes).toBe(0);
    expect(before).toBe(context.processor.imageBytes + 64 * 8);
    await runFlow({
      source: source(samples),
      stages: [decoding, encoding],
      poolBytes: 10e6,
      consume: (example) => void examples.push(example),
      onEvent: (event) => events.push(event),
    });
    expect(examples.map(({ inputFeatures }) => inputFeatures!.shape[1])).toEqual([48, 2997, 97, 48, 48]);
    expect(notices).toEqual([
      {
        stage: 'encode',
        origin: { file: 'a.parquet', rowGroup: 0, row: 1 },
        message: 'clip 0 lasts 30.6 s: only its first 30.0 s are heard',
      },
    ]);
    const quarantined = events.flatMap((event) => (event.kind === 'quarantine' ? [event] : []));
    expect(quarantined).toMatchObject([{ stage: 'encode', origin: { row: 2 } }]);
    expect(String(quarantined[0]!.error)).toMatch(
      /^AudioError: clip 0: expected at least one frame's 513 samples/,
    );
    expect(decoding.itemBytes).toBeGreaterThan(490_000 * 4);
    expect(encoding.itemBytes).toBeGreaterThan(2997 * 513);
    expect(stage<Sample, Example>(encode({ maxTokens: 64, maxClips: 2 })).itemBytes).toBe(
      before + 2 * context.processor.clipBytes,
    );
  });

  it('quarantine a sample of more tokens than they were told of', async () => {
    const events: FlowEvent[] = [];
    const { ledger } = await runFlow({
      source: source([sample(good, 'red'), sample(good, 'red or blue or green or teal or black or gray')]),
      stages: [stage<Sample, Sample>(decodeMedia()), stage<Sample, Example>(encode({ maxTokens: 36 }))],
      poolBytes: 10e6,
      consume: () => undefined,
      onEvent: (event) => events.push(event),
    });
    expect(ledger).toMatchObject({ trained: 1, quarantined: 1 });
    expect(String(events.find((event) => event.kind === 'quarantine')!.error)).toMatch(
      /encode: expected a conversation of at most 36 tokens, received \d+;/,
    );
  });

  it('refuse options that they do not know', () => {
    const declared = { ...decodeMedia(), threads: 3, concurrency: 0 };
    expect(() => stage(declared)).toThrow(ConfigError);
    expect(() => stage(declared)).toThrow(
      /flow: concurrency: .*received 0[\s\S]*flow: threads: expected a known key/,
    );
  });
});
