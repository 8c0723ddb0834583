import type { FlowPosition } from '../../src/flow/index.js';
import { describe, expect, it } from 'vitest';
import type { Batch } from '../../src/data/types.js';
import type { StepEvent } from '../../src/train/events.js';
import { type LoopOptions, TrainLoop } from '../../src/train/loop.js';
import type { RunContext, Sink } from '../../src/train/sink.js';
import { Sinks } from '../../src/train/sinks.js';

/** A device whose calls end when told to, in order; it records what reaches it. */
class FakeDevice {
  readonly calls: string[] = [];
  readonly sent: unknown[] = [];
  readonly #open: (() => void)[] = [];
  step = 0;
  fail?: string;

  call(method: string, args: unknown[]): Promise<unknown> {
    const rows = (method === 'update' ? args[0] : args[1]) as string[];
    this.sent.push(args[0]);
    this.calls.push(`${method} ${rows.map((row) => row.split(' ').pop()).join(',')}`);
    return new Promise((resolve, reject) => {
      this.#open.push(() => {
        if (this.fail === method) return reject(new Error(`${method} failed`));
        if (method === 'update') this.step += 1;
        resolve(
          method === 'update'
            ? { step: this.step, loss: 1, numLabels: 2, gradNorm: 1, lr: 1, stepMs: 1, waitMs: 0 }
            : undefined,
        );
      });
    });
  }

  async finish(count = Infinity): Promise<void> {
    for (let i = 0; i < count; i++) {
      await tick();
      const next = this.#open.shift();
      if (!next) return;
      next();
    }
    await tick();
  }
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

function batch(): Batch {
  const ids = { data: new Int32Array(2), shape: [1, 2] };
  return {
    inputIds: ids,
    attentionMask: { data: new Uint8Array(2), shape: [1, 2] },
    numTokens: 2,
    numLabels: 1,
    numSamples: 1,
  };
}

function positionAt(row: number): FlowPosition {
  const done = { issued: row + 1, dropped: 0, quarantined: 0 };
  return { item: row, origin: { file: 'a', rowGroup: 0, row }, parts: 1, done };
}

async function setUp(options: { maxSteps?: number; accumulate?: number; sinks?: Sink[] } = {}) {
  const device = new FakeDevice();
  const events: StepEvent[] = [];
  const recorder: Sink = { name: 'recorder', onEvent: (event) => events.push(event as StepEvent) };
  const sinks = new Sinks([recorder, ...(options.sinks ?? [])]);
  await sinks.start({} as RunContext);
  const loop = new TrainLoop({
    device: device as unknown as LoopOptions['device'],
    sinks,
    maxSteps: options.maxSteps ?? 100,
    accumulate: options.accumulate ?? 1,
  });
  const controller = new AbortController();
  let stopped = 0;
  let row = 0;
  const give = () =>
    loop.consume(batch(), {
      origins: [{ file: 'a', rowGroup: 0, row }],
      position: positionAt(row++),
      waits: [{ stage: 'decode', ms: 1 }],
      signal: controller.signal,
      stop: () => (stopped += 1),
    });
  return { device, events, loop, give, controller, stopped: () => stopped };
}

describe('the train loop', () => {
  it('posts the next batch while the step before computes', async () => {
    const { device, give } = await setUp();
    void give();
    void give();
    await tick();
    expect(device.calls).toEqual(['accumulate 0', 'update 0', 'accumulate 1', 'update 1']);
    await device.finish();
  });

  it('holds the next step back until a sink that is due is done', async () => {
    let release!: () => void;
    const seen: number[] = [];
    const sink: Sink = {
      name: 'slow',
      due: (step) => step === 1,
      after: ({ step }) => {
        seen.push(step);
        return new Promise((resolve) => (release = resolve));
      },
    };
    const { device, give } = await setUp({ sinks: [sink] });
    const first = give();
    const second = give();
    await device.finish();
    expect(seen).toEqual([1]);
    expect(device.calls).toEqual(['accumulate 0', 'update 0']);
    release();
    await first;
    await device.finish();
    await second;
    expect(device.calls).toEqual(['accumulate 0', 'update 0', 'accumulate 1', 'update 1']);
  });

  it('updates once a step of several micro-batches, with the rows of all', async () => {
    const { device, events, give } = await setUp({ accumulate: 2 });
    const given = [give(), give(), give(), give()];
    await device.finish();
    await Promise.all(given);
    expect(device.calls).toEqual([
      'accumulate 0',
      'accumulate 1',
      'update 0,1',
      'accumulate 2',
      'accumulate 3',
      'update 2,3',
    ]);
    expect(events.map(({ step, tokens, samples, waits }) => ({ step, tokens, samples, waits }))).toEqual([
      { step: 1, tokens: 4, samples: 2, waits: { decode: 2 } },
      { step: 2, tokens: 4, samples: 2, waits: { decode: 2 } },
    ]);
  });

  it('updates with an unfinished step when it finishes', async () => {
    const after: number[] = [];
    const sink: Sink = {
      name: 'each',
      due: () => true,
      after: async ({ step }) => void after.push(step),
    };
    const { device, events, give, loop } = await setUp({ accumulate: 2, sinks: [sink] });
    void give();
    const end = loop.finish('update');
    await device.finish();
    await end;
    expect(device.calls).toEqual(['accumulate 0', 'update 0']);
    expect(events).toHaveLength(1);
    expect(after).toEqual([1]);
    expect([loop.lastStep, loop.numTrained]).toEqual([1, 1]);
  });

  it('gives up an unfinished step of a run that was stopped, and does not count its samples', async () => {
    const { device, events, give, loop } = await setUp({ accumulate: 2 });
    for (let i = 0; i < 3; i++) void give();
    const end = loop.finish('give up');
    await device.finish();
    await end;
    expect(device.calls).toEqual(['accumulate 0', 'accumulate 1', 'update 0,1', 'accumulate 2']);
    expect(events).toHaveLength(1);
    expect([loop.lastStep, loop.numTrained]).toEqual([1, 2]);
  });

  it('leaves out what is still held back when the run is cancelled', async () => {
    let release!: () => void;
    const sink: Sink = {
      name: 'slow',
      due: () => true,
      after: () => new Promise((resolve) => (release = resolve)),
    };
    const { device, give, loop, controller } = await setUp({ sinks: [sink] });
    const given = [give(), give()];
    await device.finish();
    controller.abort();
    release();
    await Promise.all(given);
    await loop.finish('give up');
    expect(device.calls).toEqual(['accumulate 0', 'update 0']);
    expect([loop.lastStep, loop.numTrained]).toEqual([1, 1]);
  });

  it('finishes only when the device has done all that was posted', async () => {
    const { device, give, loop } = await setUp();
    void give();
    let finished = false;
    const end = loop.finish('update').then(() => (finished = true));
    await device.finish(1);
    expect(finished).toBe(false);
    await device.finish();
    await end;
  });

  it('keeps on the host what is for the host', async () => {
    const { device, loop } = await setUp();
    const targets = [{ prompt: 'a', reference: 'b', tags: {} }];
    void loop.consume(
      { ...batch(), targets },
      {
        origins: [],
        position: positionAt(0),
        waits: [],
        signal: new AbortController().signal,
        stop: () => undefined,
      },
    );
    await device.finish();
    expect(device.sent[0]).not.toHaveProperty('targets');
  });

  it('knows where the stream stands behind the last whole step', async () => {
    const { device, loop, give } = await setUp({ accumulate: 2 });
    expect(loop.position).toBeUndefined();
    const given = [give(), give(), give()];
    await device.finish();
    await Promise.all(given);
    expect(loop.position).toEqual(positionAt(1));
  });

  it('stops the stream with the batch that completes the last step', async () => {
    const { device, give, stopped } = await setUp({ maxSteps: 2, accumulate: 2 });
    const given = [give(), give(), give()];
    expect(stopped()).toBe(0);
    given.push(give());
    expect(stopped()).toBe(1);
    await device.finish();
    await Promise.all(given);
  });

  it('rejects the batch whose step fails, and all after it', async () => {
    const { device, give, events } = await setUp();
    device.fail = 'accumulate';
    const first = give();
    const second = give();
    const outcomes = Promise.allSettled([first, second]);
    await device.finish();
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(events.length).toBeLessThanOrEqual(2);
  });
});
