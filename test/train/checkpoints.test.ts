// The checkpoint sink with a device, a clock and a disk of the test's own, and in whole runs.

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CheckpointError } from '../../src/errors.js';
import { checkpoints, definePart, evaluation, exactMatch, metrics, parquet } from '../../src/index.js';
import { make } from '../../src/parts.js';
import { CheckpointWriting, type Writer } from '../../src/train/checkpoint-writing.js';
import type { CheckpointEvent, CheckpointFailedEvent } from '../../src/train/events.js';
import type { Pipeline, SinkPart } from '../../src/train/pipeline.js';
import type { RunContext, Sink } from '../../src/train/sink.js';
import type { WriteOptions } from '../../src/train/snapshot.js';
import { z } from '../../src/schema.js';
import { type ColourRow, colourRows, metricsOf, temporaryFolder, writeRows } from './job.js';
import { only, runJob } from './run-job.js';

type Event = CheckpointEvent | CheckpointFailedEvent;

/** A device of which the test says when, and whether, a checkpoint is written. */
class FakeDevice {
  step = 0;
  readonly snapshotBytes = 100;
  readonly taken: number[] = [];
  readonly asked: WriteOptions[] = [];
  readonly events: Event[] = [];
  terminated = 0;
  #settle: { resolve: (value: unknown) => void; reject: (error: Error) => void } | undefined;
  readonly writing = new CheckpointWriting({
    outDir: '/out',
    device: { call: (method: string) => Promise.resolve(this.#call(method)) } as never,
    writer: () =>
      ({
        call: (_method: string, [, , options]: [string, unknown, WriteOptions]) => {
          this.asked.push(options);
          return new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
        },
        terminate: () => Promise.resolve(void this.terminated++),
      }) as unknown as Writer,
    onEvent: (event) => this.events.push(event),
  });

  written(): Promise<void> {
    this.#settle!.resolve({
      step: this.taken.at(-1)!,
      path: `/out/checkpoint-${this.taken.at(-1)}`,
      writeMs: 1,
    });
    return tick();
  }
  failed(error: Error): Promise<void> {
    this.#settle!.reject(error);
    return tick();
  }

  #call(method: string): unknown {
    if (method !== 'snapshot') return undefined;
    this.taken.push(this.step);
    return {
      state: { step: this.step },
      files: new Map(),
      weights: [],
      optimizer: [],
      bytes: 100,
      copyMs: 2,
    };
  }
}

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

async function started(options: Parameters<typeof checkpoints>[0]) {
  const device = new FakeDevice();
  const warnings: string[] = [];
  const sink = make(checkpoints({ keep: 3, ...options }) as SinkPart, {
    pipeline: { step: {} } as unknown as Pipeline,
  });
  const begin = (options: WriteOptions | (() => WriteOptions) = {}) =>
    device.writing.begin(
      () => ({ stream: undefined, plan: undefined }),
      () => (typeof options === 'function' ? options() : options),
    );
  await sink.start!({
    device: {
      snapshotBytes: device.snapshotBytes,
      beginCheckpoint: begin,
      checkpoint: async (options: WriteOptions) => {
        const pending = await begin(options);
        await pending.written;
        return pending;
      },
    },
    warn: (line: string) => warnings.push(line),
  } as unknown as RunContext);
  /** One step; resolves when the next may begin. */
  const step = async () => {
    device.step += 1;
    sink.onEvent!({ event: 'step', step: device.step } as never);
    if (sink.due!(device.step)) await sink.after!({ step: device.step } as never);
  };
  return { device, warnings, sink, step };
}

const full = () =>
  new CheckpointError('/out/checkpoint-2: expected to write the checkpoint, received ENOSPC: no space left');

describe('a checkpoint', () => {
  it('holds training back until it is copied, and the next one until it is written', async () => {
    const { device, step, sink } = await started({ every: 2 });
    await step();
    await step();
    await step(); // while it is written
    expect([device.step, device.taken, device.events]).toEqual([3, [2], []]);
    let released = false;
    const fourth = step().then(() => (released = true));
    await tick();
    expect([device.taken, released]).toEqual([[2], false]);
    await device.written();
    await fourth;
    expect(device.taken).toEqual([2, 4]);
    expect(device.events).toEqual([
      { event: 'checkpoint', step: 2, path: '/out/checkpoint-2', bytes: 100, copyMs: 2, writeMs: 1 },
    ]);
    const ended = sink.end!(4, 'complete');
    await device.written();
    await ended;
    expect(device.events).toHaveLength(2);
    expect([device.taken, device.writing.peakBytes]).toEqual([[2, 4], 100]);
  });

  it('that fails is told with its consequence, and the next is tried', async () => {
    const { device, step, warnings } = await started({ every: 1 });
    await step();
    await device.written();
    await step();
    await device.failed(full());
    expect(device.events.at(-1)).toEqual({
      event: 'checkpoint-failed',
      step: 2,
      path: '/out/checkpoint-2',
      error: full().message,
      lastComplete: 1,
    });
    expect(warnings).toEqual([
      `checkpoint of step 2 failed, the run goes on; the last complete one is that of step 1: ${full().message}`,
    ]);
    await step();
    await device.written();
    expect(device.events.at(-1)).toMatchObject({ event: 'checkpoint', step: 3 });
  });

  it('that fails at the end, when it is tried again, fails the run', async () => {
    const { device, step, sink } = await started({ every: 2 });
    await step();
    await step();
    const ended = sink.end!(2, 'complete');
    await device.failed(full());
    expect(device.taken).toEqual([2, 2]);
    const refused = expect(ended).rejects.toThrow(full().message);
    await device.failed(full());
    await refused;
  });

  it('is tried by a new thread where the one that writes has died', async () => {
    const { device, step, warnings } = await started({ every: 1 });
    await step();
    await device.failed(new Error('out of memory'));
    expect(device.terminated).toBe(1);
    expect(warnings[0]).toBe(
      'checkpoint of step 1 failed, the run goes on; none is complete yet: /out/checkpoint-1: expected to write the ' +
        'checkpoint, received out of memory; see the cause; earlier checkpoints are untouched',
    );
    await step();
    await device.written();
    expect(device.events.at(-1)).toMatchObject({ event: 'checkpoint', step: 2 });
  });

  it('whose best failed is not among the best of the next', async () => {
    const { device, step, sink } = await started({ best: { metric: 'eval/score', mode: 'max', keep: 1 } });
    const evaluated = (value: number) => {
      sink.onEvent!({
        event: 'eval',
        step: device.step + 1,
        name: 'eval',
        count: 1,
        scores: { score: value },
      });
      return step();
    };
    await evaluated(0.5);
    await device.written();
    await evaluated(0.4); // no better: no checkpoint
    await evaluated(0.9);
    const fourth = evaluated(0.95);
    await device.failed(full());
    await fourth;
    expect(device.taken).toEqual([1, 3, 4]);
    expect(device.asked.map(({ best }) => best!.best)).toEqual([
      [{ step: 1, value: 0.5 }],
      [{ step: 3, value: 0.9 }],
      [{ step: 4, value: 0.95 }],
    ]);
  });
});

describe('every some minutes', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
  afterEach(() => void vi.useRealTimers());
  const minutes = (count: number) => vi.advanceTimersByTime(count * 60_000);

  it('a checkpoint is written after the step in which they are over', async () => {
    const { device, step } = await started({ minutes: 10 });
    await step();
    minutes(9.9);
    await step();
    expect(device.taken).toEqual([]);
    minutes(0.1);
    await step();
    await device.written();
    minutes(9);
    await step();
    minutes(1);
    await step();
    expect(device.taken).toEqual([3, 5]);
  });

  it('they are counted from the last one, also where that came by its step', async () => {
    const { device, step } = await started({ minutes: 10, every: 2 });
    const next = async (count: number) => {
      minutes(count);
      await step();
      if (device.taken.length > 0) await device.written();
    };
    await next(9);
    await next(0.5); // step 2, by its number
    await next(9);
    await next(0.5); // step 4, likewise
    await next(10); // step 5, by the clock
    expect(device.taken).toEqual([2, 4, 5]);
  });
});

describe('before the run is refused', () => {
  const source = async () =>
    parquet<ColourRow>(writeRows(join(temporaryFolder(), 'held.parquet'), await colourRows(2)));

  it('a metric that no evaluation gives, with those that there are', async () => {
    const best = { metric: 'held/bleu', mode: 'max' } as const;
    const alone = await runJob({ sinks: [checkpoints({ best })] });
    expect(alone.error?.message).toBe(
      "checkpoints.best.metric: expected a score that an evaluation gives, received 'held/bleu', and no evaluation; add " +
        'evaluation({ ... }) to the sinks, or leave out best',
    );
    const held = evaluation({ name: 'held', source: await source(), scores: [exactMatch({ by: 'shape' })] });
    const wrong = await runJob({ sinks: [checkpoints({ best }), held] });
    expect(wrong.error?.message).toBe(
      'checkpoints.best.metric: expected a score that an evaluation gives: held/exactMatch, held/exactMatch:*, received ' +
        "'held/bleu'; correct the name",
    );
    expect(wrong.error?.name).toBe('ConfigError');
    expect(readdirSync(wrong.outDir)).toEqual([]);
  });

  it('a bound that the copy exceeds, with both numbers', async () => {
    const { error, events } = await runJob({ sinks: [checkpoints({ maxBytes: 1000 })] });
    expect(error?.message).toMatch(
      /^checkpoints\.maxBytes: expected at least \d{6,} bytes for the copy of the weights that learn and the optimizer's state, received 1000; raise it, or freeze more of the model$/,
    );
    expect(only(events, 'step')).toEqual([]);
  });
});

/** An evaluation that gives, at each second step, the value that it is told to. */
const values = definePart({
  role: 'sink',
  kind: 'values',
  schema: z.strictObject({ values: z.array(z.number()) }),
  create: ({ values }): Sink => {
    let context: RunContext | undefined;
    return {
      name: 'values',
      metrics: ['made/value'],
      start: (started) => void (context = started),
      due: (step) => step % 2 === 0,
      after: ({ step }) => {
        const scores = { value: values[step / 2 - 1]! };
        context!.emit({ event: 'eval', step, name: 'made', count: 1, scores });
        return Promise.resolve();
      },
    };
  },
});

describe('in a run', () => {
  const best = { metric: 'made/value', mode: 'max' } as const;
  const bestOf = (folder: string) =>
    (JSON.parse(readFileSync(join(folder, 'best.json'), 'utf8')) as { best: object[] }).best;

  it.each([['before'], ['after']])(
    'the best is kept where it is named %s the evaluation, also over a continuation',
    async (order) => {
      const rows = await colourRows(20);
      const sinks = (told: number[]): SinkPart[] => {
        const pair = [values({ values: told }), checkpoints({ every: 3, keep: 1, best })] as SinkPart[];
        return order === 'after' ? pair : pair.reverse();
      };
      const told = [0.2, 0.8, 0.5, 0.8, 0.1];
      const job = { rows, batchSize: 2 };
      const first = await runJob({ ...job, maxSteps: 7, sinks: sinks(told) });
      expect(first.error).toBeUndefined();
      expect(
        readdirSync(first.outDir)
          .filter((name) => !name.startsWith('quarantine'))
          .sort(),
      ).toEqual(['best.json', 'checkpoint-4', 'checkpoint-7']);
      expect(bestOf(first.outDir)).toEqual([{ step: 4, value: 0.8, checkpoint: 'checkpoint-4' }]);
      expect(only(first.events, 'checkpoint').map(({ step }) => step)).toEqual([2, 3, 4, 6, 7]);

      // best.json lost: the checkpoint that is continued knows it too
      rmSync(join(first.outDir, 'best.json'));
      const second = await runJob({
        ...job,
        maxSteps: 10,
        sinks: sinks(told),
        resume: true,
        outDir: first.outDir,
      });
      expect(second.error).toBeUndefined();
      expect(bestOf(first.outDir)).toEqual([{ step: 4, value: 0.8, checkpoint: 'checkpoint-4' }]);
      expect(readdirSync(first.outDir)).toContain('checkpoint-4');
      expect(only(second.events, 'checkpoint').map(({ step }) => step)).toEqual([9, 10]);
    },
  );

  it('a checkpoint that cannot be written does not end it, and the next is complete', async () => {
    const outDir = temporaryFolder();
    mkdirSync(outDir, { recursive: true });
    writeFileSync(join(outDir, 'checkpoint-2'), 'in the way');
    const job = { outDir, batchSize: 3, maxSteps: 4, sinks: [metrics(), checkpoints({ every: 1, keep: 9 })] };
    const { error, events, lines, result } = await runJob(job);
    expect(error).toBeUndefined();
    expect(only(events, 'step')).toHaveLength(4);
    expect(only(events, 'checkpoint').map(({ step }) => step)).toEqual([1, 3, 4]);
    const path = join(outDir, 'checkpoint-2');
    expect(only(events, 'checkpoint-failed')).toMatchObject([{ step: 2, path, lastComplete: 1 }]);
    expect(lines).toContainEqual(
      expect.stringContaining(
        `checkpoint of step 2 failed, the run goes on; the last complete one is that of step 1: ${path}: expected to write ` +
          'the checkpoint, received ENOTDIR',
      ),
    );
    expect(metricsOf(outDir).filter(({ event }) => event === 'checkpoint-failed')).toHaveLength(1);
    expect(result!.end.peakCheckpointBytes).toBeGreaterThan(0);
    expect(readdirSync(outDir).filter((name) => name.includes('partial'))).toEqual([]);
  });

  it('a last checkpoint that cannot be written fails it', async () => {
    const outDir = temporaryFolder();
    writeFileSync(join(outDir, 'checkpoint-3'), 'in the way');
    const { error, events } = await runJob({ outDir, maxSteps: 3, sinks: [checkpoints({ every: 2 })] });
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error!.message).toContain('checkpoint-3: expected to write the checkpoint, received ENOTDIR');
    expect(only(events, 'end')).toMatchObject([{ outcome: 'failed', steps: 3 }]);
    expect(only(events, 'checkpoint').map(({ step }) => step)).toEqual([2]);
  });
});
