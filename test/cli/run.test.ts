// `pipe run` and `pipe eval`: what they print where, and with which code they leave.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eventsIn, metricsOf, temporaryFolder } from '../train/job.js';
import { pipe, pipelineFile, start } from './spawn.js';

const EVALUATION =
  'evaluation({ source: parquet(ROWS), scores: [exactMatch(), promptAlone()], maxNewTokens: 2 })';

describe('pipe run', () => {
  it('--json prints the events as lines of JSON and nothing else; all else goes to stderr', async () => {
    const file = await pipelineFile({
      preamble: `
console.log('the file is loaded');
const unreadable = { question: 'what?', answer: 'red', image: new Uint8Array(4) };`,
      source: `source: { name: 'rows', open: async function* (signal) {
    const origin = { file: 'made', rowGroup: 0, row: 0 };
    yield { value: unreadable, bytes: 100, origin };
    console.info('the source is open');
    yield* parquet(ROWS).open(signal);
  } },`,
      sinks: `metrics(), checkpoints(), ${EVALUATION}, report()`,
    });
    const out = temporaryFolder();
    const { code, stdout, stderr } = await pipe(
      'run',
      file,
      '--json',
      '--out',
      out,
      '--set',
      'step.maxSteps=2',
    );
    expect(stderr).toContain('the file is loaded');
    expect(stderr).toContain('the source is open');
    expect(stderr).toContain(`report ${out}/report.html`);
    expect(code).toBe(0);

    const events = eventsIn(stdout);
    expect(events.map(({ event }) => event).sort()).toEqual(
      ['checkpoint', 'end', 'eval', 'model', 'quarantine', 'step', 'step', 'warning'].sort(),
    );
    const of = (kind: string) => events.find(({ event }) => event === kind)!;
    const number = expect.any(Number) as number;
    const numbers = (...names: string[]) => Object.fromEntries(names.map((name) => [name, number]));
    expect(of('step')).toMatchObject({
      event: 'step',
      waits: expect.any(Object) as object,
      ...numbers(
        'step',
        'loss',
        'numLabels',
        'gradNorm',
        'lr',
        'tokens',
        'stepMs',
        'waitMs',
        'samples',
        'images',
        'clips',
      ),
    });
    expect(of('step')['step']).toBe(1);
    expect(of('eval')).toEqual({
      event: 'eval',
      step: 2,
      name: 'eval',
      count: 16,
      scores: numbers('exactMatch', 'promptAlone'),
    });
    expect(of('quarantine')).toMatchObject({
      event: 'quarantine',
      row: 'made row group 0 row 0',
      stage: 'decodeMedia',
      error: expect.stringMatching(/expected/) as string,
    });
    expect(of('checkpoint')).toEqual({
      event: 'checkpoint',
      step: 2,
      path: join(out, 'checkpoint-2'),
      ...numbers('bytes', 'copyMs', 'writeMs'),
    });
    const end = of('end') as { ledger?: Record<string, number> };
    expect(end).toMatchObject({
      outcome: 'complete',
      steps: 2,
      ...numbers('peakBytes', 'waitMs', 'seconds'),
    });
    const { issued, trained, dropped, quarantined } = end.ledger!;
    expect([trained, quarantined]).toEqual([8, 1]);
    expect(issued).toBe(trained! + dropped! + quarantined!);
    expect(events.at(-1)).toBe(end);
    expect(metricsOf(out)).toEqual(events);
  });

  it('without --json tells people, into runs/NAME by default', async () => {
    const file = await pipelineFile({ rows: 4, sinks: '' });
    const cwd = temporaryFolder();
    const { ended, output } = start(['run', file], cwd);
    expect(await ended).toEqual({ code: 0, signal: null });
    expect(output.stdout).toContain(`job: results go to ${cwd}/runs/job\n`);
    expect(output.stdout).toMatch(
      /^step 1\/1000 {2}loss \d+\.\d{4} {2}\d+ tokens\/s {2}wait [\d.]+% {2}.+ left$/m,
    );
    expect(output.stdout).toMatch(
      /^1 step in \d+s, of which \d+s waiting for data; 4 samples issued = 4 trained \+ 0 dropped \+ 0 quarantined; at most [\d.]+ MB in flight; MFU [\d.]+%$/m,
    );
    expect(readdirSync(cwd)).toEqual(['runs']);
  });

  it('stops with a checkpoint when nobody reads its lines any more', async () => {
    const file = await pipelineFile({ epochs: 500, sinks: 'metrics()' });
    const out = temporaryFolder();
    const run = start(['run', file, '--json', '--out', out]);
    await run.saw('"step":2,');
    run.child.stdout!.destroy();
    expect(await run.ended).toEqual({ code: 1, signal: null });
    expect(run.output.stderr).toMatch(
      /stdout: expected somebody who reads it, or room on its disk, received .*EPIPE/,
    );
    const { steps } = metricsOf(out).at(-1) as unknown as { steps: number };
    expect(existsSync(join(out, `checkpoint-${steps}`, 'model.safetensors'))).toBe(true);
  });

  it('that fails leaves with 1 and says why on stderr', async () => {
    const file = await pipelineFile({
      sinks: 'metrics(), report()',
      source: "source: parquet('gone.parquet'),",
    });
    const { code, stdout, stderr } = await pipe('run', file, '--json');
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^DataError: .*gone\.parquet.*: expected an existing file, received none/m);
    expect(stderr).not.toContain('    at ');
  });
});

describe('wrong usage and wrong pipeline files leave with 2', () => {
  it('all faults at once, of the file and of --set, each with its path', async () => {
    const file = await pipelineFile({
      step: `step: sft({ optimizer: adamw({ lr: -1 }), schedule: constant({ warmup: 'long' }), maxSteps: 1.5 }),
  colour: 'red',`,
      sinks: 'metrics({ fil: "a" }), constant()',
    });
    const { code, stdout, stderr } = await pipe(
      ...['run', file, '--json', '--set', 'poolBytes=none', '--set', 'model.dtyp=float32', '--set', 'flow'],
    );
    expect([code, stdout]).toEqual([2, '']);
    const lines = stderr.trim().split('\n');
    expect(lines).toEqual([
      expect.stringMatching(/^ConfigError: --set flow: expected key\.path=value, received no "="; /),
      ...[
        /: model\.dtyp: expected a known key, received an unknown one; /,
        /: step\.optimizer\.lr: .*>0, received -1; /,
        /: step\.schedule\.warmup: .*expected number, received string, received "long"; /,
        /: step\.maxSteps: .*expected int, received number, received 1\.5; /,
        /: sinks\.0\.fil: expected a known key/,
        /: sinks\.1: expected a sink made by one of its builders/,
        /: poolBytes: .*expected number, received string, received "none"; /,
        /: colour: expected a known key/,
      ].map((pattern) => expect.stringMatching(pattern) as string),
    ]);
    for (const line of lines.slice(1)) expect(line.startsWith(`${file}: `)).toBe(true);
  });

  it.each([
    ['a file that is not there', 'nowhere.ts', 'nowhere.ts: expected a pipeline file, received no such file'],
    ['no file', undefined, 'Not enough non-option arguments'],
  ])('%s', async (_, file, message) => {
    const { code, stdout, stderr } = await pipe('run', ...(file ? [file] : []));
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
  });

  it("a model's folder that is not there", async () => {
    const { code, stdout, stderr } = await pipe('run', await pipelineFile(), '--set', 'model.path=nowhere');
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(
      /^ConfigError: model\.path: expected a folder with config\.json, or .*, received nowhere, which does/,
    );
  });
});

describe('pipe eval', () => {
  it('evaluates a pipeline that has neither step nor source', async () => {
    const file = await pipelineFile({ step: '', source: '', sinks: `metrics(), ${EVALUATION}, report()` });
    const out = temporaryFolder();
    const { code, stdout, stderr } = await pipe(
      'eval',
      file,
      '--json',
      '--out',
      out,
      '--set',
      'sinks.1.limit=5',
    );
    expect(stderr).not.toContain('Error');
    expect(code).toBe(0);
    expect(eventsIn(stdout)).toMatchObject([
      { event: 'model', softcap: 10 },
      { event: 'eval', step: 0, name: 'eval', count: 5, scores: { promptAlone: 2 / 5 } },
      { event: 'end', outcome: 'complete', ledger: { issued: 0, trained: 0, dropped: 0, quarantined: 0 } },
    ]);
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('5 held-out samples');
  });

  it('leaves the results of a training alone', async () => {
    const file = await pipelineFile({ sinks: `metrics(), checkpoints(), ${EVALUATION}` });
    const cwd = temporaryFolder();
    const { ended } = start(['eval', file, '--json'], cwd);
    expect(await ended).toEqual({ code: 0, signal: null });
    expect(readdirSync(join(cwd, 'runs'))).toEqual(['job-eval']);
    expect(readdirSync(join(cwd, 'runs', 'job-eval'))).toEqual(['metrics.jsonl']);
  });

  it('needs something to evaluate', async () => {
    const file = await pipelineFile({ sinks: 'metrics(), report()' });
    const { code, stderr } = await pipe('eval', file);
    expect(code).toBe(2);
    expect(stderr).toContain(
      `${file}: sinks: expected an evaluation, received metrics, report; add evaluation({`,
    );
  });
});
