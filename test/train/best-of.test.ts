// Which steps were the best, as evaluations and checkpoints come and fail.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { saveCheckpoint, writeBest, writeShards, type BestCheckpoints } from '../../src/checkpoint/index.js';
import { full } from '../../src/tensor/index.js';
import { BestOf, type BestOptions } from '../../src/train/best-of.js';
import { temporaryFolder } from './job.js';

const metric = 'held/exactMatch';

function told(best: BestOf, step: number, value: number, name = 'held') {
  best.take({ event: 'eval', step, name, count: 4, scores: { exactMatch: value, 'exactMatch:red': 1 } });
}

/** What is written where each evaluation is followed by the checkpoint that it asks for. */
function stepsOf(values: readonly number[], options: Partial<BestOptions> = {}): number[] {
  const best = new BestOf({ metric, mode: 'max', keep: 1, ...options });
  let written: BestCheckpoints['best'] = [];
  for (const [i, value] of values.entries()) {
    told(best, i + 1, value);
    if (best.isBest(i + 1)) written = best.upTo(i + 1).best;
  }
  return written.map(({ step }) => step);
}

describe('the best of a run', () => {
  it('is the highest or the lowest, the best first', () => {
    expect(stepsOf([0.1, 0.5, 0.3])).toEqual([2]);
    expect(stepsOf([0.4, 0.5, 0.3], { mode: 'min' })).toEqual([3]);
    expect(stepsOf([0.1, 0.5, 0.3, 0.4], { keep: 2 })).toEqual([2, 4]);
  });

  it('is the earlier one of equals', () => {
    expect(stepsOf([0.5, 0.5])).toEqual([1]);
    expect(stepsOf([0.5, 0.5], { mode: 'min' })).toEqual([1]);
  });

  it('is never what is no finite number', () => {
    expect(stepsOf([NaN, 0.2, NaN, Infinity])).toEqual([2]);
    expect(stepsOf([NaN])).toEqual([]);
  });

  it('does not heed other evaluations and scores', () => {
    const best = new BestOf({ metric, mode: 'max', keep: 1 });
    told(best, 1, 0.9, 'other');
    expect([best.isBest(1), best.isGiven]).toEqual([false, false]);
    told(best, 1, 0.9);
    expect([best.isBest(1), best.isGiven]).toEqual([true, true]);
  });

  it('counts a step by its last evaluation', () => {
    const best = new BestOf({ metric, mode: 'max', keep: 1 });
    told(best, 2, 0.9);
    best.upTo(2);
    told(best, 2, 0.4);
    expect(best.isBest(2)).toBe(true);
    expect(best.upTo(2).best).toEqual([{ step: 2, value: 0.4 }]);
  });

  it('is the one before again where the checkpoint fails', () => {
    const best = new BestOf({ metric, mode: 'max', keep: 1 });
    told(best, 1, 0.3);
    best.upTo(1);
    told(best, 2, 0.6);
    expect(best.upTo(2).best).toEqual([{ step: 2, value: 0.6 }]);
    best.forget(2);
    expect(best.upTo(3).best).toEqual([{ step: 1, value: 0.3 }]);
    told(best, 4, 0.5);
    expect(best.isBest(4)).toBe(true);
  });

  it('names a step once whose evaluation came too late', () => {
    const best = new BestOf({ metric, mode: 'max', keep: 1 });
    told(best, 1, 0.3);
    expect(best.missedBefore(1)).toBeUndefined();
    expect(best.missedBefore(2)).toBe(1);
    expect(best.missedBefore(3)).toBeUndefined();
  });
});

describe('a run that is continued', () => {
  const save = (folder: string, step: number, best?: BestCheckpoints) =>
    saveCheckpoint(folder, {
      state: { step, rng: {}, position: null, ledger: null, ...(best && { best }) },
      writeWeights: (beside) => writeShards(beside, [['w', full([1], step)]]),
      optimizer: [],
    });
  const restored = (folder: string, step: number, options: Partial<BestOptions> = {}) => {
    const best = new BestOf({ metric, mode: 'max', keep: 2, ...options });
    best.restore(folder, step);
    return best.upTo(-1).best;
  };

  it('knows the best of before from its checkpoint and from best.json, as far as they are complete', async () => {
    const folder = temporaryFolder();
    const of = (...best: [number, number][]): BestCheckpoints => ({
      metric,
      mode: 'max',
      best: best.map(([step, value]) => ({ step, value })),
    });
    for (const step of [2, 4]) await save(folder, step);
    await save(folder, 6, of([6, 0.7], [2, 0.5], [3, 0.6]));
    expect(restored(folder, 6)).toEqual(of([6, 0.7], [2, 0.5]).best);
    // 6 was evaluated again at the end; 8 is not there
    await writeBest(folder, of([8, 0.9], [4, 0.65], [6, 0.1]));
    expect(restored(folder, 6)).toEqual(of([4, 0.65], [2, 0.5]).best);
    expect(restored(folder, 6, { keep: 3 })).toEqual(of([4, 0.65], [2, 0.5], [6, 0.1]).best);
    expect(restored(folder, 4)).toEqual(of([4, 0.65]).best);
    expect(restored(folder, 6, { metric: 'held/other' })).toEqual([]);
    expect(restored(folder, 6, { mode: 'min' })).toEqual([]);
  });

  it('refuses a best.json that is none', async () => {
    const folder = temporaryFolder();
    await save(folder, 1);
    writeFileSync(join(folder, 'best.json'), '{"metric":"a","mode":"most","best":[]}');
    expect(() => restored(folder, 1)).toThrow(/best\.json: mode: .*received "most"; correct this value/);
    writeFileSync(join(folder, 'best.json'), '{');
    expect(() => restored(folder, 1)).toThrow(`${folder}/best.json: expected the best checkpoints in JSON`);
  });
});
