import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { filter } from '../../src/index.js';
import { readCeiling } from '../../src/train/ceiling-file.js';
import { measureCeiling } from '../../src/train/ceiling.js';
import { decodePipeline } from '../../src/train/pipeline.js';
import { temporaryFolder } from './job.js';
import { jobSpec, runJob } from './run-job.js';

async function ceilingOf(outDir: string, change: (spec: Record<string, unknown>) => object = (spec) => spec) {
  const spec = change((await jobSpec({ accumulate: 2 })) as unknown as Record<string, unknown>);
  return measureCeiling(decodePipeline(spec, [], 'job.ts'), {
    outDir,
    steps: 4,
    signal: new AbortController().signal,
    log: () => undefined,
  });
}

describe('the ceiling', () => {
  it('is the pace over one cached step, which later runs in the folder are held against', async () => {
    const outDir = temporaryFolder();
    const ceiling = await ceilingOf(outDir);
    expect(ceiling).toMatchObject({ steps: 4, samples: 8, images: 8, clips: 0 });
    expect(ceiling.tokensPerSecond).toBeCloseTo((1000 * ceiling.tokens) / ceiling.stepMs, 6);
    expect(readCeiling(outDir)).toEqual(ceiling);
    expect(readdirSync(outDir)).toEqual(['ceiling.json']);
    const { result } = await runJob({ outDir, accumulate: 2, maxSteps: 1 });
    expect(result!.end.feed).toMatchObject({ ceiling: ceiling.tokensPerSecond });
  });

  it('needs a stream that fills a step', async () => {
    const empty = (spec: Record<string, unknown>) => ({
      ...spec,
      flow: [filter(() => false), ...(spec['flow'] as unknown[])],
    });
    await expect(ceilingOf(temporaryFolder(), empty)).rejects.toThrow(
      'source: expected 2 batches to make a step of, received none; check the files of the source',
    );
  });

  it('is not known from a file that is none of ours', () => {
    const outDir = temporaryFolder();
    expect(readCeiling(outDir)).toBeUndefined();
    writeFileSync(join(outDir, 'ceiling.json'), '{"tokensPerSecond": -1}');
    expect(readCeiling(outDir)).toBeUndefined();
  });
});
