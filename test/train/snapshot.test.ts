// What a checkpoint is written from: the state behind an update, whatever training does meanwhile.

import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { engine, liveTensors, noGrad, setNumThreads } from '../../src/tensor/index.js';
import { snapshotBytes, snapshotOf } from '../../src/train/checkpoint.js';
import { Learner } from '../../src/train/learner.js';
import type { ModelOptions } from '../../src/train/options.js';
import { forgetSnapshot, takeSnapshot, writeSnapshot } from '../../src/train/snapshot.js';
import { SnapshotMemory } from '../../src/train/snapshot-memory.js';
import { temporaryFolder } from './job.js';
import { learnerSpec, train } from './learner-spec.js';
import { settledTensors } from '../live.js';

beforeAll(() => setNumThreads(1));

const NO_STREAM = { stream: undefined, plan: undefined };

/** Kept, so that no garbage is collected while bytes are counted. */
const learners: Learner[] = [];

async function open(model: Partial<ModelOptions> = {}): Promise<Learner> {
  const learner = await Learner.open(learnerSpec(model));
  learners.push(learner);
  return learner;
}

const filesOf = (folder: string) =>
  ['model.safetensors', 'optimizer.safetensors', 'state.json', 'config.json', 'tokenizer.json'].map((name) =>
    readFileSync(join(folder, name)).toString('base64'),
  );

describe('a snapshot', () => {
  it.each(['float32', 'bfloat16'] as const)(
    'of %s holds the state behind its update, though training has gone on',
    async (dtype) => {
      const [one, other] = [await open({ dtype }), await open({ dtype })];
      train(one, 2);
      const stopped = await writeSnapshot(temporaryFolder(), snapshotOf(one, NO_STREAM));
      train(other, 2);
      const snapshot = snapshotOf(other, NO_STREAM);
      train(other, 2);
      const folder = temporaryFolder();
      const written = await writeSnapshot(folder, snapshot);
      expect(written).toMatchObject({ step: 2, path: join(folder, 'checkpoint-2') });
      expect(filesOf(written.path)).toEqual(filesOf(stopped.path));
      const after = await writeSnapshot(folder, snapshotOf(other, NO_STREAM));
      expect(filesOf(after.path)[0]).not.toEqual(filesOf(stopped.path)[0]);
    },
  );

  it('copies what learns and the optimizer, and nothing that is frozen', async () => {
    const learner = await open({ freeze: ['vision', 'audio', 'embeddings'], dtype: 'bfloat16' });
    expect(snapshotBytes(learner)).toBeGreaterThan(0);
    train(learner, 1);
    const learning = learner.trainable.reduce((sum, [, { numBytes }]) => sum + numBytes, 0);
    const state = [...learner.optimizer!.namedState()].reduce((sum, [, { numBytes }]) => sum + numBytes, 0);
    const all = [...learner.model.namedParameters()].reduce((sum, [, { numBytes }]) => sum + numBytes, 0);
    expect(learning).toBeLessThan(all);

    const live = await settledTensors();
    await settledTensors();
    const [before] = engine().tensorMemory(false);
    const snapshot = snapshotOf(learner, NO_STREAM);
    expect(snapshot.bytes).toBe(learning + state);
    expect(engine().tensorMemory(false)[0] - before).toBe(snapshot.bytes);
    expect(snapshot.bytes).toBeLessThanOrEqual(snapshotBytes(learner));
    expect(liveTensors()).toBe(live);
    await writeSnapshot(temporaryFolder(), snapshot);
    expect(engine().tensorMemory(false)[0]).toBe(before);
    expect(liveTensors()).toBe(live);
  });

  it('takes as many bytes as were foretold once all has had a gradient', async () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const learner = await open({ dtype, freeze: ['vision', 'audio', 'projector'] });
      const foretold = snapshotBytes(learner);
      noGrad(() => learner.trainable.forEach(([, tensor]) => (tensor.grad = tensor.detach().clone())));
      learner.optimizer!.step();
      const snapshot = snapshotOf(learner, NO_STREAM);
      expect(snapshot.bytes).toBe(foretold);
      forgetSnapshot(snapshot);
    }
  });

  it('copies a frozen projector that is still to be set from the first images', async () => {
    const learner = await open({ freeze: ['projector', 'vision'], projector: 'whitened' });
    const plain = await open({ freeze: ['projector', 'vision'] });
    const names = [...learner.model.namedParameters()].filter(([, tensor]) => learner.changing.has(tensor));
    expect(names.map(([name]) => name)).toContain('model.embed_vision.embedding_projection.weight');
    expect(snapshotBytes(learner)).toBeGreaterThan(snapshotBytes(plain));
  });

  it('is taken without a copy where the host has no memory for one', async () => {
    const learner = await open();
    train(learner, 1);
    await settledTensors();
    const [before] = engine().tensorMemory(false);
    const { random: _random, ...state } = learner.state;
    const snapshot = takeSnapshot(
      {
        state: { step: state.step, rng: {}, position: null, ledger: null },
        model: learner.model,
        changing: learner.changing,
        optimizer: learner.optimizer!.namedState(),
      },
      undefined,
      1000,
    );
    expect(snapshot.bytes).toBe(0);
    expect(engine().tensorMemory(false)[0]).toBe(before);
    const { path } = await writeSnapshot(temporaryFolder(), snapshot);
    const copied = await writeSnapshot(temporaryFolder(), snapshotOf(learner, NO_STREAM));
    expect(filesOf(path)[0]).toBe(filesOf(copied.path)[0]);
    expect(filesOf(path)[1]).not.toBe('');
  });

  it('is copied to where the one before was, and gives that back when it is asked to', async () => {
    const learner = await open({ freeze: ['vision', 'audio'] });
    train(learner, 1);
    const memory = new SnapshotMemory();
    await settledTensors();
    const used = () => engine().tensorMemory(false)[0];
    const before = used();
    const first = snapshotOf(learner, NO_STREAM, undefined, memory);
    expect(memory.numBytes).toBe(first.bytes);
    const { path } = await writeSnapshot(temporaryFolder(), first);
    expect(used()).toBe(before + first.bytes);

    train(learner, 1);
    const second = snapshotOf(learner, NO_STREAM, undefined, memory);
    expect(used()).toBe(before + first.bytes);
    train(learner, 1);
    const { path: after } = await writeSnapshot(temporaryFolder(), second);
    const fresh = await open({ freeze: ['vision', 'audio'] });
    train(fresh, 2);
    const alone = await writeSnapshot(temporaryFolder(), snapshotOf(fresh, NO_STREAM));
    expect(filesOf(after)).toEqual(filesOf(alone.path));
    expect(filesOf(path)[0]).not.toBe(filesOf(after)[0]);

    await settledTensors();
    const kept = used();
    memory.clear();
    expect(kept - used()).toBe(first.bytes);
    expect(memory.numBytes).toBe(0);
  });

  it('needs no memory for what is copied to where it was', async () => {
    const learner = await open();
    train(learner, 1);
    const memory = new SnapshotMemory();
    const { random: _random, ...state } = learner.state;
    const take = (freeBytes: number) => {
      const snapshot = takeSnapshot(
        {
          state: { step: state.step, rng: {}, position: null, ledger: null },
          model: learner.model,
          changing: learner.changing,
          optimizer: learner.optimizer!.namedState(),
        },
        memory,
        freeBytes,
      );
      forgetSnapshot(snapshot);
      return snapshot.bytes;
    };
    expect(take(1000)).toBe(0);
    const bytes = take(1e9);
    expect(bytes).toBeGreaterThan(1000);
    expect(take(0)).toBe(bytes);
  });

  it('posts the files beside the weights without a copy of each', async () => {
    const learner = await open();
    const [one, two] = [snapshotOf(learner, NO_STREAM), snapshotOf(learner, NO_STREAM)];
    const tokenizers = [one, two].map(({ files }) => files.get('tokenizer.json')!);
    expect(tokenizers[0]!.buffer).toBeInstanceOf(SharedArrayBuffer);
    expect(tokenizers[0]).toBe(tokenizers[1]);
    [one, two].forEach(forgetSnapshot);
  });

  it('that cannot be written is freed, and leaves what was there', async () => {
    const learner = await open();
    const folder = temporaryFolder();
    await writeSnapshot(folder, snapshotOf(learner, NO_STREAM));
    train(learner, 1);
    writeFileSync(join(folder, 'checkpoint-1'), 'in the way');
    await settledTensors();
    const [before] = engine().tensorMemory(false);
    const snapshot = snapshotOf(learner, NO_STREAM);
    const best = { metric: 'a/b', mode: 'max', best: [{ step: 1, value: 1 }] } as const;
    await expect(writeSnapshot(folder, snapshot, { keep: 1, best })).rejects.toThrow(
      `${folder}/checkpoint-1: expected to write the checkpoint, received ENOTDIR: not a directory`,
    );
    expect(engine().tensorMemory(false)[0]).toBe(before);
    expect(readdirSync(folder).sort()).toEqual(['checkpoint-0', 'checkpoint-1']);
  });

  it('goes to best.json when it is complete, and then what is neither new nor best is removed', async () => {
    const learner = await open();
    const folder = temporaryFolder();
    for (let step = 0; step < 4; step++) {
      const best = { metric: 'a/b', mode: 'max', best: [{ step: Math.min(step, 1), value: 0.5 }] } as const;
      await writeSnapshot(folder, snapshotOf(learner, NO_STREAM, best), { keep: 1, best });
      train(learner, 1);
    }
    expect(readdirSync(folder).sort()).toEqual(['best.json', 'checkpoint-1', 'checkpoint-3']);
    expect(JSON.parse(readFileSync(join(folder, 'best.json'), 'utf8'))).toEqual({
      metric: 'a/b',
      mode: 'max',
      best: [{ step: 1, value: 0.5, checkpoint: 'checkpoint-1' }],
    });
  });
});
