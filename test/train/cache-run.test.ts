// A job with its samples kept on disk is the job without, bit for bit: cold, warm and continued; and its plan is the same.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { batch, cache, checkpoints, decodeMedia, encode, map, planPipeline } from '../../src/index.js';
import { type ColourRow, colourRows, temporaryFolder } from './job.js';
import { type JobOptions, conversation, jobSpec, only, runJob } from './run-job.js';

const prepared = { calls: 0 };

/** The job's flow with a cache around what is costly. */
const cached = (dir: string): Pick<JobOptions, 'change'> => ({
  change: (spec) => ({
    ...spec,
    flow: [
      map((row: ColourRow) => conversation(row)),
      cache(
        [decodeMedia(), map((sample: object) => (counted(), sample)), encode({ maxTokens: 64 })] as never,
        {
          maxBytes: 50e6,
          dir,
        },
      ),
      batch({ size: 3 }),
    ],
  }),
});

function counted(): void {
  prepared.calls += 1;
}

const job = async (): Promise<JobOptions> => ({
  rows: await colourRows(9),
  epochs: 2,
  batchSize: 3,
  maxSteps: 6,
  sinks: [checkpoints({ every: 3, keep: 3 })],
});

const curve = ({ events }: Awaited<ReturnType<typeof runJob>>) =>
  only(events, 'step').map(({ step, loss, gradNorm, tokens, images }) => [
    step,
    loss,
    gradNorm,
    tokens,
    images,
  ]);

const weightsOf = (folder: string, step: number): string =>
  createHash('sha256')
    .update(fs.readFileSync(join(folder, `checkpoint-${step}`, 'model.safetensors')))
    .digest('hex');

describe('a run with a cache', () => {
  it('trains as one without, cold, warm, and continued from a checkpoint', async () => {
    const dir = temporaryFolder();
    const plain = await runJob(await job());
    expect(plain.error).toBeUndefined();

    prepared.calls = 0;
    const cold = await runJob({ ...(await job()), ...cached(dir) });
    expect(cold.error).toBeUndefined();
    const coldCalls = prepared.calls;
    expect(coldCalls).toBeGreaterThanOrEqual(9);
    expect(coldCalls).toBeLessThanOrEqual(18);
    const warm = await runJob({ ...(await job()), ...cached(dir) });
    expect(prepared.calls).toBe(coldCalls);

    for (const ran of [cold, warm]) {
      expect(curve(ran)).toEqual(curve(plain));
      expect(weightsOf(ran.outDir, 6)).toBe(weightsOf(plain.outDir, 6));
      expect(ran.result!.end.ledger).toEqual(plain.result!.end.ledger);
    }

    const outDir = temporaryFolder();
    const controller = new AbortController();
    const stopped = await runJob({
      ...(await job()),
      ...cached(dir),
      outDir,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.event === 'step' && event.step === 2) controller.abort(new Error('enough'));
      },
    });
    const at = only(stopped.events, 'end')[0]!.steps;
    expect(at).toBeLessThan(6);
    const rest = await runJob({ ...(await job()), ...cached(dir), outDir, resume: true });
    expect(rest.error).toBeUndefined();
    expect(curve(rest)).toEqual(curve(plain).slice(at));
    expect(weightsOf(outDir, 6)).toBe(weightsOf(plain.outDir, 6));
    expect(prepared.calls).toBe(coldCalls);
  });

  it('has the plan of one without, and leaves the cache alone in planning', async () => {
    const dir = temporaryFolder();
    const options = await job();
    const plain = (await jobSpec(options)) as unknown as Record<string, unknown>;
    const stages = cache([decodeMedia(), encode({ maxTokens: 64 })], { maxBytes: 50e6, dir });
    const flow = [map(conversation), stages, batch({ size: 3 })];
    const planOf = async (spec: object) => {
      const { training, ...rest } = await planPipeline(spec, { cache: false });
      const { scan, ...known } = training!;
      return { ...rest, ...known, media: scan.media };
    };
    expect(await planOf({ ...plain, flow })).toEqual(await planOf(plain));
    expect(fs.readdirSync(dir)).toEqual([]);
  });
});
