import { Writable } from 'node:stream';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { jsonLines } from '../../src/report/json-lines.js';
import { progress } from '../../src/report/progress.js';
import type { RunEvent, StepEvent } from '../../src/train/events.js';
import type { RunContext } from '../../src/train/sink.js';

/** A stream that keeps what is written to it; as a terminal it can move its cursor. */
function stream(isTTY: boolean): NodeJS.WriteStream & { text: string } {
  const out = new Writable({
    write(chunk: Buffer, _encoding, done) {
      Object.assign(out, { text: (out as unknown as { text: string }).text + chunk.toString() });
      done();
    },
  });
  return Object.assign(out, {
    text: '',
    isTTY,
    columns: 200,
    rows: 50,
    ...(isTTY && {
      cursorTo: () => true,
      moveCursor: () => true,
      clearLine: () => true,
      getWindowSize: () => [200, 50],
    }),
  }) as unknown as NodeJS.WriteStream & { text: string };
}

const step = (number: number, loss = 2): StepEvent => ({
  event: 'step',
  step: number,
  loss,
  numLabels: 10,
  gradNorm: 1,
  clipped: false,
  skipped: 0,
  lr: 1e-3,
  tokens: 300,
  samples: 4,
  images: 4,
  clips: 1,
  stepMs: 90,
  waitMs: 10,
  waits: {},
});

const OTHERS: readonly RunEvent[] = [
  {
    event: 'quarantine',
    row: 'a.parquet row group 0 row 3',
    stage: 'decodeMedia',
    error: 'truncated',
    stream: 'train',
    item: 3,
    part: 0,
  },
  { event: 'notice', row: 'a.parquet row group 0 row 4', stage: 'encode', message: 'clip 0 lasts 35.0 s' },
  {
    event: 'notice',
    row: 'b.parquet row group 0 row 0',
    stage: 'encode',
    message: 'clip 1 lasts 31.0 s',
    count: 980,
  },
  { event: 'stall', row: 'a.parquet row group 0 row 9', stage: 'decodeMedia', ms: 31_000 },
  { event: 'stall', stage: 'parquet', ms: 60_100 },
  { event: 'checkpoint', step: 2, path: '/out/checkpoint-2', bytes: 8, copyMs: 1, writeMs: 2 },
  { event: 'warning', kind: 'soft cap', step: 0, message: 'capped at 50', remedy: 'set 30' },
  { event: 'warning', kind: 'clipping', step: 2, message: 'all clipped', remedy: 'raise it' },
  { event: 'answers', step: 2, name: 'eval', answers: [] },
  { event: 'eval', step: 2, name: 'eval', count: 50, scores: { exactMatch: 0.25, 'exactMatch:colour': 0.5 } },
];

const END = {
  event: 'end',
  outcome: 'complete',
  ledger: { issued: 10, trained: 8, dropped: 1, quarantined: 1 },
  peakBytes: 2_500_000,
  peakCheckpointBytes: 0,
  steps: 700,
  waitMs: 4000,
  waits: { encode: 1000, decodeMedia: 3000, parquet: 0.4 },
  slowest: [
    { row: 'a.parquet row group 0 row 7', stage: 'decodeMedia', ms: 900 },
    { stage: 'parquet', ms: 12 },
  ],
  tuned: { decodeMedia: 6, poolBytes: 180_000_000 },
  seconds: 125,
  time: { setup: 1000, compute: 100_000, wait: 4000, sinks: 19_500, other: 500 },
  feed: { tokensPerSecond: 2000, withoutWaits: 2100 },
  mfu: 0.314,
} satisfies RunEvent;

function begin(out: NodeJS.WriteStream, maxSteps: number | undefined = 700) {
  const sink = progress(out);
  void sink.start?.({ name: 'job', outDir: '/out', maxSteps } as RunContext);
  return sink;
}

afterEach(() => vi.useRealTimers());

describe('progress on a pipe', () => {
  it('is a line now and then, and a line for all that is rare', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const out = stream(false);
    const sink = begin(out);
    for (let i = 1; i <= 700; i++) {
      sink.onEvent?.(step(i, i === 1 ? 3 : 2));
      vi.advanceTimersByTime(100);
      if (i === 2) for (const event of OTHERS) sink.onEvent?.(event);
    }
    sink.onEvent?.(END);
    void sink.close?.();
    const lines = out.text.split('\n');
    expect(lines.slice(0, 2)).toEqual([
      'job: results go to /out',
      'step 1/700  loss 3.0000  3000 tokens/s  wait 10.0%  70s left',
    ]);
    expect(lines).toEqual(
      expect.arrayContaining([
        'quarantined a.parquet row group 0 row 3 in decodeMedia: truncated',
        'warning before the first step: capped at 50',
        '  what to do: set 30',
        'warning at step 2: all clipped',
        '  what to do: raise it',
        'a.parquet row group 0 row 4 in encode: clip 0 lasts 35.0 s',
        'b.parquet row group 0 row 0 in encode: clip 1 lasts 31.0 s; 980 notices like it were not shown',
        'the step has waited for 31s, for a.parquet row group 0 row 9 in decodeMedia',
        'the step has waited for 60s, for parquet',
        'checkpoint /out/checkpoint-2',
        'eval at step 2, 50 samples: exactMatch 0.250  exactMatch:colour 0.500',
        'step 700/700  loss 2.0000  3000 tokens/s  wait 10.0%  0s left',
        '700 steps in 2m 05s, of which 4s waiting for data; 10 samples issued = 8 trained + 1 dropped + 1 quarantined; ' +
          'at most 2.5 MB in flight; MFU 31.4%',
        'time    125 s = setup 1.00 s + compute 100 s + wait 4.00 s + sinks 19.5 s + other 0.50 s',
        'wait    decodeMedia 3.00 s, encode 1.00 s',
        'slowest 0.90 s  a.parquet row group 0 row 7, in decodeMedia',
        '        0.01 s  parquet, before a row was there',
        'tuned   decodeMedia 6 at once, a pool of 180 MB',
        'feed    2000 tokens/s, 95.2% of what its steps take without a wait (pipe run --ceiling measures a feed that is ' +
          'never waited for)',
      ]),
    );
    // 70 seconds: a line each ten, and the last step's
    expect(lines.filter((line) => line.startsWith('step ')).length).toBeLessThanOrEqual(8);
    expect(out.text).not.toContain('\u001b');
  });

  it('of an evaluation shows no steps', () => {
    const out = stream(false);
    const sink = begin(out, undefined);
    sink.onEvent?.(OTHERS.at(-1)!);
    sink.onEvent?.({ ...END, steps: 0, ledger: { issued: 0, trained: 0, dropped: 0, quarantined: 0 } });
    expect(out.text.split('\n').slice(0, 2)).toEqual([
      'job: results go to /out',
      'eval at step 0, 50 samples: exactMatch 0.250  exactMatch:colour 0.500'.replace('step 0', 'step 2'),
    ]);
    expect(out.text).not.toMatch(/^step/m);
  });
});

describe('progress on a terminal', () => {
  it('is one moving line, with the rare ones above it', () => {
    vi.useFakeTimers();
    const out = stream(true);
    const sink = begin(out, 3);
    for (const i of [1, 2]) {
      sink.onEvent?.(step(i));
      vi.advanceTimersByTime(200);
    }
    for (const event of OTHERS) sink.onEvent?.(event);
    sink.onEvent?.(step(3));
    vi.advanceTimersByTime(200);
    sink.onEvent?.(END);
    void sink.close?.();
    expect(out.text).toContain('step 2/3  loss 2.0000  3000 tokens/s  wait 10.0%  0s left');
    expect(out.text).toContain('quarantined a.parquet row group 0 row 3 in decodeMedia: truncated\n');
    expect(out.text).toContain('eval at step 2, 50 samples: exactMatch 0.250');
    expect(out.text.trimEnd()).toMatch(/at most 2\.5 MB in flight; MFU 31\.4%\ntime .*\n(.*\n)*feed .*$/);
    const before = out.text;
    vi.advanceTimersByTime(1000);
    expect(out.text).toBe(before);
  });

  it('leaves the cursor visible when a run fails', () => {
    vi.useFakeTimers();
    const out = stream(true);
    const sink = begin(out, 3);
    sink.onEvent?.(step(1));
    void sink.close?.();
    const [hide, show] = ['\u001b[?25l', '\u001b[?25h'];
    expect(out.text.lastIndexOf(show)).toBeGreaterThan(out.text.lastIndexOf(hide));
  });
});

describe('JSON lines', () => {
  it('are one object a line, without answers', () => {
    const lines: string[] = [];
    const sink = jsonLines((line) => lines.push(line));
    for (const event of [step(1), ...OTHERS, END]) sink.onEvent?.(event);
    expect(lines.every((line) => line.endsWith('\n') && !line.slice(0, -1).includes('\n'))).toBe(true);
    expect(lines.map((line) => (JSON.parse(line) as RunEvent).event)).toEqual([
      'step',
      'quarantine',
      'notice',
      'notice',
      'stall',
      'stall',
      'checkpoint',
      'warning',
      'warning',
      'eval',
      'end',
    ]);
  });
});
