// The training feed with its samples kept on disk: made and kept (cold), read (warm), and made without a cache, in turns.
// Of small pictures in Parquet, and of photographs.

import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'vitest';
import { batch } from '../../src/data/batch.js';
import { cache } from '../../src/data/cache.js';
import { assistant, chat, image, text, user } from '../../src/data/chat.js';
import { parquet } from '../../src/data/parquet.js';
import { loadProcessor } from '../../src/data/processor.js';
import { type StageContext, decodeMedia, encode } from '../../src/data/stages.js';
import type { Sample } from '../../src/data/types.js';
import { type FlowEntries, type Source, runFlow } from '../../src/flow/index.js';
import { type Part, make, part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { type EasyVqaRow, questions } from '../../pipelines/easy-vqa.js';
import { pictureBytes } from '../reference/processor-values.js';
import { type BenchRow, median, printTable } from './table.js';

const PROCESSOR = 'fixtures/tiny-gemma3n';
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const SIZE = 32;
const SAMPLES = 640;
const KINDS = ['none', 'cold', 'warm'] as const;
type Kind = (typeof KINDS)[number];

it('the feed with a cache', async () => {
  const context: StageContext = { processor: await loadProcessor(PROCESSOR), purpose: 'train' };
  const folder = fs.mkdtempSync(join(tmpdir(), 'sluice-cache-bench-'));
  const photograph = pictureBytes('large.jpg');
  const photographs: Source<unknown> = {
    name: 'photographs',
    open: async function* () {
      for (let row = 0; row < SAMPLES; row++) {
        const value = chat(user(image(photograph), text(`photograph ${row}`)), assistant(text('yes')));
        yield { value, bytes: photograph.length, origin: { file: '/photographs', rowGroup: 0, row } };
      }
    },
  };
  const sources: Readonly<Record<string, () => unknown>> = {
    'small PNGs': () =>
      parquet('fixtures/easy-vqa/train.parquet', {
        explode: (row: EasyVqaRow) => questions(row).slice(0, 1),
      }),
    photographs: () => photographs,
  };

  const rows: BenchRow[] = [];
  for (const [name, source] of Object.entries(sources)) {
    const taken: Record<Kind, number[]> = { none: [], cold: [], warm: [] };
    let bytes = 0;
    for (let round = 0; round <= ROUNDS; round++) {
      const dir = join(folder, `${name}-${round}`);
      for (const kind of KINDS)
        taken[kind].push(await feed(source(), kind === 'none' ? undefined : dir, context));
      bytes = fs.readdirSync(dir).reduce((sum, file) => sum + fs.statSync(join(dir, file)).size, 0);
      fs.rmSync(dir, { recursive: true, force: true });
    }
    const rate = (kind: Kind): number => SAMPLES / median(taken[kind].slice(1)); // the first warms up
    for (const kind of ['cold', 'warm'] as const) {
      const size = kind === 'cold' ? `, ${(bytes / SAMPLES / 1000).toFixed(0)} kB a sample` : '';
      rows.push({
        name: `${name}, ${kind} cache${size}`,
        ours: `${rate(kind).toFixed(0)} rows/s`,
        reference: `${rate('none').toFixed(0)} rows/s`,
        ratio: median(taken.none.slice(1).map((seconds, i) => seconds / taken[kind][i + 1]!)),
      });
    }
  }
  fs.rmSync(folder, { recursive: true, force: true });
  printTable('The feed with its samples kept on disk (reference: no cache)', rows);
}, 1_800_000);

/** Seconds until all batches are there. @param dir of the cache; none without */
async function feed(source: unknown, dir: string | undefined, context: StageContext): Promise<number> {
  const stageOf = (declared: unknown): unknown =>
    make(decode(part('stage'), declared, 'flow') as Part<'stage', StageContext>, context);
  const prepared =
    dir === undefined
      ? [decodeMedia(), encode()]
      : [cache<Sample, Sample>([decodeMedia(), encode()] as never, { maxBytes: 8e9, dir })];
  const begun = performance.now();
  await runFlow({
    source: source as Source<unknown>,
    stages: [...prepared, batch({ size: SIZE })].map(stageOf) as unknown as FlowEntries<unknown, unknown>,
    poolBytes: 256 * 2 ** 20,
    inFlight: 1,
    consume: (_batch, { index, stop }) => {
      if ((index + 1) * SIZE >= SAMPLES) stop();
    },
  });
  return (performance.now() - begun) / 1000;
}
