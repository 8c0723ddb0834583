// Runs whose flow packs samples, against the same run with padded batches.

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  batch,
  checkpoints,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  map,
  pack,
  parquet,
} from '../../src/index.js';
import { type ColourRow, colourRows, temporaryFolder, writeRows } from './job.js';
import { type JobOptions, conversation, only, runJob } from './run-job.js';

const flowOf = (last: unknown) => [map(conversation), decodeMedia(), encode({ maxTokens: 64 }), last];

/** The small job, its flow ending in another stage. */
const runWith = (last: unknown, options: JobOptions = {}) =>
  runJob({ ...options, change: (spec) => ({ ...spec, flow: flowOf(last) }) });

/** What a step computes, without its times. */
const numbersOf = (events: Awaited<ReturnType<typeof runJob>>['events']) =>
  only(events, 'step').map(({ step, loss, numLabels, gradNorm, tokens, samples, images }) => ({
    ...{ step, loss, numLabels, gradNorm, tokens, samples, images },
  }));

async function mixedRows(count: number): Promise<ColourRow[]> {
  const rows = await colourRows(count);
  return rows.map((row, i) => ({ ...row, question: 'what color is it? '.repeat(1 + (i % 3)) }));
}

describe('a run with packed samples', () => {
  it('takes the steps that one with padded batches of the same samples takes', async () => {
    const rows = await mixedRows(12);
    const padded = await runWith(batch({ size: 4 }), { rows });
    const packed = await runWith(pack({ tokens: 256, maxSamples: 4 }), { rows });
    const inRows = await runWith(pack({ tokens: 128, rows: 2, maxSamples: 4 }), { rows });
    expect([padded.error, packed.error, inRows.error]).toEqual([undefined, undefined, undefined]);
    const expected = numbersOf(padded.events);
    expect(expected).toHaveLength(3);
    for (const { events, result } of [packed, inRows]) {
      for (const [i, { loss, gradNorm, ...counts }] of numbersOf(events).entries()) {
        const { loss: wantedLoss, gradNorm: wantedNorm, ...wanted } = expected[i]!;
        expect(counts).toEqual(wanted);
        expect(Math.abs(loss / wantedLoss - 1)).toBeLessThan(1e-4);
        expect(Math.abs(gradNorm / wantedNorm - 1)).toBeLessThan(1e-3);
      }
      expect(result!.end.ledger).toEqual({ issued: 12, trained: 12, dropped: 0, quarantined: 0 });
    }
  });

  it('quarantines samples that are longer than a row, and trains on the others', async () => {
    const rows = await mixedRows(9);
    const { events, result } = await runWith(pack({ tokens: 42 }), { rows });
    const { trained, quarantined } = result!.end.ledger;
    expect(trained).toBeGreaterThan(0);
    expect(quarantined).toBeGreaterThan(0);
    expect(trained + quarantined).toBe(9);
    for (const { stage, error } of only(events, 'quarantine')) {
      expect(stage).toBe('pack');
      expect(error).toMatch(
        /^pack: .* row \d: expected an example of at most 42 tokens, received \d+; raise/,
      );
    }
  });

  it('goes on behind a checkpoint as one without a break', async () => {
    const rows = await mixedRows(16);
    const options: JobOptions = { rows, epochs: 2 };
    const packing = pack({ tokens: 150 });
    const whole = await runWith(packing, options);
    const expected = numbersOf(whole.events);
    expect(expected.length).toBeGreaterThan(6);
    const controller = new AbortController();
    const stopped = await runWith(packing, {
      ...options,
      sinks: [checkpoints({ every: 2 })],
      signal: controller.signal,
      onEvent: (event) => {
        if (event.event === 'step' && event.step === 4) controller.abort(new Error('enough'));
      },
    });
    const rest = await runWith(packing, { ...options, outDir: stopped.outDir, resume: true });
    expect(rest.error).toBeUndefined();
    const begun = numbersOf(rest.events)[0]!.step;
    expect(numbersOf(rest.events)).toEqual(expected.slice(begun - 1));
    expect(rest.result!.end.ledger).toEqual(whole.result!.end.ledger);
  });

  it('is refused where an evaluation would share its flow, and runs where that has its own', async () => {
    const held = writeRows(join(temporaryFolder(), 'held.parquet'), await colourRows(2));
    const options = { source: parquet<ColourRow>(held), scores: [exactMatch()], maxNewTokens: 1 };
    const refused = await runWith(pack({ tokens: 128 }), { sinks: [evaluation(options)] });
    expect(refused.error?.message).toContain(
      "eval: pack: expected a flow to train on, received an evaluation's: samples that share a row cannot be answered each",
    );
    expect(refused.events).toEqual([]);
    const flow = flowOf(batch({ size: 2 }));
    const own = await runWith(pack({ tokens: 128 }), {
      sinks: [evaluation({ ...options, flow: flow as never })],
    });
    expect(own.error).toBeUndefined();
    expect(only(own.events, 'eval')).toHaveLength(1);
  });
});
