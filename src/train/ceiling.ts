// What an infinitely fast feed would give: the pace of the job's step over one cached batch.

import { transferables } from '../data/collate.js';
import type { Batch } from '../data/types.js';
import { DataError } from '../errors.js';
import { type Ceiling, writeCeiling } from './ceiling-file.js';
import { checkPipeline } from './check.js';
import { withModelFolder, type ModelFolderOptions } from './model-folder.js';
import { makeOutFolder } from './out-folder.js';
import type { Pipeline } from './pipeline.js';
import { RunDevice } from './run-device.js';
import { sampleFlow } from './sample-flow.js';
import { Sinks } from './sinks.js';
import { trainingFlow } from './training.js';

/** Steps that are not timed: the first ones take memory, and warm caches. */
const WARM_UP = 3;

export interface CeilingOptions extends Pick<ModelFolderOptions, 'log' | 'onProgress'> {
  readonly signal: AbortSignal;
  readonly outDir: string;
  /** Steps to time; 20 by default. */
  readonly steps?: number;
}

/** Trains on the stream's first batches alone (as many as make a step), over and over, and times it. What is learnt is
 *  thrown away; the result stays in the run's folder, and later runs there are held against it.
 *  @throws {DataError} when the stream gives no batch
 *  @throws what `runPipeline` throws before a run */
export async function measureCeiling(declared: Pipeline, options: CeilingOptions): Promise<Ceiling> {
  const { outDir, signal, log, steps = 20 } = options;
  const pipeline = await withModelFolder(declared, { ...options, resumeFrom: undefined });
  const processor = await checkPipeline({ ...pipeline, sinks: [] }, new Sinks([]));
  makeOutFolder(outDir);
  const accumulate = pipeline.step?.accumulate ?? 1;
  const batches: Batch[] = [];
  await sampleFlow({
    ...trainingFlow(pipeline, processor),
    signal,
    emit: () => undefined,
    log,
    consume: async (batch, { stop }) => {
      batches.push(batch);
      if (batches.length === accumulate) stop();
    },
  });
  signal.throwIfAborted();
  if (batches.length < accumulate) throw nothing(batches.length, accumulate);

  const device = new RunDevice(pipeline, { outDir, processor, onCheckpoint: () => undefined });
  try {
    await device.open(signal);
    const times: number[] = [];
    for (let step = 0, before = performance.now(); step < WARM_UP + steps; step++) {
      signal.throwIfAborted();
      const sent = batches.map((batch) => send(device, batch));
      await Promise.all([...sent, device.thread.call('update', [['the cached batch']])]);
      const now = performance.now();
      if (step >= WARM_UP) times.push(now - before);
      before = now;
    }
    const ceiling = ofStep(batches, times);
    writeCeiling(outDir, ceiling);
    return ceiling;
  } finally {
    await device.close();
  }
}

/** The batch goes as a copy: its arrays move to the device. */
function send(device: RunDevice, { targets: _targets, ...batch }: Batch): Promise<void> {
  const copy = structuredClone(batch);
  return device.thread.call('accumulate', [copy, ['the cached batch']], { transfer: transferables(copy) });
}

function ofStep(batches: readonly Batch[], times: readonly number[]): Ceiling {
  const sum = (count: (batch: Batch) => number) => batches.reduce((total, batch) => total + count(batch), 0);
  const stepMs = times.toSorted((a, b) => a - b)[times.length >> 1]!;
  const tokens = sum(({ numTokens }) => numTokens);
  return {
    steps: times.length,
    samples: sum(({ numSamples }) => numSamples),
    tokens,
    images: sum(({ pixelValues }) => pixelValues?.shape[0] ?? 0),
    clips: sum(({ inputFeatures }) => inputFeatures?.shape[0] ?? 0),
    stepMs,
    tokensPerSecond: (1000 * tokens) / stepMs,
  };
}

function nothing(numBatches: number, accumulate: number): DataError {
  return new DataError({
    where: 'source',
    expected: accumulate === 1 ? 'a batch to train on' : `${accumulate} batches to make a step of`,
    received: numBatches === 0 ? 'none' : String(numBatches),
    remedy: 'check the files of the source and the filters of the flow',
  });
}
