// Parts of a pipeline file that take the beginning or the rest of a source, read it again, put several one behind the
// other, or share it among readers. They go by the names of RxJS operators, which work on a sample's own stream: import
// these from 'sluice', and those from 'rxjs' under other names. All have cursors where the sources inside have them.

import { ConfigError } from '../errors.js';
import { repeatSource, takeSource } from '../flow/index.js';
import type { Cursor, Source, SourceFault, SourceItem } from '../flow/types.js';
import { z } from '../schema.js';
import type { SourceLike } from './source-slot.js';
import { defineWrapper, type WrappedSource } from './source-wrap.js';

type Item = SourceItem<unknown> | SourceFault;

const count = z.int().nonnegative();

const takePart = defineWrapper('take', { count }, ([source], options) => takeSource(source!, options.count));
const skipPart = defineWrapper('skip', { count }, ([source], options) => skipSource(source!, options.count));
const repeatPart = defineWrapper(
  'repeat',
  { epochs: z.union([z.int().positive(), z.literal(Infinity)]) },
  ([source], { epochs }) => repeatSource(source!, epochs),
);
const concatPart = defineWrapper('concat', {}, (sources) => concatSources(sources));
const shardPart = defineWrapper(
  'shard',
  { shardIndex: count, numShards: z.int().positive() },
  ([source], shard) => shardSource(source!, shard),
);

/** The first `count` items of a source, faults among them; of all its epochs together.
 *  @example take(parquet('train.parquet', { shuffle: { seed: 1 } }), 1000) */
export function take<T>(source: SourceLike<T>, count: number): WrappedSource<T> {
  return takePart([source], { count }) as WrappedSource<T>;
}

/** All items of a source but the first `count`, which are read and left, unless it is continued behind them.
 *  @example skip(all, 1000) // what take(all, 1000), an evaluation's, leaves */
export function skip<T>(source: SourceLike<T>, count: number): WrappedSource<T> {
  return skipPart([source], { count }) as WrappedSource<T>;
}

/** A source, read `epochs` times over in the same order; may be Infinity. (`epochs` of a source of rows gives another
 *  order each time.)
 *  @example repeat(take(all, 100), 5) */
export function repeat<T>(source: SourceLike<T>, epochs: number): WrappedSource<T> {
  return repeatPart([source], { epochs }) as WrappedSource<T>;
}

/** Sources one behind the other.
 *  @example concat(easy, hard) // a curriculum */
export function concat<T>(...sources: readonly SourceLike<T>[]): WrappedSource<T> {
  return concatPart(sources, {}) as WrappedSource<T>;
}

/** One reader's share of a source: the items whose place in its order is `shardIndex` modulo `numShards`. Every shard reads
 *  the whole source. Sources of rows have these options themselves; a mix needs this, for its draws to be the same ones.
 *  @example shard(mix([...]), { shardIndex: rank, numShards: worldSize }) */
export function shard<T>(source: SourceLike<T>, options: Shard): WrappedSource<T> {
  return shardPart([source], options) as WrappedSource<T>;
}

/** One reader among several. */
export interface Shard {
  readonly shardIndex: number;
  readonly numShards: number;
}

/** Where all shards go on when their number changes. For shards that have taken equally many items, and each of them
 *  all of its last one: after whole steps of a flow that drops none.
 *  @param cursor of the last item that one shard took
 *  @param shard the one that took it
 *  @returns to open the source with, as every shard of any number: between them they give what is left, once, in order
 *  @throws {ConfigError} when that shard cannot have taken the item */
export function cursorForShards(cursor: Cursor, { shardIndex, numShards }: Shard): Cursor {
  const found = POSITION.safeParse(cursor);
  const key = found.success && found.data.index !== undefined ? 'index' : 'part';
  const place = found.success ? found.data[key] : undefined;
  if (!found.success || place === undefined || (found.data.before + place) % numShards !== shardIndex) {
    throw new ConfigError({
      where: 'cursorForShards',
      expected: `the cursor of an item of shard ${shardIndex} of ${numShards}`,
      received: (JSON.stringify(cursor) ?? 'none').slice(0, 200),
      remedy: "give a cursor that the shard's source gave, and the shard that it was",
    });
  }
  return { ...(cursor as object), [key]: place - shardIndex + numShards };
}

/** What the cursors of sources with shards have in common: an item is number `before` + `index` of the stream. */
const POSITION = z.looseObject({ before: count, index: count.optional(), part: count.optional() });

function skipSource(source: Source<unknown>, count: number): Source<unknown> {
  return {
    name: source.name,
    open: async function* (signal, from): AsyncGenerator<Item> {
      const start = from as { readonly at: Cursor } | undefined;
      let left = start ? 0 : count;
      for await (const item of source.open(signal, start?.at)) {
        if (left-- > 0) continue;
        yield item.cursor === undefined ? item : { ...item, cursor: { at: item.cursor } };
      }
    },
  };
}

function concatSources(sources: readonly Source<unknown>[]): Source<unknown> {
  return {
    name: 'concat',
    open: async function* (signal, from): AsyncGenerator<Item> {
      const start = from as { readonly source: number; readonly at: Cursor } | undefined;
      for (const [number, source] of sources.entries()) {
        if (number < (start?.source ?? 0)) continue;
        for await (const item of source.open(signal, number === start?.source ? start.at : undefined)) {
          yield item.cursor === undefined ? item : { ...item, cursor: { source: number, at: item.cursor } };
        }
      }
    },
  };
}

/** Where an item of a shard is: its cursor in the source, and its number there; `index` is 0 but for shards to come. */
const SHARD_CURSOR = z.strictObject({ at: z.unknown(), before: count, index: count });

function shardSource(source: Source<unknown>, { shardIndex, numShards }: Shard): Source<unknown> {
  if (shardIndex >= numShards) {
    throw new ConfigError({
      where: 'shard: shardIndex',
      expected: `less than numShards, ${numShards}`,
      received: String(shardIndex),
      remedy: 'correct this value',
    });
  }
  return {
    name: source.name,
    open: async function* (signal, from): AsyncGenerator<Item> {
      const start = from === undefined ? undefined : SHARD_CURSOR.parse(from);
      let position = start?.before ?? 0;
      const first = position + (start?.index ?? 0);
      for await (const item of source.open(signal, start?.at)) {
        const before = position++;
        if (before < first || before % numShards !== shardIndex) continue;
        yield item.cursor === undefined ? item : { ...item, cursor: { at: item.cursor, before, index: 0 } };
      }
    },
  };
}
