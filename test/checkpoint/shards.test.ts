import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { indexFile, openWeights, singleFile } from '../../src/checkpoint/shards.js';
import { writeShards } from '../../src/checkpoint/writer.js';
import { CheckpointError } from '../../src/errors.js';
import { full, zeros, type Tensor } from '../../src/tensor/index.js';
import { errorOf, temporaryFolder } from './files.js';

const shard = (n: number): string => `model-0000${n}-of-00003.safetensors`;

/** A folder of three shards: a and b, c, d. */
async function shardedFolder(): Promise<string> {
  const folder = temporaryFolder();
  const tensors = ['a', 'b', 'c', 'd'].map((name, i): [string, Tensor] => [name, full([4], i)]);
  tensors[2]![1] = full([100], 2);
  await writeShards(folder, tensors, { maxShardBytes: 32 });
  return folder;
}

function rewriteIndex(folder: string, weightMap: Record<string, unknown>): void {
  fs.writeFileSync(join(folder, indexFile), JSON.stringify({ weight_map: weightMap }));
}

/** The message of opening, with the folder's name replaced. */
function fault(folder: string): string {
  const error = errorOf(() => openWeights(folder));
  expect(error).toBeInstanceOf(CheckpointError);
  return error.message.replaceAll(folder, 'FOLDER');
}

describe('weights in shards', () => {
  test('are written in order, each shard within the limit where it can be, with an index', async () => {
    const folder = await shardedFolder();
    expect(fs.readdirSync(folder).sort()).toEqual([shard(1), shard(2), shard(3), indexFile]);
    expect(JSON.parse(fs.readFileSync(join(folder, indexFile), 'utf8'))).toEqual({
      metadata: { total_parameters: 112, total_size: 448 },
      weight_map: { a: shard(1), b: shard(1), c: shard(2), d: shard(3) },
    });
  });

  test('are read through the index', async () => {
    const folder = await shardedFolder();
    const weights = openWeights(folder);
    expect([...weights.names]).toEqual(['a', 'b', 'c', 'd']);
    expect(weights.entry('c').shape).toEqual([100]);
    expect(weights.fileOf('d')).toBe(join(folder, shard(3)));
    using d = weights.read('d');
    expect(d.toTypedArray()[0]).toBe(3);
    using target = zeros([4]);
    weights.copyInto('b', target);
    expect(target.toTypedArray()[3]).toBe(1);
    weights.close();
  });

  test('are written with the same bytes each time', async () => {
    const [one, two] = [await shardedFolder(), await shardedFolder()];
    for (const name of fs.readdirSync(one)) {
      expect(fs.readFileSync(join(one, name)).equals(fs.readFileSync(join(two, name))), name).toBe(true);
    }
  });

  test('that fit into one file have no index', async () => {
    const folder = temporaryFolder();
    await writeShards(folder, [['a', zeros([4])]]);
    expect(fs.readdirSync(folder)).toEqual([singleFile]);
  });

  test('may be links of the Hub cache to the blobs of the same repository', async () => {
    const repository = temporaryFolder();
    const folder = await shardedFolder();
    const snapshot = join(repository, 'snapshots', 'revision');
    fs.mkdirSync(snapshot, { recursive: true });
    fs.mkdirSync(join(repository, 'blobs'));
    for (const name of fs.readdirSync(folder)) {
      fs.renameSync(join(folder, name), join(repository, 'blobs', `hash-${name}`));
      fs.symlinkSync(join('../../blobs', `hash-${name}`), join(snapshot, name));
    }
    const weights = openWeights(snapshot);
    expect(weights.names.length).toBe(4);
    weights.close();
  });

  test('may be links of the Hub cache to blobs that all its repositories share', async () => {
    const cache = temporaryFolder();
    const folder = await shardedFolder();
    const repository = join(cache, 'models--someone--tiny');
    const snapshot = join(repository, 'snapshots', 'revision');
    for (const made of [snapshot, join(repository, 'blobs'), join(cache, 'blobs/ab')]) {
      fs.mkdirSync(made, { recursive: true });
    }
    for (const name of fs.readdirSync(folder)) {
      fs.renameSync(join(folder, name), join(cache, 'blobs/ab', name));
      fs.symlinkSync(join('../../blobs/ab', name), join(repository, 'blobs', name));
      fs.symlinkSync(join('../../blobs', name), join(snapshot, name));
    }
    const weights = openWeights(snapshot);
    expect(weights.names.length).toBe(4);
    weights.close();
  });
});

describe('a CheckpointError says', () => {
  test('that there are no weights, and what there is instead', () => {
    const folder = temporaryFolder();
    expect(fault(folder)).toBe(
      'FOLDER: expected weights in model.safetensors, or in shards with model.safetensors.index.json, received neither; check the folder, or download or save the checkpoint again',
    );
    fs.writeFileSync(join(folder, 'pytorch_model.bin'), '');
    expect(fault(folder)).toContain(
      'received 1 other file: pytorch_model.bin; convert the weights to safetensors (transformers: save_pretrained)',
    );
  });

  test('which shards are missing', async () => {
    const folder = await shardedFolder();
    fs.rmSync(join(folder, shard(2)));
    expect(fault(folder)).toBe(
      `FOLDER/${indexFile}: expected its 3 shards beside it, received a folder without 1 shard: ${shard(2)}; download the missing files or save the checkpoint again`,
    );
  });

  test.each([
    ['../elsewhere.safetensors'],
    ['sub/../../elsewhere.safetensors'],
    ['/etc/elsewhere.safetensors'],
  ])('that the index points outside its folder by %s', async (path) => {
    const folder = await shardedFolder();
    rewriteIndex(folder, { a: path });
    expect(fault(folder)).toBe(
      `FOLDER/${indexFile}: tensor "a": expected a shard inside its own folder, received "${path}"; do not trust this checkpoint: download or save the checkpoint again from its origin`,
    );
  });

  test('that a shard is a link out of its folder', async () => {
    const [folder, elsewhere] = [await shardedFolder(), await shardedFolder()];
    fs.rmSync(join(folder, shard(3)));
    fs.symlinkSync(join(elsewhere, shard(3)), join(folder, shard(3)));
    expect(fault(folder)).toBe(
      `FOLDER/${indexFile}: expected shards inside its own folder, received "${shard(3)}", a link to "${join(elsewhere, shard(3))}"; copy the file into the folder if you trust it`,
    );
  });

  test.each([[7], [null], ['model.bin'], ['']])(
    'that the index names %j, which is no shard',
    async (value) => {
      const folder = await shardedFolder();
      rewriteIndex(folder, { a: value });
      expect(fault(folder)).toContain(
        `tensor "a": expected the name of a .safetensors file, received ${JSON.stringify(value)}`,
      );
    },
  );

  test('that the index is not JSON, names a tensor twice or has no weight_map', async () => {
    const folder = await shardedFolder();
    const withText = (text: string): string => {
      fs.writeFileSync(join(folder, indexFile), text);
      return fault(folder);
    };
    expect(withText('{')).toContain(
      `FOLDER/${indexFile}: expected an index of JSON, one object with each key once, received expected a key`,
    );
    expect(withText(`{"weight_map":{"a":"${shard(1)}","a":"${shard(2)}"}}`)).toContain(
      'the key "a" a second time',
    );
    expect(withText('{"metadata":{}}')).toContain(
      'expected an object with weight_map, from tensor names to file names, received 1 key: metadata',
    );
  });

  test('which tensors the index lists in a shard that lacks them', async () => {
    const folder = await shardedFolder();
    rewriteIndex(folder, { a: shard(1), b: shard(1), c: shard(2), d: shard(3), e: shard(3), f: shard(3) });
    expect(fault(folder)).toBe(
      `FOLDER/${shard(3)}: expected the tensors that ${indexFile} lists in it, received a file without 2 tensors: e, f; index and shards are of different saves: download or save the checkpoint again`,
    );
  });

  test('which tensors a shard holds that the index does not list', async () => {
    const folder = await shardedFolder();
    rewriteIndex(folder, { a: shard(1), c: shard(2), d: shard(3) });
    expect(fault(folder)).toContain(
      `FOLDER/${shard(1)}: expected no tensors but those that ${indexFile} lists in it, received also 1 tensor: b`,
    );
  });

  test('that maxShardBytes is no size', async () => {
    await expect(writeShards(temporaryFolder(), [], { maxShardBytes: Number.NaN })).rejects.toThrow(
      /expected maxShardBytes of 1 or more, received NaN; leave it out for 5000000000/,
    );
  });
});
