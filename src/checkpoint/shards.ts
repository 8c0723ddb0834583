// A folder of weights as Hugging Face lays them out: model.safetensors, or several shards with an index
// (model.safetensors.index.json) that says which shard holds which tensor. The index is a stranger's: it may name only
// files of its own folder.

import * as fs from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import type { Tensor } from '../tensor/index.js';
import { checkpointFault, listNames, quote, readFault } from './faults.js';
import { maxHeaderBytes, type TensorEntry } from './header.js';
import { SafetensorsFile, type TensorSource } from './safetensors.js';
import { isObject, parseStrictJson } from './strict-json.js';

export const singleFile = 'model.safetensors';
export const indexFile = 'model.safetensors.index.json';

/** The name of one shard, as Hugging Face counts them from 1. */
export function shardFile(number: number, count: number): string {
  const pad = (n: number): string => String(n).padStart(5, '0');
  return `model-${pad(number)}-of-${pad(count)}.safetensors`;
}

/** True for the names of weight files: the single one, any shard, the index. */
export function isWeightFile(name: string): boolean {
  return name === singleFile || name === indexFile || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name);
}

/** Opens the weights of a folder: the single file when it is there, else the shards of the index.
 *  @throws {CheckpointError} when there are none, a shard is missing, or index and shards contradict each other */
export function openWeights(folder: string): TensorSource {
  if (fs.existsSync(join(folder, singleFile))) return new SafetensorsFile(join(folder, singleFile));
  const index = join(folder, indexFile);
  if (fs.existsSync(index)) return new ShardedWeights(folder, readIndex(index));
  const others = fs.existsSync(folder)
    ? fs.readdirSync(folder).filter((name) => /\.(safetensors|bin|pth?|gguf|npz)$/.test(name))
    : [];
  throw checkpointFault(folder, undefined, {
    expected: `weights in ${singleFile}, or in shards with ${indexFile}`,
    received: others.length > 0 ? listNames(others, 'other file') : 'neither',
    remedy: others.some((name) => name.endsWith('.bin'))
      ? 'convert the weights to safetensors (transformers: save_pretrained)'
      : 'check the folder, or download or save the checkpoint again',
  });
}

/** Tensor name -> file name, as the index states it; file names are checked, files are not opened.
 *  @throws {CheckpointError} */
export function readIndex(path: string): ReadonlyMap<string, string> {
  const remedy = 'download or save the checkpoint again';
  let root: unknown;
  try {
    const { size } = fs.statSync(path);
    if (size > maxHeaderBytes) throw new RangeError(`${size} bytes of index`);
    root = parseStrictJson(fs.readFileSync(path, 'utf8'));
  } catch (cause) {
    throw readFault(path, 'an index of JSON, one object with each key once', cause);
  }
  const map = isObject(root) ? root.weight_map : undefined;
  if (!isObject(map)) {
    throw checkpointFault(path, undefined, {
      expected: 'an object with weight_map, from tensor names to file names',
      received: isObject(root) ? listNames(Object.keys(root), 'key') : typeof root,
      remedy,
    });
  }
  const folder = dirname(path);
  for (const [name, file] of Object.entries(map)) {
    const received = typeof file === 'string' ? quote(file) : JSON.stringify(file);
    if (typeof file !== 'string' || !/^[^\0]+\.safetensors$/.test(file)) {
      throw checkpointFault(path, name, { expected: 'the name of a .safetensors file', received, remedy });
    }
    if (isAbsolute(file) || !isInside(folder, resolve(folder, file))) {
      throw checkpointFault(path, name, {
        expected: 'a shard inside its own folder',
        received,
        remedy: `do not trust this checkpoint: ${remedy} from its origin`,
      });
    }
  }
  return new Map(Object.entries(map) as [string, string][]);
}

/** Shards opened one by one as they are asked for, all headers checked at once. */
export class ShardedWeights implements TensorSource {
  readonly names: readonly string[];
  readonly #shards = new Map<string, SafetensorsFile>();
  readonly #shardOf: ReadonlyMap<string, string>;

  constructor(folder: string, shardOf: ReadonlyMap<string, string>) {
    this.names = [...shardOf.keys()];
    this.#shardOf = shardOf;
    const index = join(folder, indexFile);
    try {
      const files = [...new Set(shardOf.values())];
      refuseMissing(folder, index, files);
      for (const file of files) {
        refuseEscape(folder, index, file);
        this.#shards.set(file, new SafetensorsFile(join(folder, file)));
      }
      this.#compare(index);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  entry(name: string): TensorEntry {
    return this.#shard(name).entry(name);
  }
  fileOf(name: string): string {
    return this.#shard(name).path;
  }
  read(name: string): Tensor {
    return this.#shard(name).read(name);
  }
  readRows(name: string, start: number, count: number): Tensor {
    return this.#shard(name).readRows(name, start, count);
  }
  view(name: string): Tensor {
    return this.#shard(name).view(name);
  }
  copyInto(name: string, target: Tensor): void {
    this.#shard(name).copyInto(name, target);
  }
  close(): void {
    for (const shard of this.#shards.values()) shard.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  #shard(name: string): SafetensorsFile {
    const shard = this.#shards.get(this.#shardOf.get(name) ?? '');
    if (shard) return shard;
    throw checkpointFault(indexFile, name, {
      expected: 'to find it',
      received: `an index of ${this.names.length} other tensors`,
      remedy: 'check the name',
    });
  }

  /** Index and shards must hold the same tensors. */
  #compare(index: string): void {
    const remedy = 'index and shards are of different saves: download or save the checkpoint again';
    for (const [file, shard] of this.#shards) {
      const lacking = this.names.filter(
        (name) => this.#shardOf.get(name) === file && !shard.entries.has(name),
      );
      if (lacking.length > 0) {
        throw checkpointFault(shard.path, undefined, {
          expected: `the tensors that ${basename(index)} lists in it`,
          received: `a file without ${listNames(lacking)}`,
          remedy,
        });
      }
      const extra = shard.names.filter((name) => this.#shardOf.get(name) !== file);
      if (extra.length > 0) {
        throw checkpointFault(shard.path, undefined, {
          expected: `no tensors but those that ${basename(index)} lists in it`,
          received: `also ${listNames(extra)}`,
          remedy,
        });
      }
    }
  }
}

function refuseMissing(folder: string, index: string, files: readonly string[]): void {
  const missing = files.filter((file) => !fs.existsSync(join(folder, file)));
  if (missing.length === 0) return;
  throw checkpointFault(index, undefined, {
    expected: `its ${files.length} shards beside it`,
    received: `a folder without ${listNames(missing, 'shard')}`,
    remedy: 'download the missing files or save the checkpoint again',
  });
}

/** A link may lead out of the folder only within the Hub's cache, whose snapshots are links to the blobs of the same
 *  repository, models--x/snapshots/<revision>/file -> models--x/blobs/<hash>, which may be links to blobs that all
 *  repositories share, blobs/<two digits>/<hash> beside models--x. */
function refuseEscape(folder: string, index: string, file: string): void {
  const home = fs.realpathSync(folder);
  const real = fs.realpathSync(join(folder, file));
  const repository = dirname(dirname(home));
  const isSnapshot = basename(dirname(home)) === 'snapshots';
  const blobs = isSnapshot ? [join(repository, 'blobs'), join(dirname(repository), 'blobs')] : [];
  if ([home, ...blobs].some((place) => isInside(place, real))) return;
  throw checkpointFault(index, undefined, {
    expected: 'shards inside its own folder',
    received: `${quote(file)}, a link to ${quote(real)}`,
    remedy: 'copy the file into the folder if you trust it',
  });
}

function isInside(folder: string, path: string): boolean {
  const way = relative(resolve(folder), path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}
