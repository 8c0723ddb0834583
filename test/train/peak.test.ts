// What this machine's products reach, and what of it is kept.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Batch } from '../../src/data/types.js';
import { liveTensors, setNumThreads } from '../../src/tensor/index.js';
import { batchShape, sampleLengths } from '../../src/train/batch-shape.js';
import { peakFlops } from '../../src/train/peak.js';
import { temporaryFolder } from './job.js';

beforeAll(() => setNumThreads(1));

describe('the machine’s peak', () => {
  it('is a plausible number of operations a second, within the time that it is given, and leaves no tensors', () => {
    const live = liveTensors();
    const begun = performance.now();
    const peak = peakFlops({ dtype: 'float32', device: 'cpu', budgetMs: 20 });
    expect(performance.now() - begun).toBeLessThan(5000);
    expect(peak).toBeGreaterThan(1e8);
    expect(peak).toBeLessThan(1e14);
    expect(liveTensors()).toBe(live);
  });

  it('is kept by dtype, threads and device: the best that was seen', () => {
    const file = join(temporaryFolder(), 'new', 'peak.json');
    const options = { device: 'cpu', file, budgetMs: 5 } as const;
    const kept = () => JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, number>;
    const first = peakFlops({ ...options, dtype: 'float32' });
    const [key = ''] = Object.keys(kept());
    expect(key).toMatch(/, 1 threads, float32, cpu$/);
    expect(kept()).toEqual({ [key]: first });

    fs.writeFileSync(file, JSON.stringify({ [key]: 1e15, other: 7 }));
    expect(peakFlops({ ...options, dtype: 'float32' })).toBe(1e15);
    fs.writeFileSync(file, JSON.stringify({ [key]: 1, other: 7 }));
    const better = peakFlops({ ...options, dtype: 'float32' });
    expect(kept()).toEqual({ [key]: better, other: 7 });
    peakFlops({ ...options, dtype: 'bfloat16' });
    expect(Object.keys(kept())).toHaveLength(3);
  });

  it('is measured all the same where the file is none of ours or cannot be written', () => {
    const folder = temporaryFolder();
    for (const text of ['{"a": "b"}', 'not JSON', '[]']) {
      fs.writeFileSync(join(folder, 'peak.json'), text);
      const file = join(folder, 'peak.json');
      expect(peakFlops({ dtype: 'float32', device: 'cpu', file, budgetMs: 5 })).toBeGreaterThan(1e8);
    }
    fs.writeFileSync(join(folder, 'taken'), '');
    const file = join(folder, 'taken', 'peak.json');
    expect(peakFlops({ dtype: 'float32', device: 'cpu', file, budgetMs: 5 })).toBeGreaterThan(1e8);
  });
});

describe('the shape of a batch', () => {
  const ints = (rows: readonly (readonly number[])[]) => ({
    data: Int32Array.from(rows.flat()),
    shape: [rows.length, rows[0]!.length],
  });
  const bytes = (rows: readonly (readonly number[])[]) => ({
    data: Uint8Array.from(rows.flat()),
    shape: [rows.length, rows[0]!.length],
  });
  const batch = (more: Partial<Batch>): Batch => ({
    inputIds: ints([[1]]),
    attentionMask: bytes([[1]]),
    numTokens: 1,
    numLabels: 0,
    numSamples: 1,
    ...more,
  });

  it('has the samples’ own lengths, padding at either end left out', () => {
    const padded = batch({
      attentionMask: bytes([
        [1, 1, 1, 0],
        [0, 0, 1, 1],
      ]),
    });
    expect(sampleLengths(padded)).toEqual([3, 2]);
  });

  it('tells packed samples apart', () => {
    const packed = batch({
      attentionMask: bytes([
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1],
      ]),
      positionIds: ints([
        [0, 1, 0, 1, 2, 0],
        [0, 0, 1, 2, 3, 4],
      ]),
    });
    expect(sampleLengths(packed)).toEqual([2, 3, 1, 5]);
    const { tokens, pairs } = batchShape(packed, 2);
    expect(tokens).toBe(11);
    expect(pairs).toEqual({ full_attention: 3 + 6 + 1 + 15, sliding_attention: 3 + 5 + 1 + 9 });
  });

  it('has the pictures’ size and the frames that are sound', () => {
    const floats = (shape: number[]) => ({ data: new Float32Array(shape.reduce((a, b) => a * b)), shape });
    const media = batch({
      numLabels: 4,
      pixelValues: floats([2, 3, 8, 6]),
      inputFeatures: floats([2, 3, 5]),
      inputFeaturesMask: bytes([
        [1, 1, 1],
        [1, 0, 0],
      ]),
    });
    expect(batchShape(media, 4)).toMatchObject({ labels: 4, images: 2, imageSize: [8, 6], clips: [3, 1] });
    expect(batchShape(batch({}), 4)).toMatchObject({ images: 0, clips: [] });
  });
});
