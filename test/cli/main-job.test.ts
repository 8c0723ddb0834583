// The README's job, shortened: the base learns to answer questions about pictures that it never saw.

import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import type { EndEvent, EvalEvent, RunEvent, StepEvent } from '../../src/train/events.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
const STEPS = 250;

describe('pipelines/sft.pipeline.ts, shortened', { timeout: 600_000 }, () => {
  const out = mkdtempSync(join(tmpdir(), 'sluice-job-'));
  let events: RunEvent[] = [];

  beforeAll(async () => {
    const args = ['dist/cli/pipe.js', 'run', 'pipelines/sft.pipeline.ts', '--json', '--out', out];
    const overrides = [`step.maxSteps=${STEPS}`, 'sinks.2.every=1000', 'sinks.2.limit=600'];
    const { stdout } = await run(process.execPath, [...args, ...overrides.flatMap((set) => ['--set', set])], {
      cwd: root,
      maxBuffer: 2 ** 26,
    });
    events = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as RunEvent);
  }, 600_000);

  const of = <E extends RunEvent>(name: E['event']) => events.filter(({ event }) => event === name) as E[];

  it('learns: the loss falls', () => {
    const losses = of<StepEvent>('step').map(({ loss }) => loss);
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(losses).toHaveLength(STEPS);
    expect(mean(losses.slice(-20))).toBeLessThan(0.3 * mean(losses.slice(0, 20)));
  });

  it('answers better than one who does not look', () => {
    const { scores, count } = of<EvalEvent>('eval').at(-1)!;
    expect(count).toBe(600);
    expect(scores['exactMatch']).toBeGreaterThan(0.8);
    expect(scores['exactMatch']).toBeGreaterThan(scores['promptAlone']!);
    expect(scores['exactMatch:colour']).toBeGreaterThan(0.9);
    expect(scores['exactMatch:shape']).toBeGreaterThan(0.9);
  });

  it('accounts for every sample', () => {
    const { ledger } = of<EndEvent>('end')[0]!;
    expect(ledger.issued).toBe(ledger.trained + ledger.dropped + ledger.quarantined);
    expect(ledger.trained).toBe(STEPS * 32);
    expect(ledger.quarantined).toBe(0);
  });

  it('leaves metrics, a report and a checkpoint in Hugging Face layout', () => {
    const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(events.length);
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('exactMatch');
    for (const file of [
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'optimizer.safetensors',
      'state.json',
    ]) {
      expect(existsSync(join(out, `checkpoint-${STEPS}`, file))).toBe(true);
    }
  });
});
