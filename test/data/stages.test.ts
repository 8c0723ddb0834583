import { describe, expect, it } from 'vitest';
import { assistant, chat, image, text, user } from '../../src/data/chat.js';
import { loadProcessor } from '../../src/data/processor.js';
import { decodeMedia, encode, type StageContext } from '../../src/data/stages.js';
import type { Example, Sample } from '../../src/data/types.js';
import { ConfigError } from '../../src/errors.js';
import { runFlow, type FlowEvent, type Source, type Stage } from '../../src/flow/index.js';
import { make, part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { pictureBytes, tinyFolder } from '../reference/processor-values.js';

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

  it('refuse options that they do not know', () => {
    const declared = { ...decodeMedia(), threads: 3, concurrency: 0 };
    expect(() => stage(declared)).toThrow(ConfigError);
    expect(() => stage(declared)).toThrow(
      /flow: concurrency: .*received 0[\s\S]*flow: threads: expected a known key/,
    );
  });
});
