// Quarantined rows as a run leaves them: in a table, with their own columns, once each; and how many are too many.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parquetReadObjects } from 'hyparquet';
import {
  batch,
  checkpoints,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  folder,
  gemma3n,
  loadProcessor,
  map,
  metrics,
  parquet,
  rows as rowsOf,
} from '../../src/index.js';
import { TrainLoop } from '../../src/train/loop.js';
import { decodePipeline } from '../../src/train/pipeline.js';
import { sampleFlow } from '../../src/train/sample-flow.js';
import { trainingFlow } from '../../src/train/training.js';
import { type ColourRow, colourRows, metricsOf, modelFolder, temporaryFolder, writeRows } from './job.js';
import { type JobOptions, conversation, only, runJob } from './run-job.js';

/** The table of a run. */
async function tableOf(outDir: string): Promise<Record<string, unknown>[]> {
  const bytes = fs.readFileSync(join(outDir, 'quarantine.parquet'));
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return parquetReadObjects({ file: file, utf8: false });
}

const spoil = (rows: readonly ColourRow[], every: number, first: number): ColourRow[] =>
  rows.map((row, i) => (i % every === first ? { ...row, image: Uint8Array.of(1, 2, 3, i) } : row));

const stopped = new Error('enough');

describe('quarantine.parquet', () => {
  it('has each row that a run could not use, with file, row group, row, stage, error and its own columns', async () => {
    const rows = await colourRows(12);
    const held = writeRows(join(temporaryFolder(), 'held.parquet'), [
      ...rows.slice(0, 3),
      { ...rows[3]!, answer: 'blue', image: null },
    ]);
    const { outDir, error } = await runJob({
      rows: rows.map((row, i) =>
        i === 5 ? { ...row, image: Uint8Array.of(1, 2, 3) } : i === 9 ? { ...row, question: null } : row,
      ),
      sinks: [
        evaluation({ every: 1, source: parquet<ColourRow>(held), scores: [exactMatch()], maxNewTokens: 1 }),
      ],
    });
    expect(error).toBeUndefined();
    const table = await tableOf(outDir);
    const trained = table
      .filter(({ stream }) => stream === 'train')
      .sort((a, b) => Number(a['row']) - Number(b['row']));
    expect(trained).toMatchObject([
      {
        file: expect.stringMatching(/rows\.parquet$/) as string,
        row_group: 0,
        row: 5n,
        stage: 'decodeMedia',
        error: expect.stringMatching(/^image 0: expected/) as string,
        part: 0,
        step: null,
        left_out: null,
        image: Uint8Array.of(1, 2, 3),
        question: 'what color is the shape?',
        answer: 'blue',
      },
      { row: 9n, stage: 'map', question: null, image: new Uint8Array(rows[9]!.image!) },
    ]);
    // three evaluations came to it
    expect(table.filter(({ stream }) => stream === 'eval')).toMatchObject([
      { step: 1n, item: 3n, stage: 'map', image: null, answer: 'blue' },
    ]);
  });

  it('is not there where every row was used', async () => {
    const { outDir, error } = await runJob({ sinks: [metrics()] });
    expect(error).toBeUndefined();
    expect(fs.readdirSync(outDir)).toEqual(['metrics.jsonl']);
  });

  it('holds values of any kind, those of several kinds as text, and says what is too large for it', async () => {
    const given = [
      { id: 1n, when: new Date(1e12), score: 0.5, ok: true, tags: ['a', { b: 2n }], mixed: 1, error: 'mine' },
      { id: 2n, when: new Date(2e12), score: NaN, ok: false, tags: [Uint8Array.of(7)], mixed: 'two' },
      { big: new Uint8Array(2 ** 20 + 1), score: 3 },
      'no table',
      null,
    ];
    const { outDir, error } = await runJob({
      change: (spec) => ({
        ...spec,
        source: rowsOf(given),
        flow: [
          map((): never => {
            throw new Error('never');
          }),
          ...(spec['flow'] as unknown[]).slice(1),
        ],
      }),
    });
    expect(error?.message).toContain(
      'at least one sample to train on, received 5, of which 5 were quarantined',
    );
    const table = await tableOf(outDir);
    expect(table).toMatchObject([
      {
        file: 'rows',
        row: 0n,
        error: 'never',
        id: 1n,
        when: new Date(1e12),
        score: 0.5,
        ok: true,
        mixed: '1',
      },
      { row: 1n, id: 2n, score: NaN, ok: false, tags: '[{"base64":"Bw=="}]', mixed: 'two' },
      { row: 2n, score: 3, left_out: 'big: 1048577 bytes' },
      { row: 3n, value: 'no table' },
      { row: 4n, value: null },
    ]);
    expect(table[0]).toMatchObject({ tags: '["a",{"b":"2"}]', own_error: 'mine' });
  });

  it('has columns that are read when they are wanted, as those of a folder', async () => {
    const dir = temporaryFolder();
    fs.writeFileSync(join(dir, 'a.png'), (await colourRows(1))[0]!.image!);
    fs.writeFileSync(join(dir, 'b.png'), 'no picture');
    fs.writeFileSync(join(dir, 'b.txt'), 'a caption');
    const { outDir } = await runJob({
      change: (spec) => ({
        ...spec,
        source: folder(dir),
        flow: [
          map((row: { image: { bytes: Uint8Array }; text?: string }) => ({
            image: row.image.bytes,
            question: 'what color is the shape?',
            answer: 'red',
          })),
          ...(spec['flow'] as unknown[]),
        ],
      }),
    });
    const [row, ...others] = await tableOf(outDir);
    expect(others).toEqual([]);
    expect(row).toMatchObject({ file: join(dir, 'b.png'), stage: 'decodeMedia', text: 'a caption' });
    const image = JSON.parse(row!['image'] as string) as { bytes: { base64: string } };
    expect(Buffer.from(image.bytes.base64, 'base64').toString()).toBe('no picture');
  });

  it('has the rows of a row group that cannot be decoded, without columns', async () => {
    const { outDir, error } = await runJob({
      change: (spec) => {
        const path = writeRows(join(temporaryFolder(), 'torn.parquet'), someRows, 8);
        const bytes = fs.readFileSync(path);
        bytes.fill(0xff, 30, 200);
        fs.writeFileSync(path, bytes);
        return { ...spec, source: parquet(path) };
      },
    });
    expect(error).toBeUndefined();
    const table = await tableOf(outDir);
    expect(table.map(({ row, row_group, stage }) => [row_group, row, stage])).toEqual(
      Array.from({ length: 8 }, (_, row) => [0, BigInt(row), 'parquet']),
    );
  });

  it('of a run that was stopped and goes on has each row once, as that of a run without a break', async () => {
    const job: JobOptions = {
      rows: spoil(await colourRows(30), 8, 2),
      epochs: 3,
      batchSize: 3,
      maxSteps: 24,
      set: ['quarantine.maxShare=1'],
      sinks: [metrics(), checkpoints({ every: 2 })],
    };
    const whole = await runJob(job);
    const outDir = temporaryFolder();
    const controller = new AbortController();
    const first = await runJob({
      ...job,
      outDir,
      signal: controller.signal,
      onEvent: ({ event, ...rest }) => {
        if (event === 'step' && (rest as { step: number }).step === 9) controller.abort(stopped);
      },
    });
    expect(first.error).toBe(stopped);
    // as a kill would leave them: a row ahead of the checkpoint, and a line that is cut off
    const ahead = { number: 900, stream: 'train', item: 89, part: 0, file: 'f', rowGroup: 0, row: 1 };
    fs.appendFileSync(
      join(outDir, 'quarantine.jsonl'),
      `${JSON.stringify({ ...ahead, stage: 's', error: 'e' })}\n{"number":901,"str`,
    );
    const told = {
      event: 'quarantine',
      row: 'f',
      stage: 's',
      error: 'e',
      stream: 'train',
      item: 89,
      part: 0,
    };
    fs.appendFileSync(join(outDir, 'metrics.jsonl'), `${JSON.stringify(told)}\n`);
    const second = await runJob({ ...job, outDir, resume: true });
    expect(second.error).toBeUndefined();

    // What was still on its way at the last step is a matter of timing.
    const done = whole.result!.end.ledger.trained + 11;
    const namesOf = async (folder: string) =>
      (await tableOf(folder))
        .map(({ item, row, image }) => [Number(item), Number(row), image])
        .sort(([a], [b]) => (a as number) - (b as number))
        .filter(([item]) => (item as number) < Math.min(done, 80));
    const expected = await namesOf(whole.outDir);
    expect(expected).toHaveLength(new Set(expected.map(([item]) => item)).size);
    expect(expected.length).toBeGreaterThan(8);
    expect(await namesOf(outDir)).toEqual(expected);
    const inMetrics = metricsOf(outDir).filter(({ event }) => event === 'quarantine');
    const items = inMetrics.map(({ item }) => item as number);
    expect(new Set(items).size).toBe(items.length);
    expect(items.filter((item) => item < 80).sort((a, b) => a - b)).toEqual(expected.map(([item]) => item));
  });
});

const someRows = await colourRows(16);

describe('a run that loses too many rows', () => {
  it('by their number fails with it, the first rows and their reasons, and goes on once that is allowed', async () => {
    const rows = spoil(await colourRows(24), 4, 1);
    const sinks = [metrics(), checkpoints({ every: 1 })];
    const { error, events, outDir } = await runJob({
      rows,
      sinks,
      batchSize: 2,
      set: ['quarantine.maxRows=3', 'poolBytes=800000'],
    });
    expect(error?.name).toBe('QuarantineError');
    expect(error?.message).toMatch(
      /^quarantine: expected at most 3 rows \(quarantine\.maxRows\), received 4 of the \d+ that came; mend the rows \(quarantine\.parquet has all of them\) or the flow, or raise quarantine\.maxRows and continue with --resume; the first are \S+rows\.parquet row group \d row \d+, in decodeMedia: .*; \S+rows\.parquet row group \d row \d+, in decodeMedia: /,
    );
    const [end] = only(events, 'end');
    expect(end).toMatchObject({ outcome: 'failed', error: error!.message });
    expect(only(events, 'checkpoint').at(-1)?.step).toBe(end!.steps);
    expect(await tableOf(outDir)).toHaveLength(only(events, 'quarantine').length);
    const more = await runJob({
      rows,
      sinks,
      batchSize: 2,
      outDir,
      resume: true,
      set: ['quarantine.maxRows=6'],
    });
    expect(more.error).toBeUndefined();
    expect((await tableOf(outDir)).map(({ row }) => Number(row)).sort((a, b) => a - b)).toEqual([
      1, 5, 9, 13, 17, 21,
    ]);
  });

  it('by their share fails from as many rows on as make one bad row none', async () => {
    const rows = spoil(await colourRows(40), 4, 1);
    const { error } = await runJob({ rows, set: ['quarantine.maxShare=0.1'] });
    expect(error?.message).toMatch(
      /^quarantine: expected at most 10 % of the rows \(quarantine\.maxShare\), received \d+ of the \d+ that came, [\d.]+ %; /,
    );
    const few = await runJob({ rows, set: ['quarantine.maxShare=0.1', 'quarantine.minRows=41'] });
    expect(few.error).toBeUndefined();
  });

  it('by default is one that loses more than a tenth of a hundred', async () => {
    const rows = spoil(await colourRows(120), 8, 1);
    expect((await runJob({ rows })).error?.message).toContain('at most 10 % of the rows');
    expect((await runJob({ rows: rows.slice(0, 90) })).error).toBeUndefined();
  });

  it('is told of wrong limits before it begins', async () => {
    const { error } = await runJob({ set: ['quarantine.maxShare=2', 'quarantine.rows=1'] });
    expect(error?.message).toMatch(/job\.ts: quarantine\.maxShare: .*received 2/);
    expect(error?.message).toContain('job.ts: quarantine.rows: expected a known key');
  });
});

describe('a clean set', () => {
  it('is trained with every row exactly once an epoch, in steps that do not mix epochs out of order', async () => {
    const numRows = 37;
    const file = writeRows(join(temporaryFolder(), 'clean.parquet'), await colourRows(numRows), 8);
    const pipeline = decodePipeline(
      {
        name: 'clean',
        model: gemma3n(modelFolder(), { weights: 'random' }),
        source: parquet<ColourRow>(file, { shuffle: { seed: 3 }, epochs: 3 }),
        flow: [map(conversation), decodeMedia(), encode({ maxTokens: 64 }), batch({ size: 5 })],
      },
      [],
      'clean.ts',
    );
    const processor = await loadProcessor(pipeline.model.path);
    const steps: string[][] = [];
    const device = {
      call: (name: string, given: readonly unknown[]): Promise<unknown> => {
        if (name === 'update') steps.push([...(given[0] as string[])]);
        return Promise.resolve({ step: steps.length });
      },
    };
    const sinks = { due: () => false, after: async () => {}, emit: () => {} };
    const loop = new TrainLoop({ device: device as never, sinks, maxSteps: 1000, accumulate: 2 });
    const { ledger } = await sampleFlow({
      ...trainingFlow(pipeline, processor),
      signal: new AbortController().signal,
      inFlight: 2,
      emit: () => {},
      log: () => {},
      consume: (each, context) => loop.consume(each, context),
    });
    await loop.finish('update');
    expect(ledger).toEqual({ issued: 3 * numRows, trained: 3 * numRows, dropped: 0, quarantined: 0 });
    const trained = steps.flat();
    const all = Array.from(
      { length: numRows },
      (_, row) => `${file} row group ${Math.floor(row / 8)} row ${row}`,
    );
    for (let epoch = 0; epoch < 3; epoch++) {
      const own = trained.slice(epoch * numRows, (epoch + 1) * numRows);
      expect(own.sort()).toEqual([...all].sort());
    }
  });

  it('of which one row in a hundred is damaged is trained without them, and each is named', async () => {
    const fixture = fileURLToPath(new URL('../../fixtures/easy-vqa/test.parquet', import.meta.url));
    const rows: ColourRow[] = [];
    for await (const item of parquet<{ images: { bytes: Uint8Array }[]; texts: { assistant: string }[] }>(
      fixture,
    ).open(new AbortController().signal)) {
      if ('error' in item) throw item.error;
      const { images, texts } = item.value;
      rows.push({ image: images[0]!.bytes, question: 'what is it?', answer: texts[0]!.assistant });
      if (rows.length === 200) break;
    }
    const damage = [
      (bytes: Uint8Array) => bytes.fill(0, 0, 8), // no signature
      (bytes: Uint8Array) => bytes.slice(0, bytes.length / 2), // cut off
    ];
    const damaged = rows.map((row, i) =>
      i % 100 === 37 ? { ...row, image: damage[Math.floor(i / 100)]!(row.image!.slice()) } : row,
    );
    const { events, result, error, outDir } = await runJob({ rows: damaged, batchSize: 10 });
    expect(error).toBeUndefined();
    expect(result!.end.ledger).toEqual({ issued: 200, trained: 198, dropped: 0, quarantined: 2 });
    const names = only(events, 'quarantine').map(({ row }) => row.replace(/^.*\//, ''));
    expect(names.sort()).toEqual(['rows.parquet row group 2 row 37', 'rows.parquet row group 8 row 137']);
    const table = await tableOf(outDir);
    expect(
      table.map(({ row, image }) => [Number(row), image]).sort(([a], [b]) => Number(a) - Number(b)),
    ).toEqual([37, 137].map((row) => [row, new Uint8Array(damaged[row]!.image!)]));
  });
});
