import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  latestCheckpoint,
  listCheckpoints,
  loadCheckpoint,
  saveCheckpoint,
  type CheckpointParts,
} from '../../src/checkpoint/training-state.js';
import { openWeights } from '../../src/checkpoint/shards.js';
import { writeShards } from '../../src/checkpoint/writer.js';
import { full } from '../../src/tensor/index.js';
import { errorOf, temporaryFolder } from './files.js';

const partsAt = (step: number): CheckpointParts => ({
  state: {
    step,
    rng: { cpu: Buffer.from([1, 2, 3]).toString('base64') },
    position: { file: 'a.parquet', row: 10 * step },
    ledger: { issued: step, trained: step },
  },
  writeWeights: (folder) => writeShards(folder, [['w', full([2], step)]]),
  optimizer: [['w.exp_avg', full([2], -step)]],
});

const steps = (run: string): number[] => listCheckpoints(run).map(({ step }) => step);

describe('a checkpoint of a run', () => {
  test('is one folder of weights, optimizer and state that comes back as it was', async () => {
    const run = join(temporaryFolder(), 'run');
    const { folder } = await saveCheckpoint(run, partsAt(30));
    expect(folder).toBe(join(run, 'checkpoint-30'));
    expect(fs.readdirSync(folder).sort()).toEqual([
      'model.safetensors',
      'optimizer.safetensors',
      'state.json',
    ]);
    const { state, optimizer } = loadCheckpoint(folder);
    expect(state).toEqual(partsAt(30).state);
    expect(optimizer.read('w.exp_avg').toTypedArray()).toEqual(Float32Array.of(-30, -30));
    expect(openWeights(folder).read('w').toTypedArray()).toEqual(Float32Array.of(30, 30));
    optimizer.close();
  });

  test('replaces one of the same step', async () => {
    const run = temporaryFolder();
    await saveCheckpoint(run, partsAt(1));
    await saveCheckpoint(run, { ...partsAt(1), optimizer: [['w.exp_avg', full([2], 5)]] });
    expect(loadCheckpoint(join(run, 'checkpoint-1')).optimizer.read('w.exp_avg').toTypedArray()[0]).toBe(5);
    expect(fs.readdirSync(run)).toEqual(['checkpoint-1']);
  });

  test('outlives the newest `keep` alone, ordered by number', async () => {
    const run = temporaryFolder();
    for (const step of [8, 9, 10, 11]) await saveCheckpoint(run, partsAt(step), { keep: 2 });
    expect(steps(run)).toEqual([10, 11]);
    expect(fs.readdirSync(run).sort()).toEqual(['checkpoint-10', 'checkpoint-11']);
  });

  test('that was just written is never the one removed', async () => {
    const run = temporaryFolder();
    for (const step of [20, 30, 5]) await saveCheckpoint(run, partsAt(step), { keep: 1 });
    expect(steps(run)).toEqual([5]);
  });
});

describe('the latest checkpoint', () => {
  test('is none where there is no run', () => {
    expect(latestCheckpoint(join(temporaryFolder(), 'none'))).toBeUndefined();
  });

  test('is the newest complete one: folders that lack a file do not count', async () => {
    const run = temporaryFolder();
    for (const step of [1, 2, 3, 4, 5]) await saveCheckpoint(run, partsAt(step));
    fs.rmSync(join(run, 'checkpoint-5', 'state.json'));
    fs.rmSync(join(run, 'checkpoint-4', 'optimizer.safetensors'));
    fs.rmSync(join(run, 'checkpoint-3', 'model.safetensors'));
    fs.mkdirSync(join(run, '.checkpoint-9.partial-1-00000000'));
    fs.mkdirSync(join(run, 'checkpoint-final'));
    expect(steps(run)).toEqual([1, 2]);
    expect(latestCheckpoint(run)).toEqual({ step: 2, folder: join(run, 'checkpoint-2') });
  });

  test('of weights in shards is complete only with all of them', async () => {
    const run = temporaryFolder();
    const writeWeights = (folder: string): Promise<void> =>
      writeShards(
        folder,
        [
          ['a', full([2], 0)],
          ['b', full([2], 1)],
        ],
        { maxShardBytes: 8 },
      );
    const { folder } = await saveCheckpoint(run, { ...partsAt(1), writeWeights });
    expect(steps(run)).toEqual([1]);
    fs.rmSync(join(folder, 'model-00002-of-00002.safetensors'));
    expect(steps(run)).toEqual([]);
  });
});

describe('when a checkpoint cannot be written', () => {
  test('the error says why, and those of before are intact', async () => {
    const run = temporaryFolder();
    await saveCheckpoint(run, partsAt(1), { keep: 1 });
    const writeWeights = async (folder: string): Promise<void> => {
      await partsAt(2).writeWeights(folder);
      fs.writeFileSync('/dev/full', 'no room');
    };
    await expect(saveCheckpoint(run, { ...partsAt(2), writeWeights }, { keep: 1 })).rejects.toThrow(
      `${join(run, 'checkpoint-2')}: expected to write the checkpoint, received ENOSPC: no space left on device, write; free space on that disk or choose another folder; earlier checkpoints are untouched`,
    );
    expect(fs.readdirSync(run)).toEqual(['checkpoint-1']);
    expect(latestCheckpoint(run)?.step).toBe(1);
  });

  test('a folder that cannot be written is named', async () => {
    await expect(saveCheckpoint('/proc/run', partsAt(1))).rejects.toThrow(
      /^\/proc\/run\/checkpoint-1: expected to write the checkpoint, received ENOENT/,
    );
  });

  test('keep below 1 is refused', async () => {
    await expect(saveCheckpoint('run', partsAt(1), { keep: 0 })).rejects.toThrow(
      'run: expected keep of 1 or more checkpoints, received 0; leave it out to keep all',
    );
  });
});

test('a malformed state is refused with its path', async () => {
  const { folder } = await saveCheckpoint(temporaryFolder(), partsAt(1));
  const path = join(folder, 'state.json');
  fs.writeFileSync(path, '{"version":1,"step":-1,"rng":{},"position":null,"ledger":null}');
  expect(errorOf(() => loadCheckpoint(folder)).message).toMatch(/state\.json: step: .*received -1/);
  fs.writeFileSync(path, '{');
  expect(errorOf(() => loadCheckpoint(folder)).message).toContain(`${path}: expected a checkpoint's state`);
  fs.rmSync(path);
  expect(errorOf(() => loadCheckpoint(folder)).message).toContain('received no such file; check the path');
});
