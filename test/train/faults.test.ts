// What may go wrong around a run: media that get lost on the way, a source that does not answer, sinks that fail or are slow.

import { describe, expect, it } from 'vitest';
import { setTimeout as delay } from 'node:timers/promises';
import { runFlow, timeoutSource } from '../../src/flow/index.js';
import {
  assistant,
  batch,
  chat,
  encode,
  evaluation,
  exactMatch,
  image,
  map,
  metrics,
  orderedMap,
  tee,
  text,
  user,
} from '../../src/index.js';
import type { Example, Sample } from '../../src/data/types.js';
import { definePart } from '../../src/parts.js';
import { z } from '../../src/schema.js';
import type { RunEvent } from '../../src/train/events.js';
import type { RunContext, Sink } from '../../src/train/sink.js';
import { Sinks } from '../../src/train/sinks.js';
import { type ColourRow, colourRows, metricsOf } from './job.js';
import { conversation, only, runJob } from './run-job.js';

/** The job's flow with entries between `encode` and `batch`. */
const after =
  (...entries: unknown[]) =>
  (spec: Record<string, unknown>) => ({
    ...spec,
    flow: [...(spec['flow'] as unknown[]).slice(0, 3), ...entries, batch({ size: 4 })],
  });

const lost =
  /^\S+rows\.parquet row \d+: expected 1 image with 16 soft tokens \(image\) before the step, received /;

describe('a picture that a row declares', () => {
  it('and whose pixels a stage loses quarantines the row', async () => {
    const without = map((example: Example) => {
      const { pixelValues: _pixelValues, ...rest } = example;
      return rest;
    });
    const { events, error } = await runJob({ rows: await colourRows(4), change: after(without) });
    expect(error?.message).toContain('4 were quarantined');
    const quarantined = only(events, 'quarantine');
    expect(quarantined).toHaveLength(4);
    for (const { error: reason, stage } of quarantined) {
      expect(stage).toBe('batch');
      expect(reason).toMatch(lost);
      expect(reason).toContain(
        '0 with 16; a stage has lost image, or placeholders of them: encode with encode(), or as it does',
      );
    }
  });

  it('and whose soft tokens a stage cuts off quarantines that row alone', async () => {
    let count = 0;
    const cut = map((example: Example) =>
      count++ === 1
        ? { ...example, inputIds: example.inputIds.slice(0, 8), labels: example.labels!.slice(0, 8) }
        : example,
    );
    const { events, result } = await runJob({ rows: await colourRows(4), change: after(cut) });
    expect(result!.end.ledger).toMatchObject({ trained: 3, quarantined: 1 });
    expect(only(events, 'quarantine')[0]!.error).toMatch(lost);
  });

  it('and that an encoder of one’s own leaves out altogether is found too', async () => {
    const blind = orderedMap(
      async (sample: Sample): Promise<Example> => {
        const words = sample.messages.length;
        return { inputIds: new Int32Array(words + 4).fill(20), labels: new Int32Array(words + 4).fill(20) };
      },
      { name: 'blind' },
    );
    const { events, error } = await runJob({
      rows: await colourRows(3),
      change: (spec) => ({ ...spec, flow: [map(conversation), blind, batch({ size: 2 })] }),
    });
    expect(error?.message).toContain('3 were quarantined');
    expect(only(events, 'quarantine').map(({ error: reason }) => reason)).toEqual(
      Array.from({ length: 3 }, () => expect.stringMatching(lost) as string),
    );
  });

  it('and that is gone from a finished batch ends the run with its rows', async () => {
    const strip = map(({ pixelValues: _pixelValues, ...rest }: { pixelValues?: unknown }) => rest);
    const { error } = await runJob({
      rows: await colourRows(4),
      change: (spec) => ({ ...spec, flow: [...(spec['flow'] as unknown[]), strip] }),
    });
    expect(error?.message).toMatch(
      /rows\.parquet row \d, \S+rows\.parquet row \d, .*: expected 4 images with 64 soft tokens \(image\) before the step, received 0 with 64; /,
    );
  });

  it('in an evaluation is none where the answer shows it', async () => {
    const { error, events } = await runJob({
      rows: await colourRows(4),
      maxSteps: 1,
      change: (spec) => ({
        ...spec,
        sinks: [
          evaluation({
            source: spec['source'] as never,
            scores: [exactMatch()],
            maxNewTokens: 1,
            flow: [
              map(({ image: bytes }: ColourRow) =>
                chat(user(text('which?')), assistant(text('this'), image(bytes))),
              ),
              encode({ maxTokens: 64 }),
              batch({ size: 4 }),
            ],
          }),
        ],
      }),
    });
    expect(error).toBeUndefined();
    expect(only(events, 'eval')[0]!.count).toBe(4);
  });
});

describe('a source that never answers', () => {
  const item = (row: number) => ({ value: row, bytes: 1, origin: { file: 'slow.csv', rowGroup: 0, row } });

  it('ends the flow with its name and the last row, and is not waited for', async () => {
    let aborted = false;
    const source = {
      name: 'slow',
      open: async function* (signal: AbortSignal) {
        signal.addEventListener('abort', () => (aborted = true));
        yield item(0);
        yield item(1);
        await new Promise(() => {});
      },
    };
    const begun = performance.now();
    const taken: number[] = [];
    const run = runFlow({
      source: timeoutSource(source, 40),
      stages: [],
      poolBytes: 100,
      consume: (value: number) => void taken.push(value),
    });
    await expect(run).rejects.toThrow(
      'source slow: expected its next item within 40 ms, received none since slow.csv row 1; find out what it waits for (a disk, a share, a server), or raise sourceTimeoutMs',
    );
    expect(taken).toEqual([0, 1]);
    expect(aborted).toBe(true);
    expect(performance.now() - begun).toBeLessThan(3000);
  });

  it('is another than one that nobody asks, or that fails or ends by itself', async () => {
    let closed = 0;
    const source = (end: () => void) => ({
      name: 'quick',
      open: async function* () {
        try {
          yield item(0);
          yield item(1);
          yield item(2);
          end();
        } finally {
          closed++;
        }
      },
    });
    const run = (end: () => void) =>
      runFlow({
        source: timeoutSource(source(end), 20),
        stages: [],
        poolBytes: 1,
        consume: () => delay(50), // nothing is asked meanwhile
      });
    expect((await run(() => {})).ledger.trained).toBe(3);
    await expect(
      run(() => {
        throw new Error('broken');
      }),
    ).rejects.toThrow('source quick: expected its next item, received an error: broken');
    expect(closed).toBe(2);
    expect(
      timeoutSource(
        source(() => {}),
        Infinity,
      ).open,
    ).toBeDefined();
    expect(() =>
      timeoutSource(
        source(() => {}),
        0,
      ),
    ).toThrow('timeoutMs');
  });

  it('fails a run, of an evaluation too', async () => {
    const stuck = {
      name: 'stuck',
      open: async function* () {
        await new Promise(() => {});
        yield item(0);
      },
    };
    const { error, events } = await runJob({
      change: (spec) => ({ ...spec, source: stuck }),
      set: ['sourceTimeoutMs=50'],
    });
    expect(error?.message).toContain(
      'source stuck: expected its next item within 50 ms, received none since it was opened',
    );
    expect(only(events, 'end')[0]).toMatchObject({ outcome: 'failed' });
    const inEvaluation = await runJob({
      maxSteps: 1,
      set: ['sourceTimeoutMs=300'],
      sinks: [evaluation({ source: stuck as never, scores: [exactMatch()] })],
    });
    expect(inEvaluation.error?.message).toContain('source stuck: expected its next item within 300 ms');
  });
});

const sinkPart = (sink: Sink) =>
  definePart({ role: 'sink', kind: sink.name, schema: z.strictObject({}), create: (): Sink => sink })();

describe('a sink that fails', () => {
  it('and is declared as one to do without is left behind, told, and nothing else is lost', async () => {
    const seen: string[] = [];
    const frail: Sink = {
      name: 'frail',
      onError: 'detach',
      onEvent: ({ event }) => {
        if (event !== 'model' && event !== 'warning') seen.push(event);
        if (seen.length === 3) throw new RangeError('no room');
      },
      due: () => true,
      after: async () => void seen.push('after'),
      end: async () => void seen.push('ended'),
      close: () => void seen.push('closed'),
    };
    const { error, events, outDir, result } = await runJob({
      batchSize: 2,
      sinks: [sinkPart(frail), metrics()],
    });
    expect(error).toBeUndefined();
    expect(result!.end).toMatchObject({ outcome: 'complete', ledger: { trained: 12 } });
    expect(seen).toEqual(['step', 'after', 'step', 'closed']);
    expect(only(events, 'detach')).toEqual([{ event: 'detach', sink: 'frail', error: 'no room' }]);
    expect(metricsOf(outDir).map(({ event }) => event)).toEqual(events.map(({ event }) => event));
    expect(only(events, 'step')).toHaveLength(6);
  });

  it('in its work after a step, at the start or at the end is left behind as well', async () => {
    const failing = (name: string, when: 'start' | 'after' | 'end' | 'close'): Sink => ({
      name,
      onError: 'detach',
      due: () => true,
      [when]: async () => {
        throw new Error(`${when} failed`);
      },
    });
    const sinks = (['start', 'after', 'end', 'close'] as const).map((when) =>
      sinkPart(failing(`no-${when}`, when)),
    );
    const { error, outDir } = await runJob({ maxSteps: 2, sinks: [metrics(), ...sinks] });
    expect(error).toBeUndefined();
    const told = metricsOf(outDir).filter(({ event }) => event === 'detach');
    expect(told.map(({ sink, error: reason }) => [sink, reason])).toEqual([
      ['no-start', 'start failed'],
      ['no-after', 'after failed'],
      ['no-end', 'end failed'],
      ['no-close', 'close failed'],
    ]);
  });

  it('stops the run by default, also where another tells it the event', async () => {
    const strict: Sink = {
      name: 'strict',
      onEvent: ({ event }) => {
        if (event === 'eval') throw new Error('no more');
      },
    };
    const teller: Sink & { context?: RunContext } = {
      name: 'teller',
      onError: 'detach',
      start(context) {
        this.context = context;
      },
      due: () => true,
      async after({ step }) {
        this.context!.emit({ event: 'eval', step, name: 'told', count: 1, scores: {} });
      },
    };
    const { error, events } = await runJob({ sinks: [sinkPart(strict), sinkPart(teller)] });
    expect(error?.message).toContain('sink strict: expected it to take what it is given, received no more');
    expect(only(events, 'detach')).toEqual([]);
  });

  it('of a tee in the flow is an event too', async () => {
    const broken = tee(
      {
        name: 'copy',
        write: () => {
          throw new Error('disk full');
        },
      },
      { onError: 'detach' },
    );
    const { events, result } = await runJob({ rows: await colourRows(4), change: after(broken) });
    expect(result!.end.ledger.trained).toBe(4);
    expect(only(events, 'detach')).toMatchObject([
      {
        sink: 'copy',
        error: 'disk full',
        row: expect.stringMatching(/rows\.parquet row group 0 row \d$/) as string,
      },
    ]);
  });
});

describe('a sink that is slow', () => {
  it('is named, and holds the run while nothing piles up', async () => {
    const lines: string[] = [];
    const told: RunEvent[] = [];
    const slow: Sink = {
      name: 'slow',
      onEvent: () => {
        const until = performance.now() + 12;
        while (performance.now() < until);
      },
      due: () => true,
      after: () => delay(100),
    };
    const sinks = new Sinks([slow, { name: 'other', onEvent: (event) => void told.push(event) }], {
      eventMs: 10,
      stepMs: 20,
    });
    await sinks.start({ warn: (line: string) => lines.push(line) } as unknown as RunContext);
    const event = { event: 'step', step: 3 } as RunEvent & { event: 'step' };
    sinks.emit(event);
    sinks.emit(event); // not twice as slow: not named again
    await sinks.after(event);
    expect(told).toHaveLength(2);
    expect(lines).toEqual([
      expect.stringMatching(/^sink slow took 0\.0 s over one event \(step\): the run waits for it$/),
      'sink slow has held step 3 for 0.0 s, and is not done',
      'sink slow has held step 3 for 0.0 s, and is not done',
    ]);
  });
});
