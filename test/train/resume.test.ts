// Runs that are stopped and continued: the end is that of a run that was never stopped, bit for bit.

import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkpoints, evaluation, exactMatch, metrics, parquet, report } from '../../src/index.js';
import { type ColourRow, colourRows, metricsOf, temporaryFolder, writeRows } from './job.js';
import { type JobOptions, only, runJob } from './run-job.js';

const stopped = new Error('enough');

/** Runs until a step's event has come, then stops. */
function stoppingAfter(step: number, options: JobOptions = {}) {
  const controller = new AbortController();
  return runJob({
    ...options,
    signal: controller.signal,
    onEvent: (event) => {
      if (event.event === 'step' && event.step === step) controller.abort(stopped);
    },
  });
}

/** Digests of what a checkpoint holds. */
const filesOf = (folder: string, step: number) =>
  ['model.safetensors', 'optimizer.safetensors', 'state.json'].map((name) => {
    const bytes = readFileSync(join(folder, `checkpoint-${step}`, name));
    return [name, createHash('sha256').update(bytes).digest('hex')];
  });

describe('a run that was stopped', () => {
  it('goes on from its checkpoint as if nothing had been', async () => {
    // 20 samples an epoch in batches of 3, two a step: steps reach over the end of an epoch
    const job = { rows: await colourRows(20), epochs: 2, batchSize: 3, accumulate: 2, maxSteps: 6 };
    const whole = await runJob({ ...job, sinks: [metrics(), checkpoints()] });
    expect(only(whole.events, 'step')).toHaveLength(6);

    const outDir = temporaryFolder();
    const sinks = [metrics(), checkpoints(), report()];
    const first = await stoppingAfter(2, { ...job, sinks, outDir });
    expect(first.error).toBe(stopped);
    const [end] = only(first.events, 'end');
    expect(end!.outcome).toBe('stopped');
    const at = end!.steps;
    expect(at).toBeGreaterThanOrEqual(2);
    expect(at).toBeLessThan(6);
    // what was accumulated of a step that was given up is no part of it
    expect(end!.ledger.trained).toBe(at * 6);
    expect(end!.ledger.issued).toBe(end!.ledger.trained + end!.ledger.dropped);
    expect(only(first.events, 'checkpoint')).toMatchObject([
      { step: at, path: join(outDir, `checkpoint-${at}`) },
    ]);

    // as a run that was killed two steps later would leave it
    appendFileSync(join(outDir, 'metrics.jsonl'), `{"event":"step","step":${at + 1}}\n{"event":"st`);
    const second = await runJob({ ...job, sinks, outDir, resume: true });
    expect(second.error).toBeUndefined();
    expect(second.lines[0]).toBe(`continuing after step ${at} from ${outDir}/checkpoint-${at}`);
    expect(second.result!.end).toMatchObject({ outcome: 'complete', steps: 6, ledger: { trained: 36 } });

    const curve = (events: readonly object[]) =>
      (events as ReturnType<typeof metricsOf>)
        .filter(({ event }) => event === 'step')
        .map(({ step, loss, gradNorm, lr, samples }) => [step, loss, gradNorm, lr, samples]);
    expect(curve(second.events)).toEqual(curve(whole.events).slice(at));
    expect(curve(metricsOf(outDir))).toEqual(curve(whole.events));
    expect(filesOf(outDir, 6)).toEqual(filesOf(whole.outDir, 6));
    const page = readFileSync(join(outDir, 'report.html'), 'utf8');
    const charts = /id="data">(.*?)<\/script>/s.exec(page)![1]!;
    expect((JSON.parse(charts) as { data: number[][] }[])[0]!.data[0]).toEqual([1, 2, 3, 4, 5, 6]);

    const third = await runJob({ ...job, sinks, outDir, resume: true });
    expect(third.error).toBeUndefined();
    expect(third.lines).toContain('step 6 was the last one: nothing is left to train');
    expect(only(third.events, 'step')).toEqual([]);
  });

  it('before its first step goes on from there, the start of its projector included', async () => {
    const job = { maxSteps: 2 };
    const whole = await runJob({ ...job, sinks: [checkpoints()] });
    const outDir = temporaryFolder();
    const before = await runJob({ ...job, outDir, signal: AbortSignal.abort(stopped) });
    expect(before.error).toBe(stopped);
    expect(readdirSync(outDir)).toEqual(['checkpoint-0']);
    const after = await runJob({ ...job, sinks: [checkpoints()], outDir, resume: true });
    expect(after.error).toBeUndefined();
    expect(filesOf(outDir, 2)).toEqual(filesOf(whole.outDir, 2));
  });

  it('during an evaluation leaves it, and writes a checkpoint', async () => {
    const held = writeRows(join(temporaryFolder(), 'held.parquet'), await colourRows(200));
    const source = parquet<ColourRow>(held);
    const watch = { name: 'held', every: 2, source, scores: [exactMatch()], maxNewTokens: 200 };
    const begun = performance.now();
    const controller = new AbortController();
    const { error, events } = await runJob({
      sinks: [evaluation(watch)],
      signal: controller.signal,
      onEvent: ({ event, ...rest }) => {
        if (event === 'step' && (rest as { step: number }).step === 2)
          setTimeout(() => controller.abort(stopped), 300);
      },
    });
    expect(error).toBe(stopped);
    expect(only(events, 'eval')).toEqual([]);
    expect(only(events, 'checkpoint')).toMatchObject([{ step: 2 }]);
    expect(performance.now() - begun).toBeLessThan(10_000);
  });

  it('without a checkpoint cannot be continued', async () => {
    const { outDir, error } = await runJob({ resume: true });
    expect(error?.name).toBe('ConfigError');
    expect(error?.message).toBe(
      `--resume: expected a complete checkpoint in ${outDir}, received none; leave out --resume to start anew, or give ` +
        'the --out of the run to continue',
    );
  });

  it('is not continued with other data, another order or another flow, unless it must', async () => {
    const job = { rows: await colourRows(8), maxSteps: 3, batchSize: 2, sinks: [checkpoints()] };
    const { outDir, checkpointDir } = await runJob(job).then((run) => ({
      ...run,
      checkpointDir: join(run.outDir, 'checkpoint-3'),
    }));
    const more = { ...job, outDir, resume: true, maxSteps: 5 };
    const changed = async (change: JobOptions): Promise<string | undefined> =>
      (await runJob({ ...more, ...change })).error?.message;
    const refusal = (what: string): string =>
      `--resume: expected what ${checkpointDir} was trained with, received changes of ${what}; undo them, or go on ` +
      'regardless with --resume-anyway, at the same number of items into the new stream';

    expect(await changed({ rows: await colourRows(9) })).toBe(refusal("the source's files"));
    expect(await changed({ batchSize: 3 })).toBe(refusal('the flow'));
    expect(await changed({ epochs: 7 })).toBe(refusal("the source's options"));
    expect(await changed({ accumulate: 2 })).toBe(refusal('step.accumulate'));

    const anyway = await runJob({ ...more, batchSize: 3, resumeAnyway: true });
    expect(anyway.error).toBeUndefined();
    expect(anyway.lines).toContain(
      'continuing in spite of changes of the flow: not as a run without a break would',
    );
    expect(only(anyway.events, 'step').map(({ step }) => step)).toEqual([4]);
  });

  it('cannot be continued with a stream that has become shorter', async () => {
    const { outDir } = await runJob({ maxSteps: 3, batchSize: 2, sinks: [checkpoints()] });
    const shorter = { outDir, resume: true, resumeAnyway: true, rows: await colourRows(3), batchSize: 2 };
    expect((await runJob(shorter)).error?.message).toBe(
      'source parquet, item 5: expected an item, where the run stood that is continued, received the end of the ' +
        'source; continue with the same files, seed and options of the source',
    );
  });
});
