// The recipes: those for the published models are planned and inspected on their real configurations; their small twins
// learn, a few steps each.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parquetWriteFile } from 'hyparquet-writer';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Sample, batch, filter, pack } from '../../src/index.js';
import { inspectPipeline } from '../../src/cli/recipe-inspection.js';
import { loadPipeline } from '../../src/cli/pipeline-file.js';
import type { RunEvent } from '../../src/train/events.js';
import type { Pipeline } from '../../src/train/pipeline.js';
import { planDecoded } from '../../src/train/plan.js';
import { runPipeline } from '../../src/train/run.js';
import { temporaryFolder } from '../train/job.js';
import { only } from '../train/run-job.js';
import { publishedFolder } from './real-folder.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const KINDS = [
  'image-sft',
  'image-lora',
  'image-dora',
  'image-qlora',
  'audio-lora',
  'mixed-lora',
  'text-sft',
];
/** Conversations as trl-lib/Capybara has them. */
function conversations(): string {
  const path = join(temporaryFolder(), 'messages.parquet');
  const messages = Array.from({ length: 300 }, (_, i) => [
    { role: 'user', content: `digits: ${i}` },
    { role: 'assistant', content: 'one two three' },
  ]);
  parquetWriteFile({
    filename: path,
    columnData: [{ name: 'messages', data: messages }],
    schema: [
      { name: 'root', num_children: 1 },
      { name: 'messages', repetition_type: 'OPTIONAL', converted_type: 'LIST', num_children: 1 },
      { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
      { name: 'element', repetition_type: 'OPTIONAL', num_children: 2 },
      { name: 'role', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
      { name: 'content', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
    ],
  });
  return path;
}

/** What points a recipe at files of this machine. */
function here(kind: string, text: string): string[] {
  const pictures = 'fixtures/easy-vqa/test.parquet';
  const speech = 'fixtures/spoken-digits/test.parquet';
  const files = {
    image: [
      `source.sources.0.sources.0.files=${pictures}`,
      `sinks.2.source.sources.0.files=${pictures}`,
      'sinks.2.limit=8',
    ],
    audio: [`source.files=${speech}`, `sinks.2.source.sources.0.files=${speech}`],
    mixed: [
      `source.sources.0.source.sources.0.sources.0.files=${pictures}`,
      `source.sources.1.source.files=${speech}`,
      `sinks.2.source.sources.0.files=${pictures}`,
      `sinks.3.source.sources.0.files=${speech}`,
      'sinks.2.limit=8',
    ],
    text: [`source.sources.0.sources.0.files=${text}`, `sinks.2.source.sources.0.files=${text}`],
  };
  return files[kind.split('-')[0] as keyof typeof files];
}

describe.each(['E2B', 'E4B'] as const)('recipes for %s', (size) => {
  const folder = size.toLowerCase();
  let model: string;
  let text: string;
  beforeAll(() => {
    model = publishedFolder(size);
    text = conversations();
  });

  it('are all there, and name the published model', () => {
    const files = readdirSync(join(root, 'pipelines', folder));
    for (const kind of KINDS) {
      expect(files).toContain(`${kind}.pipeline.ts`);
      const code = readFileSync(join(root, 'pipelines', folder, `${kind}.pipeline.ts`), 'utf8');
      expect(code).toContain(`'google/gemma-3n-${size}-it'`);
      expect(code.split('\n').length).toBeLessThan(100);
    }
  });

  it.each(KINDS)('%s is accepted by plan', { timeout: 120_000 }, async (kind) => {
    const file = join(root, 'pipelines', folder, `${kind}.pipeline.ts`);
    const set = [`model=${model}`, 'step.maxSteps=2', 'step.accumulate=2', ...here(kind, text)];
    const pipeline = await loadPipeline(file, set);
    expect(pipeline.name).toBe(`${folder}-${kind}`);
    const { training, evaluations } = await planDecoded(pipeline, { wholeEpoch: false, cache: false });
    expect(training).toMatchObject({ quarantined: 0, steps: 2, batches: 4 });
    expect(training!.longest).toBeDefined();
    if (kind.startsWith('image') || kind.startsWith('mixed')) expect(training!.images).toBeGreaterThan(0);
    if (kind.startsWith('audio') || kind.startsWith('mixed')) expect(training!.clips).toBeGreaterThan(0);
    expect(evaluations).toHaveLength({ image: 1, audio: 1, mixed: 2, text: 1 }[kind.split('-')[0]!]!);
    for (const { samples, quarantined } of evaluations) {
      expect(samples).toBeGreaterThan(0);
      expect(quarantined).toBe(0);
    }
  });

  it('are accepted by inspect, which tells what each needs', async () => {
    const peaks: Record<string, number> = {};
    for (const kind of KINDS) {
      const file = join(root, 'pipelines', folder, `${kind}.pipeline.ts`);
      const { recipe, memory } = await inspectPipeline(file, [`model=${model}`], {});
      expect(memory.options).toMatchObject({ batch: 1, length: 2048, dtype: 'bfloat16' });
      expect(recipe!.method).toBe(
        { sft: 'full', lora: 'lora', dora: 'dora', qlora: 'qlora' }[kind.split('-')[1]!],
      );
      peaks[kind] = recipe!.peak / 1e9;
    }
    expect(peaks['image-sft']).toBeGreaterThan(2 * peaks['image-lora']!);
    expect(peaks['image-dora']).toBeGreaterThan(peaks['image-lora']!);
    expect(peaks['image-qlora']).toBeLessThan(peaks['image-lora']!);
    expect(peaks['image-lora']).toBeGreaterThan(size === 'E2B' ? 7 : 12);
    expect(peaks['image-lora']).toBeLessThan(size === 'E2B' ? 14 : 22);
  });
});

const lines = (name: string) =>
  readFileSync(join(root, 'pipelines', `${name}.pipeline.ts`), 'utf8').replace(/^\/\/.*\n/gm, '');

interface Twin {
  readonly name: string;
  readonly steps: number;
  /** What each evaluation's score gains at least. */
  readonly gains: Readonly<Record<string, number>>;
  /** Scores that end above others. */
  readonly above?: Readonly<Record<string, string>>;
  readonly set?: readonly string[];
  readonly batch?: Pipeline['flow'][number];
  /** Held-out samples of each evaluation. */
  readonly limit: number;
}

/** An easier slice of each kind of data: shapes, clips as they are, numbers of one digit in digits. */
const easy = filter(({ tags, messages }: Sample) => {
  if (tags?.['kind'] !== undefined) return tags['kind'] === 'shape';
  const [answer] = messages.at(-1)!.content;
  return tags?.['task'] === undefined || (answer?.type === 'text' && answer.text.length === 1);
});

const fast = ['step.optimizer.lr=4e-3', 'step.optimizer.betas=[0.9,0.95]', 'step.schedule.minLrRate=0.2'];
const image = {
  steps: 28,
  set: fast,
  gains: { 'eval/exactMatch': 0.5 },
  above: { 'eval/exactMatch': 'eval/promptAlone' },
  batch: batch({ size: 16 }),
  limit: 50,
};
const TWINS: readonly Twin[] = [
  { name: 'image-lora', ...image },
  { name: 'image-dora', ...image },
  { name: 'image-qlora', ...image },
  {
    // goes on from where it begins to hear
    name: 'audio-lora',
    steps: 24,
    gains: { 'eval/wordErrorRate': 0.02 },
    set: ['model.adapter=fixtures/audio-lora-begun', 'step.schedule.minLrRate=0.05'],
    limit: 80,
  },
  {
    name: 'mixed-lora',
    steps: 50,
    // speech takes hundreds of steps: audio-lora says more of it
    gains: { 'pictures/exactMatch': 0.5, 'numbers/exactMatch': 0.1 },
    above: { 'pictures/exactMatch': 'pictures/promptAlone' },
    // few of the pictures' questions and of the numbers are easy
    set: [...fast, ...[16, 3, 18].map((weight, i) => `source.sources.${i}.weight=${weight}`)],
    limit: 40,
  },
  {
    name: 'text',
    steps: 55,
    gains: { 'eval/exactMatch': 0.2 },
    set: [...fast, 'step.optimizer.lr=6e-3'],
    batch: pack({ tokens: 512 }),
    limit: 47,
  },
];

/** Runs a small twin, or evaluates what it begins with. @returns EVALUATION/SCORE of the last evaluations */
async function scoresOf(
  { name, steps, batch: ofTwin, set = [], limit }: Twin,
  trains: boolean,
): Promise<Record<string, number>> {
  const file = join(root, 'pipelines', `${name}.pipeline.ts`);
  const all = [`step.maxSteps=${steps}`, 'step.schedule.warmup=5', 'threads=2', ...set];
  const { step, source, flow, sinks, ...declared } = await loadPipeline(file, all);
  const own = ofTwin ? [...flow.slice(0, -1), ofTwin] : flow;
  const events: RunEvent[] = [];
  const job: Pipeline = {
    ...declared,
    ...(trains && { step: step!, source: source! }),
    flow: [easy, ...own],
    sinks: sinks.flatMap((sink) => {
      if (sink.kind !== 'evaluation') return [];
      const { flow: answered = flow } = sink as { readonly flow?: Pipeline['flow'] };
      return [{ ...sink, flow: [easy, ...answered], limit, every: undefined, limitOnTheWay: undefined }];
    }),
  };
  await runPipeline(job, {
    outDir: temporaryFolder(),
    sinks: [{ name: 'recorder', onEvent: (event) => void events.push(event) }],
    signal: new AbortController().signal,
    log: () => undefined,
  });
  return Object.fromEntries(
    only(events, 'eval').flatMap(({ name: evaluation, count, scores }) => {
      expect(count).toBe(limit);
      return Object.entries(scores).map(([score, value]) => [`${evaluation}/${score}`, value]);
    }),
  );
}

describe('the small twins', () => {
  it('make image SFT into image DoRA by two lines: the name and the model', () => {
    const [, spread = ''] = /pipeline\(\{\n([^]*)\}\);/.exec(lines('image-dora'))!;
    expect(spread.trim().split('\n')).toHaveLength(3);
    expect(spread).toMatch(
      /^ {2}\.\.\.sft,\n {2}name: 'image-dora',\n {2}model: gemma3n\(.*dora\(\{.*\}\),\n$/,
    );
  });

  it.each(TWINS)('$name improves its scores in $steps steps', { timeout: 300_000 }, async (twin) => {
    const before = await scoresOf(twin, false);
    const after = await scoresOf(twin, true);
    for (const [score, least] of Object.entries(twin.gains)) {
      const gain = (after[score]! - before[score]!) * (score.includes('wordErrorRate') ? -1 : 1);
      expect(gain, `${score}: ${before[score]} before, ${after[score]} after`).toBeGreaterThan(least);
    }
    for (const [score, other] of Object.entries(twin.above ?? {}))
      expect(after[score]).toBeGreaterThan(after[other]!);
  });
});
