// Sources made of sources. Faults pass through in their place; order is a function of the source's order.

import { DataError } from '../errors.js';
import type { Cursor, Origin, Source, SourceFault, SourceItem } from '../flow/types.js';
import { decode, z } from '../schema.js';
import { bytesOf } from './cells.js';
import { random } from './random.js';

type Item<T> = SourceItem<T> | SourceFault;

/** Several items of each item, such as one of each turn. Each has the origin of the item that it comes from, and weighs all
 *  bytes that it reaches, also those it shares with its neighbours: they are counted too often rather than too seldom.
 *  Where `fn` throws, or makes none, the item becomes a fault. (`parquet` has `explode`, which shuffles over the parts.) */
export function flatMapRows<A, B>(
  source: Source<A>,
  fn: (value: A, origin: Origin) => Iterable<B>,
): Source<B> {
  async function* open(signal: AbortSignal, from?: Cursor): AsyncGenerator<Item<B>, void, undefined> {
    const start = from as { readonly at: Cursor; readonly part: number } | undefined;
    let skip = start?.part ?? 0;
    for await (const item of source.open(signal, start?.at)) {
      let part = 0;
      for (const made of 'error' in item ? [item] : expand(item)) {
        const cursor = item.cursor === undefined ? {} : { cursor: { at: item.cursor, part } };
        if (part++ >= skip) yield { ...made, ...cursor };
      }
      skip = 0;
    }
  }

  function* expand({ value, origin }: SourceItem<A>): Generator<Item<B>> {
    try {
      let count = 0;
      for (const part of fn(value, origin)) {
        count++;
        yield { value: part, bytes: bytesOf(part), origin };
      }
      if (count > 0) return;
    } catch (error) {
      yield { error, bytes: 0, origin };
      return;
    }
    const error = new DataError({
      where: `${origin.file}, row ${origin.row}`,
      expected: 'at least one item from flatMapRows',
      received: 'none',
      remedy: 'make one of each row, and leave items out by a filter in the flow, which counts them',
    });
    yield { error, bytes: 0, origin };
  }

  return { name: source.name, open };
}

/** A source that keeps items back. What it keeps has not been admitted by the flow's gate yet: choose the pool so that
 *  `poolBytes + maxHeldBytes` fits. */
export interface HoldingSource<T> extends Source<T> {
  /** The most bytes of items that it holds at once, beside the pool. */
  readonly maxHeldBytes: number;
}

export interface ShuffleBufferOptions {
  /** The most items that are held: none comes out more than `size - 1` places before its turn. */
  readonly size: number;
  readonly seed: number;
  /** The most bytes that are held; fewer than `size` items where these fill it. 64 MiB by default. */
  readonly maxBytes?: number;
}

const shuffleBufferOptions = z.strictObject({
  size: z.int().positive(),
  seed: z.int().nonnegative(),
  maxBytes: z
    .int()
    .positive()
    .default(64 * 2 ** 20),
});

/** Mixes a source that has no order of its own choosing: reads until the buffer is full, then gives out a random one of
 *  those held for each that it reads, the rest at the end. The order is a function of the seed and the source's order. Where
 *  the source repeats epochs, neighbouring ones mix; open it once an epoch (`repeatSource`) to keep them apart, but
 *  in the same order. An item heavier than `maxBytes` passes straight through. */
export function shuffleBuffer<T>(source: Source<T>, options: ShuffleBufferOptions): HoldingSource<T> {
  const { size, seed, maxBytes } = decode(shuffleBufferOptions, options, 'shuffleBuffer');

  async function* open(signal: AbortSignal): AsyncGenerator<Item<T>, void, undefined> {
    const generator = random(seed);
    const held: Item<T>[] = [];
    let heldBytes = 0;

    function takeRandom(): Item<T> {
      const index = generator.below(held.length);
      const taken = held[index]!;
      const last = held.pop()!;
      if (index < held.length) held[index] = last;
      heldBytes -= taken.bytes;
      return taken;
    }

    for await (const item of source.open(signal)) {
      if (item.bytes > maxBytes) {
        yield withoutCursor(item);
        continue;
      }
      while (held.length > 0 && (held.length >= size || heldBytes + item.bytes > maxBytes))
        yield takeRandom();
      held.push(withoutCursor(item));
      heldBytes += item.bytes;
    }
    while (held.length > 0) yield takeRandom();
  }

  return { ...source, open, maxHeldBytes: maxBytes };
}

/** In another order the source's own cursors lead nowhere: a run is continued by counting. */
function withoutCursor<T>({ cursor: _cursor, ...item }: Item<T>): Item<T> {
  return item;
}
