import { describe, expect, test } from 'vitest';
import { batch, type BatchContext } from '../../src/data/batch.js';
import { batchBytes } from '../../src/data/collate.js';
import type { Batch, Example } from '../../src/data/types.js';
import { runFlow, type FlowEvent, type FlowSummary, type Stage } from '../../src/flow/index.js';
import { make, part, type Part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { sourceOf } from './helpers.js';

const context: BatchContext = { processor: { padTokenId: 0 }, purpose: 'train' };

/** An example of `length` tokens, all of them `length`. */
function example(length: number): Example {
  return { inputIds: new Int32Array(length).fill(length), labels: new Int32Array(length).fill(length) };
}

function stage(declared: Part<'stage'>, given: BatchContext = context): Stage<Example, Batch> {
  return make(
    decode(part('stage'), declared, 'flow') as Part<'stage', BatchContext, Stage<Example, Batch>>,
    given,
  );
}

async function run(
  declared: Part<'stage'>,
  lengths: readonly (number | Example)[],
  given?: BatchContext,
): Promise<{ batches: Batch[]; events: FlowEvent[]; summary: FlowSummary }> {
  const batches: Batch[] = [];
  const events: FlowEvent[] = [];
  const summary = await runFlow({
    source: sourceOf(lengths.map((length) => (typeof length === 'number' ? example(length) : length))),
    stages: [stage(declared, given)],
    poolBytes: 10_000,
    consume: (value) => void batches.push(value),
    onEvent: (event) => events.push(event),
  });
  return { batches, events, summary };
}

const rows = (batches: readonly Batch[]): number[][] =>
  batches.map(({ inputIds: { data, shape } }) =>
    Array.from({ length: shape[0]! }, (_, row) =>
      Math.max(...data.subarray(row * shape[1]!, (row + 1) * shape[1]!)),
    ),
  );

describe('batch', () => {
  test('gathers so many samples, and trains the last ones too', async () => {
    const { batches, summary } = await run(batch({ size: 2 }), [3, 1, 2, 4, 5]);
    expect(rows(batches)).toEqual([[3, 1], [2, 4], [5]]);
    expect(summary.ledger).toEqual({ issued: 5, trained: 5, dropped: 0, quarantined: 0 });
  });

  test('leaves the last ones out when it is told to, and counts them', async () => {
    const { batches, summary } = await run(batch({ size: 2, dropLast: true }), [3, 1, 2]);
    expect(rows(batches)).toEqual([[3, 1]]);
    expect(summary.ledger).toEqual({ issued: 3, trained: 2, dropped: 1, quarantined: 0 });
  });

  test('closes a batch before its padded tokens pass the limit', async () => {
    const { batches } = await run(batch({ tokens: 12 }), [4, 3, 4, 1, 6, 6, 1, 2]);
    expect(rows(batches)).toEqual([[4, 3, 4], [1, 6], [6, 1], [2]]);
    for (const { inputIds } of batches) expect(inputIds.data.length).toBeLessThanOrEqual(12);
  });

  test('bounds the number of short samples when it is told to', async () => {
    expect(rows((await run(batch({ tokens: 100, maxSize: 2 }), [1, 1, 1])).batches)).toEqual([[1, 1], [1]]);
  });

  test("pads on the right to train and on the left to evaluate, with the processor's token", async () => {
    const processor = { padTokenId: 77 };
    const train = await run(batch({ size: 2 }), [2, 1], { processor, purpose: 'train' });
    const evaluate = await run(batch({ size: 2 }), [2, 1], { processor, purpose: 'evaluate' });
    expect([...train.batches[0]!.inputIds.data]).toEqual([2, 2, 1, 77]);
    expect([...evaluate.batches[0]!.inputIds.data]).toEqual([2, 2, 77, 1]);
  });

  test('quarantines the sample that does not fit its batch, and keeps the others', async () => {
    const unlabelled = { inputIds: example(2).inputIds };
    const { batches, events, summary } = await run(batch({ size: 3 }), [1, unlabelled, 3]);
    expect(rows(batches)).toEqual([[1, 3]]);
    expect(summary.ledger.quarantined).toBe(1);
    expect(events.find(({ kind }) => kind === 'quarantine')).toMatchObject({
      stage: 'batch',
      origin: { row: 1 },
    });
  });

  test('quarantines a sample longer than the limit', async () => {
    const { batches, summary } = await run(batch({ tokens: 4 }), [2, 9, 2]);
    expect(rows(batches)).toEqual([[2, 2]]);
    expect(summary.ledger.quarantined).toBe(1);
  });

  test('weighs what its arrays take', async () => {
    const { batches, summary } = await run(batch({ size: 2 }), [100, 1]);
    expect(summary.peakBytes).toBeGreaterThanOrEqual(batchBytes(batches[0]!));
  });

  test.each([
    [{}, 'expected either size or tokens'],
    [{ size: 2, tokens: 3 }, 'expected either size or tokens'],
    [{ size: 2, maxSize: 3 }, 'maxSize: expected nothing beside size'],
    [{ size: 0 }, 'size: '],
    [{ size: 2, drop: true }, 'flow: drop: expected a known key'],
  ])('%j is refused', (options, message) => {
    expect(() => stage(batch(options as never))).toThrow(message);
  });
});
