// The recipes: those for the published models are planned and inspected on their real configurations; their small twins
// learn, a few steps each.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parquetWriteFile } from 'hyparquet-writer';
import { beforeAll, describe, expect, it } from 'vitest';
import { inspectPipeline } from '../../src/cli/recipe-inspection.js';
import { loadPipeline } from '../../src/cli/pipeline-file.js';
import type { RunEvent } from '../../src/train/events.js';
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
    text: [`source.files=${text}`],
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
    expect(evaluations).toHaveLength({ image: 1, audio: 1, mixed: 2, text: 0 }[kind.split('-')[0]!]!);
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

describe('the small twins', () => {
  it('make image SFT into image DoRA by two lines: the name and the model', () => {
    const [, spread = ''] = /pipeline\(\{\n([^]*)\}\);/.exec(lines('image-dora'))!;
    expect(spread.trim().split('\n')).toHaveLength(3);
    expect(spread).toMatch(
      /^ {2}\.\.\.sft,\n {2}name: 'image-dora',\n {2}model: gemma3n\(.*dora\(\{.*\}\),\n$/,
    );
  });

  it.each([
    ['image-lora', 40, 'eval', 'exactMatch', 0.1],
    ['image-dora', 40, 'eval', 'exactMatch', 0.1],
  ])(
    '%s improves its score in %i steps',
    { timeout: 300_000 },
    async (name, steps, evaluation, score, least) => {
      const file = join(root, 'pipelines', `${name}.pipeline.ts`);
      const numEvaluations = name === 'mixed-lora' ? [2, 3, 4] : [2];
      const limits = numEvaluations.flatMap((sink) => [
        `sinks.${sink}.limit=24`,
        `sinks.${sink}.every=100000`,
      ]);
      const shared = [...limits, 'threads=2', 'step.schedule.warmup=5'];
      const run = async (untrained: boolean) => {
        const { step, source, ...declared } = await loadPipeline(file, [...shared, `step.maxSteps=${steps}`]);
        const events: RunEvent[] = [];
        await runPipeline(untrained ? declared : { ...declared, step: step!, source: source! }, {
          outDir: temporaryFolder(),
          sinks: [{ name: 'recorder', onEvent: (event) => void events.push(event) }],
          signal: new AbortController().signal,
          log: () => undefined,
        });
        return only(events, 'eval').find((event) => event.name === evaluation)!.scores[score]!;
      };
      const sign = score === 'wordErrorRate' ? -1 : 1;
      const [before, after] = [sign * (await run(true)), sign * (await run(false))];
      expect(after).toBeGreaterThan(before);
      expect(after).toBeGreaterThan(least);
    },
  );

  it.each(['audio-lora', 'mixed-lora', 'text'])(
    '%s lowers its loss in 12 steps',
    { timeout: 300_000 },
    async (name) => {
      const file = join(root, 'pipelines', `${name}.pipeline.ts`);
      const declared = await loadPipeline(file, ['step.maxSteps=12', 'threads=2', 'step.schedule.warmup=5']);
      const events: RunEvent[] = [];
      await runPipeline(
        { ...declared, sinks: [] },
        {
          outDir: temporaryFolder(),
          sinks: [{ name: 'recorder', onEvent: (event) => void events.push(event) }],
          signal: new AbortController().signal,
          log: () => undefined,
        },
      );
      const losses = only(events, 'step').map(({ loss }) => loss);
      expect(losses).toHaveLength(12);
      expect(losses.at(-1)).toBeLessThan(0.8 * losses[0]!);
    },
  );
});
