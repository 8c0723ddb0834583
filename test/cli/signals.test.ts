// Signals during a run, and what a run that is killed leaves.

import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eventsIn, metricsOf, temporaryFolder } from '../train/job.js';
import { type Started, pipelineFile, start } from './spawn.js';

/** A run of some thousand steps. */
async function longRun(sinks: string): Promise<Started & { out: string; file: string }> {
  const file = await pipelineFile({ rows: 64, epochs: 500, sinks });
  const out = temporaryFolder();
  return { ...start(['run', file, '--json', '--out', out]), out, file };
}

const isCheckpoint = (out: string, step: number) =>
  ['model.safetensors', 'optimizer.safetensors', 'state.json', 'config.json'].every((name) =>
    existsSync(join(out, `checkpoint-${step}`, name)),
  );

async function withinTenSeconds(run: Started) {
  const begun = performance.now();
  const ended = await run.ended;
  expect(performance.now() - begun).toBeLessThan(10_000);
  return ended;
}

describe('a run that gets', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s while it trains writes a checkpoint and leaves with %i', async (signal, code) => {
    const run = await longRun('metrics(), checkpoints({ keep: 1 }), report()');
    await run.saw('"step":3,');
    run.child.kill(signal);
    expect(await withinTenSeconds(run)).toEqual({ code, signal: null });
    const end = eventsIn(run.output.stdout).at(-1) as unknown as { outcome: string; steps: number };
    expect(end.outcome).toBe('stopped');
    expect(isCheckpoint(run.out, end.steps)).toBe(true);
    expect(run.output.stderr).toContain(`Stopped by ${signal}`);
    expect(readFileSync(join(run.out, 'report.html'), 'utf8')).toContain('stopped by a signal after');
  });

  it('SIGTERM during an evaluation writes a checkpoint and leaves with 143', async () => {
    // the evaluation is slow: every sample waits a second before it is decoded
    const file = await pipelineFile({
      rows: 64,
      preamble: `
import { orderedMap } from 'sluice';
const slow = orderedMap(async (row: Row) => {
  console.log('evaluating');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return chat(user(image(row.image), text(row.question)), assistant(text(row.answer)));
}, { concurrency: 1 });`,
      sinks: `evaluation({ every: 1, source: parquet(ROWS), scores: [exactMatch()],
        flow: [slow, decodeMedia(), encode({ maxTokens: 64 }), batch({ size: 4 })] })`,
    });
    const out = temporaryFolder();
    const run = start(['run', file, '--json', '--out', out]);
    await run.saw('evaluating');
    run.child.kill('SIGTERM');
    expect(await withinTenSeconds(run)).toEqual({ code: 143, signal: null });
    expect(eventsIn(run.output.stdout).map(({ event }) => event)).toEqual([
      ...['model', 'warning'],
      ...['step', 'checkpoint', 'end'],
    ]);
    expect(isCheckpoint(out, 1)).toBe(true);
  });

  it('SIGINT before its first step writes a checkpoint to go on from', async () => {
    const file = await pipelineFile({
      preamble: 'setTimeout(() => process.kill(process.pid, "SIGINT"), 0);',
      sinks: 'metrics()',
    });
    const out = temporaryFolder();
    const run = start(['run', file, '--json', '--out', out]);
    expect(await withinTenSeconds(run)).toEqual({ code: 130, signal: null });
    expect(isCheckpoint(out, 0)).toBe(true);
    writeFileSync(file, readFileSync(file, 'utf8').replace(/^setTimeout.*$/m, ''));
    const next = start(['run', file, '--json', '--out', out, '--resume', '--set', 'step.maxSteps=1']);
    expect(await next.ended).toEqual({ code: 0, signal: null });
    expect(next.output.stderr).toContain(`continuing after step 0 from ${out}/checkpoint-0`);
  });

  it('a second SIGINT leaves at once, without a checkpoint', async () => {
    const file = await pipelineFile({
      preamble: `
import { definePart } from 'sluice';
import { z } from 'zod';
const stuck = definePart({ role: 'sink', kind: 'stuck', schema: z.strictObject({}), create: () => ({
  name: 'stuck',
  end: () => new Promise(() => console.log('stuck for ever')),
}) });`,
      sinks: 'stuck(), metrics()',
      rows: 64,
      epochs: 500,
    }).then((path) => {
      const text = readFileSync(path, 'utf8').replace(
        "from 'zod'",
        `from ${JSON.stringify(import.meta.resolve('zod'))}`,
      );
      writeFileSync(path, text);
      return path;
    });
    const out = temporaryFolder();
    const run = start(['run', file, '--json', '--out', out]);
    await run.saw('"step":2,');
    run.child.kill('SIGINT');
    await run.saw('stuck for ever');
    const begun = performance.now();
    run.child.kill('SIGINT');
    expect(await run.ended).toEqual({ code: 130, signal: null });
    expect(performance.now() - begun).toBeLessThan(3000);
    expect(readdirSync(out)).toEqual(['metrics.jsonl']);
  });

  it('SIGKILL leaves a line of metrics.jsonl for every step that it told', async () => {
    const run = await longRun('metrics()');
    await run.saw('"step":5,');
    run.child.kill('SIGKILL');
    expect(await run.ended).toEqual({ code: null, signal: 'SIGKILL' });
    const told = run.output.stdout.split('\n').filter((line) => line.endsWith('}')).length;
    const lines = metricsOf(run.out);
    const steps = lines.filter(({ event }) => event === 'step').map(({ step }) => step);
    expect(told).toBeGreaterThanOrEqual(5);
    expect(lines.length).toBeGreaterThanOrEqual(told);
    expect(steps).toEqual(steps.map((_, i) => i + 1));
  });
});
