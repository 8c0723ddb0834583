// Whole runs: every sample accounted for, whatever happens.

import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  checkpoints,
  evaluation,
  exactMatch,
  metrics,
  parquet,
  promptAlone,
  report,
} from '../../src/index.js';
import { definePart } from '../../src/parts.js';
import { z } from '../../src/schema.js';
import type { Sink } from '../../src/train/sink.js';
import { type ColourRow, colourRows, metricsOf, temporaryFolder, writeRows } from './job.js';
import { only, runJob } from './run-job.js';

describe('a run', () => {
  it('quarantines rows that cannot be used, by name and reason, and trains on the others', async () => {
    const rows = await colourRows(12);
    const png = rows[7]!.image!;
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
    const spoilt: Record<number, Partial<ColourRow>> = {
      1: { image: Uint8Array.from([1, 2, 3, 4]) },
      3: { image: null },
      5: { image: Buffer.from(svg) },
      7: { image: png.slice(0, png.length - 30) },
      9: { question: null },
    };
    const held = writeRows(join(temporaryFolder(), 'held.parquet'), rows.slice(0, 6));
    const { outDir, events, result, error } = await runJob({
      rows: rows.map((row, i) => ({ ...row, ...spoilt[i] })),
      sinks: [
        metrics(),
        evaluation({
          every: 1,
          source: parquet<ColourRow>(held),
          scores: [exactMatch({ by: 'kind' }), promptAlone()],
          maxNewTokens: 2,
          limitOnTheWay: 3,
          poolBytes: 2 ** 20,
        }),
        report(),
      ],
    });
    expect(error).toBeUndefined();

    const quarantined = only(events, 'quarantine');
    expect(quarantined.map(({ row }) => row.replace(/^.*\//, '')).sort()).toEqual(
      [1, 3, 5, 7, 9].map((row) => `rows.parquet row group 0 row ${row}`),
    );
    const reasonOf = (row: number) => quarantined.find((event) => event.row.endsWith(` row ${row}`))!;
    expect(reasonOf(1)).toMatchObject({ stage: 'decodeMedia', error: /expected .*image.*received/ });
    expect(reasonOf(3)).toMatchObject({
      stage: 'map',
      error: /^image: expected an image's bytes.*received null/,
    });
    expect(reasonOf(5).error).toMatch(/SVG/);
    expect(reasonOf(7)).toMatchObject({ stage: 'decodeMedia' });
    expect(reasonOf(9)).toMatchObject({ stage: 'map', error: /^text: expected a string, received null/ });

    const steps = only(events, 'step');
    expect(steps.map(({ step, samples, images }) => [step, samples, images])).toEqual([
      [1, 4, 4],
      [2, 3, 3],
    ]);
    expect(result!.end).toMatchObject({
      outcome: 'complete',
      steps: 2,
      ledger: { issued: 12, trained: 7, dropped: 0, quarantined: 5 },
    });
    expect(result!.end.peakBytes).toBeGreaterThan(0);

    const { time, waits, waitMs, slowest, seconds, feed } = result!.end;
    const { setup, compute, wait, sinks, other } = time;
    expect(setup + compute + wait + sinks + other).toBeCloseTo(1000 * seconds, 6);
    expect(Math.min(setup, compute, wait, sinks)).toBeGreaterThan(0);
    expect(other).toBeGreaterThan(-5);
    expect(compute).toBeCloseTo(
      steps.reduce((sum, { stepMs }) => sum + stepMs, 0),
      6,
    );
    expect(Object.values(waits).reduce((sum, ms) => sum + ms, 0)).toBeCloseTo(waitMs, 6);
    expect(slowest[0]!.ms).toBe(Math.max(...slowest.map(({ ms }) => ms)));
    expect(steps[0]!.slowest).toMatchObject({ stage: expect.any(String) as string });
    expect(feed!.tokensPerSecond).toBeLessThanOrEqual(feed!.withoutWaits * 1.1);

    const evals = only(events, 'eval');
    expect(evals.map(({ step, name, count }) => [step, name, count])).toEqual([
      [1, 'eval', 3],
      [2, 'eval', 3],
      [2, 'eval', 6],
    ]);
    // of six answers red, blue, green, black, red, blue to one question the commonest is right twice
    expect(evals[2]!.scores).toMatchObject({ promptAlone: 2 / 6, exactMatch: expect.any(Number) as number });
    const [answers] = only(events, 'answers').slice(-1);
    expect(answers!.answers).toHaveLength(6);
    expect(answers!.answers[0]).toMatchObject({ prompt: 'what color is the shape?', reference: 'red' });

    expect(metricsOf(outDir).map(({ event }) => event)).toEqual(
      events.filter(({ event }) => event !== 'answers').map(({ event }) => event),
    );
    const page = readFileSync(join(outDir, 'report.html'), 'utf8');
    expect(page).toContain('5 quarantined rows');
    expect(page).toContain('data:image/png;base64,');
  });

  it('counts what is on its way at maxSteps as dropped', async () => {
    const { events, result } = await runJob({ maxSteps: 2, batchSize: 2 });
    const { issued, trained, dropped, quarantined } = result!.end.ledger;
    expect([trained, quarantined]).toEqual([4, 0]);
    expect(issued).toBe(trained + dropped + quarantined);
    expect(only(events, 'step')).toHaveLength(2);
  });

  it('accumulates: the last, smaller step too', async () => {
    const { events } = await runJob({ batchSize: 2, accumulate: 4 });
    expect(only(events, 'step').map(({ step, samples }) => [step, samples])).toEqual([
      [1, 8],
      [2, 4],
    ]);
  });
});

describe('a run that fails', () => {
  it('for lack of any usable sample says how many there were and why, and still writes the report', async () => {
    const rows = (await colourRows(5)).map((row) => ({ ...row, image: Uint8Array.of(0) }));
    const { outDir, error, events } = await runJob({ rows, sinks: [metrics(), checkpoints(), report()] });
    expect(error?.name).toBe('DataError');
    expect(error?.message).toMatch(
      /^source: expected at least one sample to train on, received 5, of which 5 were quarantined and 0 dropped; check the files of the source and the filters of the flow; the first one is .*rows\.parquet row group 0 row \d, in decodeMedia: /,
    );
    expect(only(events, 'end')).toMatchObject([
      { outcome: 'failed', error: error!.message, ledger: { issued: 5, trained: 0, quarantined: 5 } },
    ]);
    expect(readdirSync(outDir).sort()).toEqual([
      'metrics.jsonl',
      'quarantine.jsonl',
      'quarantine.parquet',
      'report.html',
    ]);
    expect(readFileSync(join(outDir, 'report.html'), 'utf8')).toContain('at least one sample to train on');
  });

  it('for a loss that is not finite names step and rows, and leaves the last checkpoint', async () => {
    const set = ['step.optimizer.lr=1e30'];
    const sinks = [metrics(), checkpoints({ every: 1 }), report()];
    const { outDir, error, events } = await runJob({ set, sinks, batchSize: 2 });
    expect(error?.name).toBe('TrainError');
    expect(error?.message).toMatch(
      /^step 2, (loss|gradient norm): expected a finite number, received (NaN|-?Infinity); the model was not updated and the last checkpoint is intact; .* rows of this step: \S+rows\.parquet row group 0 row \d+, \S+rows\.parquet row group 0 row \d+; the first module whose result is not finite is model\.\S+ .*/,
    );
    expect(only(events, 'step').map(({ step }) => step)).toEqual([1]);
    expect(only(events, 'end')[0]).toMatchObject({ outcome: 'failed', steps: 1, ledger: { trained: 2 } });
    expect(readdirSync(outDir).sort()).toEqual(['checkpoint-1', 'metrics.jsonl', 'report.html']);
  });

  it('for a full disk under metrics.jsonl names the file, and ends the other sinks', async () => {
    const outDir = temporaryFolder();
    symlinkSync('/dev/full', join(outDir, 'metrics.jsonl'));
    const { error } = await runJob({ outDir, sinks: [metrics(), report()] });
    expect(error?.message).toBe(
      `${outDir}/metrics.jsonl: expected room to write, received ENOSPC: no space left on device, write; free space or ` +
        'choose another --out',
    );
    expect(readFileSync(join(outDir, 'report.html'), 'utf8')).toContain('ENOSPC');
  });

  it('for a sink that throws names the sink, and tells the others', async () => {
    const seen: string[] = [];
    const spoilt = sinkPart('spoilt', {
      onEvent: ({ event }) => {
        if (event === 'step') throw new RangeError('too much');
      },
      close: () => void seen.push('spoilt closed'),
    });
    const other = sinkPart('other', {
      onEvent: ({ event }) => void seen.push(event),
      end: async (lastStep, outcome) => void seen.push(`${outcome} at ${lastStep}`),
      close: () => void seen.push('closed'),
    });
    const { error } = await runJob({ maxSteps: 2, sinks: [spoilt(), other()] });
    expect(error?.message).toBe(
      'sink spoilt: expected it to take what it is given, received too much; see the cause, or leave the sink out',
    );
    expect(error?.cause).toBeInstanceOf(RangeError);
    expect(seen.slice(0, 3)).toEqual(['model', 'warning', 'step']);
    expect(seen.slice(2).filter((each) => each !== 'step')).toEqual([
      expect.stringMatching(/^failed at [12]$/),
      'end',
      'closed',
      'spoilt closed',
    ]);
  });

  it('for an evaluation without answers says so', async () => {
    const rows = (await colourRows(2)).map((row) => ({ ...row, image: null }));
    const held = writeRows(join(temporaryFolder(), 'held.parquet'), rows);
    const source = parquet<ColourRow>(held);
    const { error } = await runJob({
      maxSteps: 1,
      sinks: [checkpoints(), evaluation({ name: 'held', source, scores: [exactMatch()] })],
    });
    expect(error?.message).toBe(
      'held: expected at least one sample to evaluate on, received 2, of which 2 were quarantined and none has an ' +
        "answer; check the evaluation's source and flow: its samples end in an assistant's turn",
    );
  });
});

describe('a run in a folder that was used before', () => {
  it('puts aside what it would mix with, and leaves the rest', async () => {
    const outDir = temporaryFolder();
    const old = join(outDir, 'checkpoint-900');
    mkdirSync(old);
    for (const name of ['state.json', 'optimizer.safetensors', 'model.safetensors'])
      writeFileSync(join(old, name), '');
    writeFileSync(join(outDir, 'metrics.jsonl'), 'old\n');
    writeFileSync(join(outDir, 'notes.txt'), 'mine');
    const { error, lines } = await runJob({
      outDir,
      maxSteps: 1,
      sinks: [metrics(), checkpoints(), report()],
    });
    expect(error).toBeUndefined();
    expect(lines).toContain(`what an earlier run left was moved to ${outDir}/earlier-1`);
    expect(readdirSync(join(outDir, 'earlier-1')).sort()).toEqual(['checkpoint-900', 'metrics.jsonl']);
    expect(readdirSync(outDir).sort()).toEqual([
      'checkpoint-1',
      'earlier-1',
      'metrics.jsonl',
      'notes.txt',
      'report.html',
    ]);
    expect(metricsOf(outDir).find(({ event }) => event === 'step')).toMatchObject({ step: 1 });
    expect(metricsOf(outDir)[0]).toMatchObject({ event: 'model' });
    expect(existsSync(join(outDir, 'checkpoint-1', 'config.json'))).toBe(true);
  });
});

function sinkPart(name: string, methods: Omit<Sink, 'name'>) {
  return definePart({
    role: 'sink',
    kind: name,
    schema: z.strictObject({}),
    create: (): Sink => ({ name, ...methods }),
  });
}
