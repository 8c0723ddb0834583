// The plan of a run against the run: the same batches, the same faults, the same bytes; and scans that are kept.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import sharp from 'sharp';
import {
  type DecodedAudio,
  type PlanOptions,
  type Sample,
  adamw,
  adamw8bit,
  assistant,
  audio,
  batch,
  chat,
  checkpoints,
  constant,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  filter,
  flatMap,
  gemma3n,
  lora,
  map,
  mix,
  parquet,
  pipeline,
  planPipeline,
  rows,
  sft,
  tee,
  text,
  user,
} from '../../src/index.js';
import { loadProcessor } from '../../src/data/processor.js';
import type { Batch } from '../../src/data/types.js';
import { planText } from '../../src/report/plan-text.js';
import { rowName } from '../../src/train/events.js';
import { type Pipeline, decodePipeline } from '../../src/train/pipeline.js';
import { planDecoded } from '../../src/train/plan.js';
import { planStream } from '../../src/train/plan-stream.js';
import { sampleFlow } from '../../src/train/sample-flow.js';
import { IN_FLIGHT, trainingFlow } from '../../src/train/training.js';
import { bytesOf, wav } from '../audio/fixtures.js';
import { type ColourRow, colourRows, modelFolder, temporaryFolder, writeRows } from './job.js';
import { savedModel } from './saved-model.js';
import { conversation, jobSpec, runJob } from './run-job.js';

const signal = new AbortController().signal;
const step = (maxSteps: number, accumulate = 1) =>
  sft({ optimizer: adamw({ lr: 1e-3 }), schedule: constant(), maxSteps, accumulate });

/** A pipeline of the small job. */
function job(change: Record<string, unknown> = {}, file = rowsFile): object {
  return pipeline({
    name: 'job',
    model: gemma3n(modelFolder(), { weights: 'random' }),
    source: parquet<ColourRow>(file, { shuffle: { seed: 3 } }),
    flow: [map(conversation), decodeMedia(), encode({ maxTokens: 64 }), batch({ size: 4 })],
    step: step(1000),
    poolBytes: 2 ** 20,
    ...change,
  } as never);
}

const folder = temporaryFolder();
const rowsFile = writeRows(join(folder, 'rows.parquet'), await colourRows(40));
const base = await savedModel();
const plan = (spec: object, options: PlanOptions = {}) => planPipeline(spec, { cache: false, ...options });

/** Shapes, counts and rows of every batch as the run has them. */
async function realBatches(spec: object | Pipeline, maxBatches = Infinity) {
  const decoded = 'seed' in spec ? spec : decodePipeline(spec, [], 'job');
  const processor = await loadProcessor(decoded.model.path);
  const batches: { shape: readonly number[]; tokens: number; labels: number; rows: string[] }[] = [];
  const quarantined: { row: string; stage: string; error: string }[] = [];
  const summary = await sampleFlow({
    ...trainingFlow(decoded, processor),
    signal,
    emit: (event) => {
      if (event.event !== 'quarantine') return;
      const { row, stage, error } = event;
      quarantined.push({ row, stage, error });
    },
    log: () => undefined,
    consume: async (batch, context) => {
      batches.push({ ...shapeOf(batch), rows: context.origins.map(rowName) });
      if (batches.length >= maxBatches) context.stop();
    },
  });
  return { batches, quarantined, summary };
}

function shapeOf({ inputIds, numTokens: tokens, numLabels: labels }: Batch) {
  return { shape: inputIds.shape, tokens, labels };
}

/** The sums of batches as a plan tells them. */
function sumsOf(batches: Awaited<ReturnType<typeof realBatches>>['batches']) {
  const sum = (of: (one: (typeof batches)[number]) => number) =>
    batches.reduce((total, one) => total + of(one), 0);
  const tokens = sum((one) => one.tokens);
  return {
    batches: batches.length,
    samples: sum(({ rows }) => rows.length),
    tokens,
    paddedTokens: sum(({ shape }) => shape.reduce((product, n) => product * n, 1)) - tokens,
    labels: sum((one) => one.labels),
  };
}

describe('a plan', () => {
  it('has the batches of the run, sample by sample, in order, over epochs', async () => {
    const spec = job({ source: parquet(rowsFile, { shuffle: { seed: 3 }, epochs: 3 }) });
    const real = await realBatches(spec);
    const { training } = await plan(spec);
    expect(training).toMatchObject({ ...sumsOf(real.batches), items: 120, steps: 30, endsBy: 'source' });
    expect(training?.epoch).toEqual({ items: 40, samples: 40, tokens: training!.tokens / 3, batches: 10 });

    const decoded = decodePipeline(spec, [], 'job');
    const declared = trainingFlow(decoded, await loadProcessor(decoded.model.path));
    const { tally } = await planStream({
      ...{ declared, inFlight: IN_FLIGHT, wholeEpoch: true, thorough: false, cache: false, signal },
      ...{ modelFolder: decoded.model.path, code: '', userFolder: undefined, keepsOrigins: true },
    });
    expect(tally.origins.map(rowName)).toEqual(real.batches.flatMap(({ rows: names }) => names));
    expect(tally.batchSizes).toEqual(real.batches.map(({ rows: names }) => names.length));
  });

  it.each(['sft', 'scratch', 'audio', 'mixed'])(
    'has the batches of pipelines/%s.pipeline.ts',
    async (name) => {
      const { default: spec } = (await import(`../../pipelines/${name}.pipeline.ts`)) as { default: object };
      const decoded = decodePipeline(
        spec,
        ['step.maxSteps=3', 'step.schedule.warmup=0', 'sinks=[]', 'poolBytes=6000000'],
        name,
      );
      const real = await realBatches(decoded, 3);
      const { training } = await planDecoded(decoded, { cache: false, wholeEpoch: false });
      expect(training).toMatchObject({ ...sumsOf(real.batches), steps: 3, endsBy: 'maxSteps' });
      if (name !== 'mixed') return;
      expect(training?.mix?.map(({ weight }) => weight)).toEqual([2, 5, 1]);
      expect(training?.mix?.reduce((sum, { items }) => sum + items, 0)).toBe(96);
    },
  );

  it('is bounded by step.maxSteps times step.accumulate, and counts the epoch to its end', async () => {
    const { training } = await plan(job({ step: step(3, 2) }));
    expect(training).toMatchObject({ batches: 6, steps: 3, accumulate: 2, samples: 24, endsBy: 'maxSteps' });
    expect(training?.epoch).toMatchObject({ items: 40, batches: 10 });
    const short = await plan(job({ step: step(3, 2) }), { wholeEpoch: false });
    expect(short.training).toMatchObject({ batches: 6, epoch: null });
    const endless = await plan(job({ source: parquet(rowsFile, { epochs: Infinity }), step: step(12) }));
    expect(endless.training).toMatchObject({ batches: 12, epoch: { items: 40 } });
  });

  it('counts batches by tokens, drops, and samples that were made of one item, as the run does', async () => {
    const spec = job({
      flow: [
        map(conversation),
        filter((sample: Sample) => JSON.stringify(sample).length % 5 !== 0),
        flatMap((sample: Sample) => [sample, longer(sample)]),
        decodeMedia(),
        encode({ maxTokens: 64 }),
        batch({ tokens: 200, dropLast: true }),
      ],
    });
    const real = await realBatches(spec);
    const { training } = await plan(spec);
    expect(training).toMatchObject({
      ...sumsOf(real.batches),
      dropped: real.summary.ledger.dropped,
      items: 40,
    });
    expect(training!.dropped).toBeGreaterThan(0);
  });

  it('names the rows that the run will quarantine, with stage and reason', async () => {
    const good = await colourRows(24);
    const bad = good.map((row, i) => {
      if (i === 3) return { ...row, image: new Uint8Array([1, 2, 3]) };
      if (i === 9) return { ...row, image: row.image!.subarray(0, row.image!.length - 20) };
      if (i === 14) return { ...row, image: null };
      return i === 17 ? { ...row, question: 'why '.repeat(80) } : row;
    });
    const spec = job({}, writeRows(join(temporaryFolder(), 'bad.parquet'), bad));
    const real = await realBatches(spec);
    const { training } = await plan(spec);
    expect(training).toMatchObject({ ...sumsOf(real.batches), quarantined: 4 });
    const byRow = (rows: readonly { row: string }[]) => rows.toSorted((a, b) => (a.row < b.row ? -1 : 1));
    expect(byRow(training!.quarantinedRows)).toEqual(byRow(real.quarantined));
  });

  it('reads headers of large pictures alone, and finds corrupt pixels where it is thorough', async () => {
    const noise = { create: { width: 300, height: 200, channels: 3 as const, background: '#123456' } };
    const whole = await sharp(noise).jpeg().toBuffer();
    const cut = Buffer.from(whole.subarray(0, whole.length - 40));
    const spec = job({
      source: rows([whole, cut].map((bytes) => ({ image: bytes, question: 'what?', answer: 'red' }))),
      flow: [map(conversation), decodeMedia(), encode({ maxTokens: 64 }), batch({ size: 2 })],
    });
    const quick = await plan(spec);
    expect(quick.training).toMatchObject({ samples: 2, quarantined: 0, scan: { media: 'headers' } });
    const thorough = await plan(spec, { thorough: true });
    expect(thorough.training).toMatchObject({ samples: 1, quarantined: 1, scan: { media: 'decoded' } });
    const real = await realBatches(spec);
    // libvips tells the same damage in more than one way.
    const told = [
      { ...real.quarantined[0], error: expect.stringContaining('a whole, intact JPEG') as string },
    ];
    expect(thorough.training!.quarantinedRows).toEqual(told);
  });

  it('has the clips of the run, from their headers, and decodes them for a function that takes samples', async () => {
    const clips = [0.4, 1.1, 0.7].map((seconds) => ({ clip: wav(bytesOf(tone(seconds))), said: 'red' }));
    const heard = (row: { clip: Uint8Array; said: string }) =>
      chat(user(audio(row.clip)), assistant(text(row.said)));
    const model = gemma3n('fixtures/tiny-gemma3n');
    const flow = [map(heard), decodeMedia(), encode(), batch({ size: 2 })];
    const spec = job({ model, source: rows(clips), flow });
    const real = await realBatches(spec);
    const { training } = await plan(spec);
    expect(training).toMatchObject({ ...sumsOf(real.batches), clips: 3, scan: { media: 'headers' } });
    expect(training!.soundSeconds).toBeCloseTo(2.13, 2);
    const cacheFolder = temporaryFolder();
    const planned = async () => (await planPipeline(spec, { cacheFolder })).training!;
    const { scan, ...first } = await planned();
    const { scan: again, ...second } = await planned();
    expect([scan.from, again.from]).toEqual(['data', 'cache']);
    expect(second).toEqual(first);

    const lengths: number[] = [];
    const look = (sample: Sample) => {
      const part = sample.messages[0]!.content[0]! as { audio: DecodedAudio };
      lengths.push(Math.max(...part.audio.data));
      return sample;
    };
    const looked = await plan(
      job({ model, source: rows(clips), flow: [flow[0], flow[1], map(look), flow[2], flow[3]] }),
    );
    expect(lengths.every((loudest) => loudest > 0.1)).toBe(true);
    expect(looked.training?.notes).toContain('all media are decoded, since map takes them decoded');
  });

  it('foretells the peak of bytes within 10 %, however small the pool', async () => {
    for (const poolBytes of [2 ** 19, 2 ** 23]) {
      const change = { poolBytes };
      const spec = job({ ...change, source: parquet(rowsFile, { epochs: 2 }) });
      const { result } = await runJob({
        rows: await colourRows(40),
        epochs: 2,
        change: (declared) => ({ ...declared, ...change }),
      });
      const { training } = await plan(spec);
      expect(training!.peakBytes / result!.end.peakBytes).toBeGreaterThan(0.9);
      expect(training!.peakBytes / result!.end.peakBytes).toBeLessThan(1.1);
      expect(training!.stages.map(({ name }) => name)).toEqual([
        'parquet',
        'map',
        'decodeMedia',
        'encode',
        'batch',
        'device',
      ]);
    }
  });

  it.each([
    ['all that learns', {}],
    [
      'an adapter, an average and 8-bit states',
      {
        model: gemma3n(base, {
          dtype: 'bfloat16',
          adapter: lora({ rank: 4, alpha: 8, init: 'gaussian' }),
        }),
        step: sft({
          optimizer: adamw8bit({ lr: 1e-3 }),
          schedule: constant(),
          maxSteps: 3,
          ema: { decay: 0.9 },
        }),
      },
    ],
  ])('counts the copy that a checkpoint takes, without a device, of %s', async (_what, change) => {
    const { result } = await runJob({
      maxSteps: 3,
      sinks: [checkpoints({ every: 2 })],
      change: (declared) => ({ ...declared, ...change }),
    });
    const declared = { ...(await jobSpec({ maxSteps: 3, sinks: [checkpoints({ every: 2 })] })), ...change };
    const { training } = await plan(declared);
    expect(training!.checkpointBytes).toBe(result!.end.peakCheckpointBytes);
    expect(training!.wholePeakBytes).toBe(training!.peakBytes + training!.checkpointBytes!);
    expect(training!.checkpointBytes).toBeGreaterThan(0);
    const without = await plan({ ...declared, sinks: [] });
    expect(without.training).toMatchObject({
      checkpointBytes: 0,
      wholePeakBytes: without.training!.peakBytes,
    });
  });

  it('refuses a pool that is too small, with the numbers, and data that give nothing', async () => {
    await expect(plan(job({ poolBytes: 100_000 }))).rejects.toThrow(
      /pool of 100000 bytes: expected at least 1\d+ bytes, since batch holds up to 4 items of up to \d+ bytes/,
    );
    await expect(
      plan(
        job({
          flow: [map(conversation), decodeMedia(), encode(), batch({ tokens: 4000 })],
          poolBytes: 120_000,
        }),
      ),
    ).rejects.toThrow(/pool of 120000 bytes: expected room for \d+ bytes/);
    await expect(plan(job({}, join(folder, 'none.parquet')))).rejects.toThrow('none.parquet');
    const none = job({ flow: [filter(() => false), map(conversation), encode(), batch({ size: 2 })] });
    await expect(plan(none)).rejects.toThrow(
      'expected at least one sample, received 0 that were quarantined and 40 that were dropped',
    );
  });

  it('plans evaluations as well, up to their limit, and says which never ends', async () => {
    const held = (options: object) =>
      evaluation({ source: parquet(rowsFile), scores: [exactMatch()], ...options });
    const { evaluations, training } = await plan(
      job({ sinks: [held({ name: 'all' }), held({ limit: 6 })], step: undefined }),
    );
    expect(training).toBeNull();
    expect(evaluations).toMatchObject([
      { name: 'all', samples: 40, batches: 10, labels: 0 },
      { name: 'eval', samples: 8, batches: 2 },
    ]);
    const endless = job({ sinks: [held({ source: parquet(rowsFile, { epochs: Infinity }) })] });
    await expect(plan(endless)).rejects.toThrow(
      'eval: source.epochs: expected a number, since nothing else ends it',
    );
  });

  it('shows nothing to a tee, and counts what each source of a mix gives', async () => {
    const seen: unknown[] = [];
    const source = mix([{ source: parquet(rowsFile), weight: 3 }, { source: parquet(rowsFile) }], {
      stop: 'first',
    });
    const { training } = await plan(
      job({
        source,
        flow: [
          map(conversation),
          tee({ write: (value) => void seen.push(value) }),
          encode(),
          batch({ size: 4 }),
        ],
      }),
    );
    expect(seen).toEqual([]);
    const [most, least] = training!.mix!;
    expect(most!.items + least!.items).toBe(training!.items);
    expect(most!.share).toBeGreaterThan(least!.share);
  });

  it('foretells the first wait of the step with its row, and refuses a stage that is none', async () => {
    const options = { stepMs: 10, stageMs: { decodeMedia: 40, encode: 1 } };
    const { training } = await plan(job(), options);
    expect(training!.stalls).toMatchObject({
      limit: 'decodeMedia',
      first: { batch: 2, stage: 'decodeMedia' },
    });
    expect(training!.stalls!.first!.row).toMatch(/rows\.parquet row group \d row \d+$/);
    expect(training!.stalls!.waitShare).toBeCloseTo(30 / 40, 1);
    await expect(plan(job(), { stepMs: 10, stageMs: { decode: 4 } })).rejects.toThrow(
      'stageMs: expected stages before the batch: map, decodeMedia, encode, received decode',
    );
  });

  it('reads well', async () => {
    const told = planText(await plan(job({ sinks: [] }), { stepMs: 10 }))
      .replaceAll(folder, 'DATA')
      .replace(/\d+\.\d\d s$/m, 'N s');
    expect(told.split('\n').map((line) => line.trimEnd())).toEqual([
      'job: training',
      '  epoch        40 items, 40 samples, 10 batches',
      '  in all       40 items, 40 samples, 10 batches',
      '  steps        10: the data end before step.maxSteps, 1,000',
      '  stalls       none; in the long run 0.0 % of the time',
      '  first batch  after 0.0 ms; a step takes 10 ms',
      expect.stringMatching(/^ {2}tokens {7}[\d,]+, and \d+ of padding \(\d\.\d %\)$/),
      '  labels       80',
      '  media        40 images',
      expect.stringMatching(/^ {2}longest {6}\d+ tokens: DATA\/rows\.parquet row group \d row \d+$/),
      expect.stringMatching(/^ {2}pool {9}1\.0 MiB; batch holds up to 4 items of up to \d+ bytes$/),
      expect.stringMatching(
        /^ {2}peak {9}[\d.]+ [KM]iB in all; parquet .* KiB, map .*, decodeMedia .*, encode .*, batch .*, device .*$/,
      ),
      '  scan         40 samples read from the data, headers of media only, N s',
    ]);
  });
});

describe('a scan', () => {
  const kept = temporaryFolder();
  const file = writeRows(join(kept, 'rows.parquet'), []);
  const place = join(kept, '.sluice');
  const scans = () => fs.readdirSync(place).map((name) => join(place, name));
  const write = async (count: number) => {
    fs.rmSync(place, { recursive: true, force: true });
    writeRows(file, await colourRows(count));
  };
  const planned = async (change: Record<string, unknown> = {}, options: PlanOptions = {}) =>
    (await planPipeline(job(change, file), options)).training!;
  afterAll(() => fs.chmodSync(kept, 0o755));

  it('is kept beside the data, and serves plans with other batches and pools', async () => {
    await write(20);
    const first = await planned();
    expect(first.scan).toMatchObject({ from: 'data', samples: 20, path: scans()[0] });
    const again = await planned();
    expect(again.scan).toMatchObject({ from: 'cache', samples: 20, path: first.scan.path });
    expect({ ...again, scan: 0 }).toEqual({ ...first, scan: 0 });
    const other = {
      flow: [map(conversation), decodeMedia(), encode({ maxTokens: 64 }), batch({ tokens: 300 })],
      poolBytes: 2 ** 21,
    };
    const spec = job(other, file);
    const { training } = await planPipeline(spec);
    expect(training).toMatchObject({ ...sumsOf((await realBatches(spec)).batches), scan: { from: 'cache' } });
    expect(scans()).toHaveLength(1);
  });

  it('is made anew when data, functions, order or depth change', async () => {
    await write(20);
    await planned();
    const other = (row: ColourRow) => conversation({ ...row, question: 'and now?' });
    const flow = [map(other), decodeMedia(), encode({ maxTokens: 64 }), batch({ size: 4 })];
    expect((await planned({ flow })).scan.from).toBe('data');
    expect((await planned({ source: parquet(file, { shuffle: { seed: 4 } }) })).scan.from).toBe('data');
    expect((await planned({}, { thorough: true })).scan.from).toBe('data');
    expect((await planned({}, { code: 'changed' })).scan.from).toBe('data');
    expect((await planned()).scan.from).toBe('cache');
    writeRows(file, await colourRows(24));
    expect((await planned()).scan).toMatchObject({ from: 'data', samples: 24 });
  });

  it('that ends too early is read on', async () => {
    await write(40);
    const short = await planned({ step: step(1), poolBytes: 2 ** 19 }, { wholeEpoch: false });
    expect(short.scan.samples).toBeLessThan(40);
    const long = await planned();
    expect(long.scan).toMatchObject({ from: 'both', samples: 40 });
    expect((await planned()).scan.from).toBe('cache');
    expect({ ...long, scan: 0 }).toEqual({ ...(await planned()), scan: 0 });
  });

  it('that is damaged is made anew', async () => {
    await write(12);
    const { scan } = await planned();
    const text = fs.readFileSync(scan.path!, 'utf8');
    const damage = [
      '',
      '{',
      'null',
      text.slice(0, 200),
      text.replace('"format":1', '"format":2'),
      text.replace('"length":12', '"length":1000000000000'),
      text.replace(/"tokens":\{"runs":\[\d+/, '"tokens":{"runs":[-5'),
      text.replace(/"labels":\{"runs":\[\d+/, '"labels":{"runs":[900'),
      text.replace('"texts":["', '"texts":[7,"'),
      text.replace(/"weight0":.*?[\]}]/, '"weight0":["a"]'),
    ];
    for (const bad of damage) {
      expect(bad).not.toBe(text);
      fs.writeFileSync(scan.path!, bad);
      expect((await planned()).scan).toMatchObject({ from: 'data', samples: 12 });
    }
    expect(fs.readFileSync(scan.path!, 'utf8')).toBe(text);
  });

  it('goes to the other folder where the data cannot be written beside', async () => {
    await write(12);
    fs.writeFileSync(place, 'a file in its place');
    const cacheFolder = temporaryFolder();
    const { scan } = await planned({}, { cacheFolder });
    expect(scan.path).toBe(join(cacheFolder, fs.readdirSync(cacheFolder)[0]!));
    expect((await planned({}, { cacheFolder })).scan.from).toBe('cache');
    expect((await planned()).notes).toContain(
      'the scan is not kept: it is too large, or no folder for it can be written',
    );
  });

  it('is not kept of a source that cannot tell its data from others', async () => {
    const origin = { file: 'mine', rowGroup: 0, row: 0 };
    const value = (await colourRows(1))[0]!;
    const source = {
      name: 'mine',
      open: async function* () {
        yield { value, bytes: 300, origin };
      },
    };
    const { training } = await planPipeline(job({ source }), { cacheFolder: temporaryFolder() });
    expect(training!.scan).toMatchObject({ from: 'data', samples: 1, path: null });
  });
});

function longer(sample: Sample): Sample {
  return {
    messages: [...sample.messages, ...chat(user(text('and again?')), assistant(text('blue'))).messages],
  };
}

function tone(seconds: number): Int16Array {
  return Int16Array.from({ length: Math.round(16_000 * seconds) }, (_, i) => 16_000 * Math.sin(i / 10));
}
