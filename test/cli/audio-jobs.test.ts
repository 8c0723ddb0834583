// The jobs with sound, a few steps of each: rows of Parquet to decoded clips, to batches, to updates, to scores.

import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EndEvent, EvalEvent, RunEvent, StepEvent } from '../../src/train/events.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
const folders: string[] = [];
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

interface Result {
  readonly events: readonly RunEvent[];
  readonly log: string;
  readonly out: string;
}

async function job(name: string, overrides: readonly string[]): Promise<Result> {
  const out = mkdtempSync(join(tmpdir(), 'sluice-job-'));
  folders.push(out);
  const args = ['dist/cli/pipe.js', 'run', `pipelines/${name}.pipeline.ts`, '--json', '--out', out];
  const { stdout, stderr } = await run(
    process.execPath,
    [...args, ...overrides.flatMap((set) => ['--set', set])],
    { cwd: root, maxBuffer: 2 ** 26 },
  );
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as RunEvent);
  return { events, log: stderr, out };
}

const of = <E extends RunEvent>({ events }: Result, name: E['event']) =>
  events.filter(({ event }) => event === name) as E[];

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

function expectSoundLedger(result: Result, trained: number): void {
  const [end] = of<EndEvent>(result, 'end');
  const { issued, dropped, quarantined } = end!.ledger;
  expect(end!.outcome).toBe('complete');
  expect(end!.ledger.trained).toBe(trained);
  expect(issued).toBe(trained + dropped + quarantined);
  expect(quarantined).toBe(0);
}

describe('pipelines/audio.pipeline.ts, shortened', { timeout: 300_000 }, () => {
  const steps = 40;
  let result: Result;
  beforeAll(async () => {
    result = await job('audio', [
      `step.maxSteps=${steps}`,
      'step.schedule.warmup=5',
      'sinks.2.every=25',
      'sinks.2.limit=80',
      'sinks.2.limitOnTheWay=40',
    ]);
  }, 300_000);

  it('learns: the loss falls', () => {
    const losses = of<StepEvent>(result, 'step').map(({ loss }) => loss);
    expect(losses).toHaveLength(steps);
    expect(losses.every(Number.isFinite)).toBe(true);
    expect(mean(losses.slice(-5))).toBeLessThan(0.6 * mean(losses.slice(0, 5)));
  });

  it('accounts for every sample', () => {
    expectSoundLedger(result, steps * 32);
  });

  it('reports the word error rate of voices that training lacks, beside what needs no listening', () => {
    const evals = of<EvalEvent>(result, 'eval');
    expect(evals.map(({ step, count }) => [step, count])).toEqual([
      [25, 40],
      [40, 80],
    ]);
    const { scores } = evals.at(-1)!;
    expect(scores['wordErrorRate']).toBeGreaterThan(0);
    expect(scores['promptAloneWords']).toBeGreaterThan(0.8);
    expect(scores['promptAloneWords']).toBeLessThan(1);
    expect(Object.keys(scores).filter((name) => name.startsWith('wordErrorRate:'))).toHaveLength(6);
    expect(readFileSync(join(result.out, 'report.html'), 'utf8')).toContain('wordErrorRate');
  });
});

describe('pipelines/mixed.pipeline.ts, shortened', { timeout: 300_000 }, () => {
  const steps = 10;
  let result: Result;
  beforeAll(async () => {
    const limits = [2, 3, 4].map((sink) => `sinks.${sink}.limit=40`);
    result = await job('mixed', [`step.maxSteps=${steps}`, 'step.schedule.warmup=5', ...limits]);
  }, 300_000);

  it('trains on pictures, sound and text in one run, and accounts for every sample', () => {
    expect(of<StepEvent>(result, 'step')).toHaveLength(steps);
    expectSoundLedger(result, steps * 32);
  });

  it('tells what it gave of each source', () => {
    const [, ...counts] = /mixed (\d+) of source 0 \(parquet\), (\d+) of source 1 \(parquet\), (\d+) of/.exec(
      result.log,
    )!;
    const all = counts.map(Number).reduce((sum, count) => sum + count, 0);
    const [end] = of<EndEvent>(result, 'end');
    expect(all).toBeGreaterThanOrEqual(end!.ledger.issued);
    for (const [i, share] of [2 / 8, 5 / 8, 1 / 8].entries())
      expect(Number(counts[i]) / all).toBeCloseTo(share, 1);
  });

  it('evaluates each kind on its own', () => {
    const evals = of<EvalEvent>(result, 'eval');
    expect(evals.map(({ name, count }) => [name, count])).toEqual([
      ['pictures', 40],
      ['speech', 40],
      ['numbers', 40],
    ]);
    const score = (name: string) => evals.find((event) => event.name === name)!.scores;
    expect(score('pictures')).toHaveProperty('exactMatch');
    expect(score('speech')).toHaveProperty('wordErrorRate');
    expect(score('numbers')).toHaveProperty('exactMatch:to words');
  });
});
