import { describe, expect, test } from 'vitest';
import { batch, type BatchContext } from '../../src/data/batch.js';
import { batchBytes, collate, transferables } from '../../src/data/collate.js';
import { pack } from '../../src/data/pack.js';
import { packRows } from '../../src/data/pack-rows.js';
import { random } from '../../src/data/random.js';
import type { Batch, Example } from '../../src/data/types.js';
import {
  type FlowEvent,
  type FlowPosition,
  type FlowSummary,
  type Stage,
  checkBounds,
  runFlow,
} from '../../src/flow/index.js';
import { make, part, type Part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { sourceOf } from './helpers.js';

const SEEDS = Number(process.env.SOAK ?? 20);
const context: BatchContext = { processor: { padTokenId: 99 }, purpose: 'train' };
const ids = (...values: number[]): Int32Array => Int32Array.from(values);

/** An example of `length` tokens, all of them `id`. */
function example(length: number, id = length): Example {
  return { inputIds: new Int32Array(length).fill(id), labels: new Int32Array(length).fill(id) };
}

function images(count: number, value = 0): Pick<Example, 'pixelValues'> {
  return { pixelValues: { data: new Float32Array(count * 12).fill(value), shape: [count, 3, 2, 2] } };
}

function clips(count: number, frames: number, value = 0): Partial<Example> {
  return {
    inputFeatures: {
      data: new Float32Array(count * frames * 2).fill(value),
      shape: [count, frames, 2],
    },
    inputFeaturesMask: { data: new Uint8Array(count * frames).fill(1), shape: [count, frames] },
  };
}

function stage(declared: Part<'stage'>, given: BatchContext = context): Stage<Example, Batch> {
  return make(
    decode(part('stage'), declared, 'flow') as Part<'stage', BatchContext, Stage<Example, Batch>>,
    given,
  );
}

interface Ran {
  readonly batches: Batch[];
  readonly events: FlowEvent[];
  readonly positions: FlowPosition[];
  readonly rows: number[][];
  readonly summary: FlowSummary;
}

async function run(
  declared: Part<'stage'>,
  examples: readonly (number | Example)[],
  from?: FlowPosition,
): Promise<Ran> {
  const batches: Batch[] = [];
  const events: FlowEvent[] = [];
  const positions: FlowPosition[] = [];
  const rows: number[][] = [];
  const summary = await runFlow({
    source: sourceOf(examples.map((given) => (typeof given === 'number' ? example(given) : given))),
    stages: [stage(declared)],
    poolBytes: 200_000,
    ...(from && { from }),
    consume: (value: Batch, { origins, position }) => {
      batches.push(value);
      rows.push(origins.map(({ row }) => row));
      positions.push(JSON.parse(JSON.stringify(position)) as FlowPosition);
    },
    onEvent: (event) => events.push(event),
  });
  return { batches, events, positions, rows, summary };
}

/** The samples of each row, each by its tokens' first id and their number, told by the positions alone. */
function samplesOf({ inputIds, attentionMask, positionIds }: Batch): [id: number, length: number][][] {
  const [rows, width] = inputIds.shape as [number, number];
  return Array.from({ length: rows }, (_, row) => {
    const found: [number, number][] = [];
    for (let i = row * width; i < (row + 1) * width; i++) {
      if (attentionMask.data[i] === 0) break;
      if (positionIds!.data[i] === 0) found.push([inputIds.data[i]!, 0]);
      found.at(-1)![1] += 1;
    }
    return found;
  });
}

const lengthsOf = (batches: readonly Batch[]): number[][][] =>
  batches.map((each) => samplesOf(each).map((row) => row.map(([, length]) => length)));

const quarantined = (events: readonly FlowEvent[]): string[] =>
  events.flatMap((event) => (event.kind === 'quarantine' ? [String(event.error)] : []));

describe('packed rows', () => {
  test('hold samples behind each other, with positions of their own and padding as one more', () => {
    const batch = packRows([example(3, 5), example(2, 6), example(2, 7)], [0, 0, 1], 99);
    expect(batch.inputIds).toEqual({ data: ids(5, 5, 5, 6, 6, 7, 7, 99, 99, 99), shape: [2, 5] });
    expect(batch.positionIds).toEqual({ data: ids(0, 1, 2, 0, 1, 0, 1, 0, 1, 2), shape: [2, 5] });
    expect([...batch.attentionMask.data]).toEqual([1, 1, 1, 1, 1, 1, 1, 0, 0, 0]);
    expect(batch.labels!.data).toEqual(ids(-100, 5, 5, -100, 6, -100, 7, -100, -100, -100));
    expect(batch).toMatchObject({ numTokens: 7, numSamples: 3, numLabels: 4 });
    expect(batch.packed).toEqual({ samplesPerRow: [2, 1], paddingShare: 1 - 7 / 10 });
  });

  test('count the labels that the samples have alone', () => {
    const examples = [1, 4, 2, 9].map((length) => example(length));
    const alone = examples.map((each) => collate([each], { padTokenId: 0 }).numLabels);
    expect(packRows(examples, [0, 0, 0, 0], 0).numLabels).toBe(alone.reduce((sum, n) => sum + n));
    const { labels: _, ...unlabelled } = example(3);
    expect(packRows([unlabelled], [0], 0)).not.toHaveProperty('labels');
  });

  test('have their images and clips in the order of the places, not of arrival', () => {
    const { pixelValues, inputFeatures, inputFeaturesMask } = packRows(
      [
        { ...example(2), ...images(1, 1), ...clips(1, 1, 1) },
        { ...example(2), ...images(2, 2), ...clips(1, 2, 2) },
        { ...example(2), ...images(1, 3), ...clips(1, 1, 3) },
      ],
      [0, 1, 0],
      0,
    );
    const firsts = Array.from(pixelValues!.data).filter((_, i) => i % 12 === 0);
    expect(firsts).toEqual([1, 3, 2, 2]);
    expect(inputFeatures).toEqual({
      data: Float32Array.of(1, 1, 0, 0, 3, 3, 0, 0, 2, 2, 2, 2),
      shape: [3, 2, 2],
    });
    expect(inputFeaturesMask!.data).toEqual(Uint8Array.of(1, 0, 1, 0, 1, 1));
  });

  test('are transferred and weighed with their positions', () => {
    const batch = packRows([example(3)], [0], 0);
    expect(transferables(batch)).toContain(batch.positionIds!.data.buffer);
    expect(batchBytes(batch)).toBe(3 * (4 + 1 + 4 + 4));
  });
});

describe('pack', () => {
  test('closes a row before its tokens pass the limit, and trains the last ones too', async () => {
    const { batches, summary } = await run(pack({ tokens: 10 }), [4, 3, 4, 6, 10, 1, 1]);
    expect(lengthsOf(batches)).toEqual([[[4, 3]], [[4, 6]], [[10]], [[1, 1]]]);
    expect(summary.ledger).toEqual({ issued: 7, trained: 7, dropped: 0, quarantined: 0 });
  });

  test('fills several rows first fit, in the order of arrival', async () => {
    const { batches, rows } = await run(pack({ tokens: 10, rows: 2 }), [6, 5, 4, 3, 3, 9]);
    expect(lengthsOf(batches)).toEqual([
      [
        [6, 4],
        [5, 3],
      ],
      [[3], [9]],
    ]);
    expect(rows).toEqual([
      [0, 1, 2, 3],
      [4, 5],
    ]);
  });

  test('bounds the samples, the images and the clips of a batch', async () => {
    expect(lengthsOf((await run(pack({ tokens: 9, maxSamples: 2 }), [1, 1, 1])).batches)).toEqual([
      [[1, 1]],
      [[1]],
    ]);
    const pictures = [1, 2, 0, 1].map((count, i) => ({ ...example(i + 1), ...images(count) }));
    expect(lengthsOf((await run(pack({ tokens: 99, images: 3 }), pictures)).batches)).toEqual([
      [[1, 2, 3]],
      [[4]],
    ]);
    const sounds = [1, 1, 1].map((count, i) => ({ ...example(i + 1), ...clips(count, 3) }));
    expect(lengthsOf((await run(pack({ tokens: 99, clips: 2 }), sounds)).batches)).toEqual([[[1, 2]], [[3]]]);
  });

  test('quarantines a sample that fits in no batch, says why, and goes on', async () => {
    const { batches, events, summary } = await run(pack({ tokens: 4, images: 1, clips: 0 }), [
      2,
      5,
      { ...example(1), ...images(2) },
      { ...example(1), ...clips(1, 2) },
      { inputIds: ids() },
      2,
    ]);
    expect(lengthsOf(batches)).toEqual([[[2, 2]]]);
    expect(summary.ledger).toMatchObject({ trained: 2, quarantined: 4 });
    expect(quarantined(events)).toEqual([
      "DataError: pack: test row 1: expected an example of at most 4 tokens, received 5; raise pack's tokens, or shorten or filter such samples before",
      "DataError: pack: test row 2: expected an example of at most 1 images, received 2; raise pack's images, or show fewer in or filter such samples before",
      "DataError: pack: test row 3: expected an example of at most 0 clips, received 1; raise pack's clips, or show fewer in or filter such samples before",
      'DataError: pack: test row 4: expected at least one token, received none; check the chat template',
    ]);
  });

  test('quarantines a sample unlike the others of its batch, whose rows stay as they were', async () => {
    const { labels: _, ...unlabelled } = example(6);
    const { batches, summary } = await run(pack({ tokens: 10, rows: 2 }), [5, unlabelled, 5, 4]);
    expect(lengthsOf(batches)).toEqual([[[5, 5], [4]]]);
    expect(summary.ledger).toMatchObject({ trained: 3, quarantined: 1 });
  });

  test('loses no sample and keeps every budget, whatever the lengths', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const draw = random(seed, 1);
      const tokens = 8 + draw.below(40);
      const rows = 1 + draw.below(4);
      const most = draw.below(3);
      const examples = Array.from({ length: 60 }, (_, i) => ({
        ...example(1 + draw.below(tokens + 3), 100 + i),
        ...images(draw.below(most + 2)),
      }));
      const { batches, rows: origins, summary } = await run(pack({ tokens, rows, images: most }), examples);
      const fits = [...examples.keys()].filter(
        (i) => examples[i]!.inputIds.length <= tokens && examples[i]!.pixelValues!.shape[0]! <= most,
      );
      expect(origins.flat()).toEqual(fits);
      expect(summary.ledger).toMatchObject({ issued: 60, quarantined: 60 - fits.length, dropped: 0 });
      for (const [i, each] of batches.entries()) {
        const found = samplesOf(each);
        expect(each.inputIds.shape[0]).toBeLessThanOrEqual(rows);
        expect(each.pixelValues?.shape[0] ?? 0).toBeLessThanOrEqual(most);
        for (const row of found) expect(row.reduce((sum, [, n]) => sum + n, 0)).toBeLessThanOrEqual(tokens);
        const whole = origins[i]!.map((row) => [100 + row, examples[row]!.inputIds.length]);
        expect(found.flat().sort(([a], [b]) => a - b)).toEqual(whole);
      }
    }
  });

  test('makes the same batches again, and goes on the same behind each of them', async () => {
    const draw = random(3);
    const examples = Array.from({ length: 80 }, () => 1 + draw.below(22));
    const part = pack({ tokens: 20, rows: 3, maxSamples: 7 });
    const whole = await run(part, examples);
    expect((await run(part, examples)).batches).toEqual(whole.batches);
    expect(whole.batches.length).toBeGreaterThan(10);
    expect(whole.summary.ledger.quarantined).toBeGreaterThan(3);
    for (const [i, from] of whole.positions.entries()) {
      const rest = await run(part, examples, from);
      expect(rest.batches).toEqual(whole.batches.slice(i + 1));
      expect(rest.positions).toEqual(whole.positions.slice(i + 1));
      expect(from.done.issued + rest.summary.ledger.issued).toBe(80);
      expect(from.done.quarantined + rest.summary.ledger.quarantined).toBe(whole.summary.ledger.quarantined);
    }
  });

  test('pads less than batch does', async () => {
    const draw = random(5);
    const examples = Array.from({ length: 200 }, () => 1 + draw.below(64));
    const share = ({ batches }: Ran): number => {
      const places = batches.reduce((sum, { inputIds }) => sum + inputIds.data.length, 0);
      return 1 - batches.reduce((sum, { numTokens }) => sum + numTokens, 0) / places;
    };
    const padded = share(await run(batch({ tokens: 256 }), examples));
    const rows = await run(pack({ tokens: 64, rows: 4 }), examples);
    expect(share(await run(pack({ tokens: 256 }), examples))).toBe(0);
    expect(share(rows)).toBeLessThan(0.2);
    expect(padded).toBeGreaterThan(0.3);
    const { packed, numTokens, inputIds } = rows.batches[0]!;
    expect(packed!.paddingShare).toBeCloseTo(1 - numTokens / inputIds.data.length, 12);
  });

  test('refuses to make batches for an evaluation', () => {
    expect(() => stage(pack({ tokens: 8 }), { ...context, purpose: 'evaluate' })).toThrow(
      "pack: expected a flow to train on, received an evaluation's: samples that share a row cannot be answered each; " +
        'give the evaluation a flow of its own, which ends in batch({ size })',
    );
  });

  test.each([
    [{}, 'tokens: '],
    [{ tokens: 0 }, 'tokens: '],
    [{ tokens: 8, rows: 0 }, 'rows: '],
    [{ tokens: 8, images: -1 }, 'images: '],
    [{ tokens: 8, size: 2 }, 'flow: size: expected a known key'],
  ])('%j is refused', (options, message) => {
    expect(() => stage(pack(options as never))).toThrow(message);
  });
});

describe('what packing holds', () => {
  const medium = { softTokens: 10 } as never;
  const processor = {
    padTokenId: 0,
    media: { image: medium, audio: medium },
    imageBytes: 5000,
    clipBytes: 300,
  };
  const holds = (options: Parameters<typeof pack>[0]): number | undefined =>
    stage(pack(options), { processor, purpose: 'train' }).holdsBytes;

  test('is bounded by its budgets, and by the soft tokens that have room', () => {
    expect(holds({ tokens: 100, images: 2, clips: 0 })).toBe(100 * 13 + 2 * 5000);
    expect(holds({ tokens: 100, rows: 2, images: 0, clips: 3 })).toBe(200 * 13 + 3 * 300);
    expect(holds({ tokens: 105, rows: 2 })).toBe(210 * 13 + 21 * 5000 + 21 * 300);
    expect(stage(pack({ tokens: 100 })).holdsBytes).toBe(100 * 13);
  });

  test('is not told where images have no one size', () => {
    const sizes = { ...processor, imageBytes: 0 };
    const of = (options: Parameters<typeof pack>[0]): Stage<Example, Batch> =>
      stage(pack(options), { processor: sizes, purpose: 'train' });
    expect(of({ tokens: 100 })).not.toHaveProperty('holdsBytes');
    expect(of({ tokens: 100, images: 0 }).holdsBytes).toBe(100 * 13 + 10 * 300);
    expect(of({ tokens: 100, maxSamples: 4 }).holdsItems).toBe(4);
  });

  test('refuses a pool that is too small for it before the run', () => {
    const declared = stage(pack({ tokens: 100, images: 2, clips: 0 }), { processor, purpose: 'train' });
    expect(() => checkBounds({ maxItemBytes: 50 }, [declared], 11_349)).toThrow(
      'expected at least 11350 bytes, since pack holds up to 11300 bytes, received 11349 bytes',
    );
    expect(() => checkBounds({ maxItemBytes: 50 }, [declared], 11_350)).not.toThrow();
  });

  test('is what waiting samples weigh, whatever their rows weighed', async () => {
    const { summary } = await run(pack({ tokens: 50 }), new Array<number>(50).fill(1));
    expect(summary.peakBytes).toBeLessThanOrEqual(50 * 13 + 1000);
  });
});

describe('a batch with budgets', () => {
  const heights = (batches: readonly Batch[]): number[] => batches.map(({ numSamples }) => numSamples);

  test('closes before its images or clips pass the limit', async () => {
    const pictures = [1, 1, 2, 0, 0, 1].map((count) => ({ ...example(2), ...images(count) }));
    expect(heights((await run(batch({ tokens: 99, images: 2 }), pictures)).batches)).toEqual([2, 3, 1]);
    const sounds = [1, 1, 1].map((count) => ({ ...example(2), ...clips(count, 4) }));
    expect(heights((await run(batch({ tokens: 99, clips: 2 }), sounds)).batches)).toEqual([2, 1]);
    expect(heights((await run(batch({ tokens: 4, clips: 2, maxSize: 9 }), sounds)).batches)).toEqual([2, 1]);
  });

  test('quarantines a sample that alone exceeds one, and says which', async () => {
    const { batches, events } = await run(batch({ tokens: 4, images: 1 }), [
      2,
      { ...example(2), ...images(2) },
      5,
      2,
    ]);
    expect(heights(batches)).toEqual([2]);
    expect(quarantined(events)).toEqual([
      "DataError: batch: test row 1: expected an example of at most 1 images, received 2; raise batch's images, or show fewer in or filter such samples before",
      "DataError: batch: test row 2: expected an example of at most 4 tokens, received 5; raise batch's tokens, or shorten or filter such samples before",
    ]);
  });

  test('refuses them beside size', () => {
    expect(() => stage(batch({ size: 2, images: 3, clips: 1 }))).toThrow(
      'images: expected nothing beside size',
    );
  });

  test('declares what it holds where they bound all media', () => {
    const processor = { padTokenId: 0, media: { image: { softTokens: 10 } as never }, imageBytes: 5000 };
    const of = (options: Parameters<typeof batch>[0], purpose: BatchContext['purpose'] = 'train') =>
      stage(batch(options), { processor, purpose });
    expect(of({ tokens: 100, images: 2 }).holdsBytes).toBe(100 * 8 + 2 * 5000);
    expect(of({ tokens: 100 })).not.toHaveProperty('holdsBytes');
    expect(of({ tokens: 100, images: 2 }, 'evaluate')).not.toHaveProperty('holdsBytes');
    expect(of({ tokens: 100, images: 2, maxSize: 3 }).holdsItems).toBe(3);
  });
});
