// The training feed: rows of Parquet, decoded, tokenized and padded to batches, beside PyTorch's DataLoader over Hugging Face
// datasets with transformers' processor in the same run; the time to the first batch; and what a step waits for it.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { it } from 'vitest';
import { batch } from '../../src/data/batch.js';
import { parquet } from '../../src/data/parquet.js';
import { loadProcessor } from '../../src/data/processor.js';
import { type StageContext, decodeMedia, encode } from '../../src/data/stages.js';
import { runFlow, type FlowEntries, type FlowSummary } from '../../src/flow/index.js';
import { type Part, make, part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { type EasyVqaRow, questions } from '../../pipelines/easy-vqa.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const FILE = 'fixtures/easy-vqa/train.parquet';
const PROCESSOR = 'fixtures/tiny-gemma3n';
const ROUNDS = 5;
const SIZE = 32;
const BATCHES = 40;
/** What a step of the image job takes, roughly, on two cores. */
const STEP_MS = 100;

interface Taken {
  readonly seconds: number;
  readonly firstSeconds: number;
}

it('the feed, Parquet to batches', async () => {
  const processor = await loadProcessor(PROCESSOR);
  const context: StageContext = { processor, purpose: 'train' };
  const stageOf = (declared: unknown): unknown =>
    make(decode(part('stage'), declared, 'flow') as Part<'stage', StageContext>, context);

  const feed = async (
    seed: number,
    consumeMs: number,
    inFlight: number,
  ): Promise<Taken & { summary: FlowSummary }> => {
    const begun = performance.now();
    let first = 0;
    const summary = await runFlow({
      source: parquet(FILE, { shuffle: { seed }, explode: (row: EasyVqaRow) => questions(row).slice(0, 1) }),
      stages: [decodeMedia(), encode(), batch({ size: SIZE })].map(stageOf) as unknown as FlowEntries<
        unknown,
        unknown
      >,
      poolBytes: 256 * 2 ** 20,
      inFlight,
      consume: async (_batch: unknown, { index, stop }) => {
        if (index === 0) first = performance.now() - begun;
        if (index + 1 === BATCHES) stop();
        if (consumeMs > 0) await new Promise((resolve) => setTimeout(resolve, consumeMs));
      },
    });
    return { seconds: (performance.now() - begun) / 1000, firstSeconds: first / 1000, summary };
  };

  const python = pythonWith('torch', 'torchvision', 'datasets', 'transformers', 'PIL');
  const reference = python === undefined ? undefined : startReference(python);
  try {
    await feed(0, 0, 1);
    const ours: Taken[] = [];
    const theirs = new Map([0, 2].map((workers) => [workers, [] as Taken[]]));
    const shares: number[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      ours.push(await feed(round, 0, 1));
      const { summary, seconds } = await feed(round, STEP_MS, 1);
      shares.push((summary.waitMs - 1000 * ours.at(-1)!.firstSeconds) / (1000 * seconds));
      if (!reference) continue;
      for (const [workers, taken] of theirs) taken.push(await reference.measure(workers));
    }
    const of = (taken: readonly Taken[], what: keyof Taken): number =>
      median(taken.slice(1).map((each) => each[what])); // the first warms up
    const rate = (taken: readonly Taken[]): number => (SIZE * BATCHES) / of(taken, 'seconds');
    const compare = (workers: number): BenchRow[] => {
      const reference = theirs.get(workers)!;
      const known = reference.length > 0;
      const first = of(ours, 'firstSeconds');
      return [
        {
          name: `rows of easy-VQA to batches of ${SIZE}, DataLoader with ${workers} workers`,
          ours: `${rate(ours).toFixed(0)} rows/s`,
          ...(known && {
            reference: `${rate(reference).toFixed(0)} rows/s`,
            ratio: rate(ours) / rate(reference),
          }),
        },
        {
          name: `time to the first batch, ${workers} workers`,
          ours: `${(1000 * first).toFixed(0)} ms`,
          ...(known && {
            reference: `${(1000 * of(reference, 'firstSeconds')).toFixed(0)} ms`,
            ratio: of(reference, 'firstSeconds') / first,
          }),
        },
      ];
    };
    printTable('The feed: Parquet to decoded, tokenized, padded batches', [...compare(0), ...compare(2)]);
    const share = 100 * Math.max(0, median(shares.slice(1)));
    console.log(
      `Waiting for the feed behind the first batch, at ${STEP_MS} ms a step: ${share.toFixed(2)} % of the time`,
    );
  } finally {
    reference?.end();
  }
}, 600_000);

function startReference(python: string): { measure: (workers: number) => Promise<Taken>; end: () => void } {
  const script = fileURLToPath(new URL('./feed.py', import.meta.url));
  const child = spawn(python, [script, FILE, PROCESSOR, String(SIZE), String(BATCHES)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return {
    measure: async (workers) => {
      child.stdin.write(`${JSON.stringify({ workers })}\n`);
      const { value } = (await lines.next()) as { value: string | undefined };
      if (value === undefined) throw new Error('feed.py has ended');
      return JSON.parse(value) as Taken;
    },
    end: () => void child.stdin.end(),
  };
}
