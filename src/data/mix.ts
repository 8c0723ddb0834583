// One source of several: each next item comes from a source drawn by weight. The order is a function of the seed, the
// weights and the sources' own orders.

import { DataError } from '../errors.js';
import type { Cursor, Source, SourceFault, SourceItem } from '../flow/types.js';
import { type Part, definePart } from '../parts.js';
import { decode, z } from '../schema.js';
import { type Random, random } from './random.js';
import { livingSource, sourceSlot } from './source-slot.js';

/** One of the sources, and how often it is drawn beside the others: 3 comes three times as often as 1, the default. */
export interface MixEntry<T> {
  readonly source: Source<T> | Part<'source', undefined, Source<T>>;
  readonly weight?: number;
}

export interface MixOptions {
  /** When the mix ends; 'all' by default.
   *  - 'first': when a source is drawn that has no more. The weights hold to the end, the rest is left.
   *  - 'all': when all sources have no more. Each item comes once; late in the mix, those that are left share the draws.
   *  - 'longest': when all sources have been through once. Those that end before start over, in the same order: give
   *    them `epochs` of their own for another order each time. The weights hold to the end. */
  readonly stop?: 'first' | 'all' | 'longest';
  /** Of the draws; 0 by default. */
  readonly seed?: number;
}

/** What one source gave to a mix. */
export interface MixCount {
  readonly name: string;
  readonly weight: number;
  /** Items, faults among them. */
  readonly items: number;
  /** How often it was read to its end. */
  readonly rounds: number;
}

/** A source as it is, and a part of a pipeline file. */
export type MixSource<T> = Part<'source', undefined, Source<T>> &
  Source<T> & {
    /** What each source gave when this one was read last, in the order of the entries. */
    readonly counts: () => readonly MixCount[];
    /** The counts as a line, which a run tells at its end. */
    readonly summary: () => string;
    /** Checks the sources that can be checked before a run. */
    readonly plan: () => Promise<void>;
    /** Changes with the sources' files, as far as they tell. */
    readonly fingerprint: () => Promise<readonly unknown[]>;
  };

/** What entries of these types give. */
type ItemOf<E> = E extends { readonly source: Source<infer T> | Part<'source', undefined, Source<infer T>> }
  ? T
  : never;

const OPTIONS = z.strictObject({
  sources: z.array(z.strictObject({ source: sourceSlot, weight: z.number().positive().default(1) })).min(1),
  stop: z.enum(['first', 'all', 'longest']).default('all'),
  seed: z.int().nonnegative().default(0),
});

type Decoded = z.output<typeof OPTIONS>;

type Made = Source<unknown> & Pick<MixSource<unknown>, 'counts' | 'fingerprint' | 'plan' | 'summary'>;

const definition = definePart({
  role: 'source',
  kind: 'mix',
  schema: OPTIONS,
  create: (options, _context: undefined): Made => new Mix(options),
});

/** Mixes sources item by item. At any time each holds what it holds alone: their `maxHeldBytes` and row groups add up.
 *  Faults count as items. A source without any item ends the run with a {DataError}.
 *  @example mix([{ source: pictures, weight: 2 }, { source: clips }], { stop: 'longest', seed: 1 }) */
export function mix<const E extends readonly MixEntry<unknown>[]>(
  entries: E,
  options: MixOptions = {},
): MixSource<ItemOf<E[number]>> {
  const given = { sources: [...entries], ...options };
  let made: Made | undefined;
  const itself = (): Made => (made ??= new Mix(decode(OPTIONS, given, 'mix')));
  // Not enumerable: a part is its options, and copies with other options are made of those.
  return Object.defineProperties(definition(given), {
    name: { value: 'mix' },
    open: { value: (signal: AbortSignal, from?: Cursor) => itself().open(signal, from) },
    counts: { value: () => itself().counts() },
    summary: { value: () => itself().summary() },
    plan: { value: async () => itself().plan() },
    fingerprint: { value: async () => itself().fingerprint() },
  }) as unknown as MixSource<ItemOf<E[number]>>;
}

type Item = SourceItem<unknown> | SourceFault;

/** Where a mix is: how often it has drawn, and where each source stands. */
const CURSOR = z.strictObject({
  draws: z.int().min(0),
  sources: z.array(
    z.strictObject({
      /** Of the last item that it gave in this round; none before the first. */
      last: z.unknown().optional(),
      items: z.int().min(0),
      rounds: z.int().min(0),
      ended: z.boolean(),
    }),
  ),
});

type MixCursor = z.output<typeof CURSOR>;

/** One source while it is read. */
interface Reading {
  readonly source: Source<unknown>;
  readonly weight: number;
  iterator: AsyncIterator<Item> | undefined;
  /** Nothing has come since it was opened. */
  fresh: boolean;
  /** The cursor of the last item of this round. */
  last: Cursor;
  /** It is to be opened at `last`, and that item has been given. */
  returning: boolean;
  items: number;
  rounds: number;
}

class Mix implements Made {
  readonly name = 'mix';
  readonly maxItemBytes?: number;
  readonly #sources: readonly Source<unknown>[];
  readonly #options: Decoded;
  #readings: readonly Reading[] = [];

  constructor(options: Decoded) {
    this.#options = options;
    this.#sources = options.sources.map(({ source }) => livingSource(source));
    const most = this.#sources.map(({ maxItemBytes }) => maxItemBytes ?? Infinity);
    if (Number.isFinite(Math.max(...most))) this.maxItemBytes = Math.max(...most);
  }

  readonly open = (signal: AbortSignal, from?: Cursor): AsyncIterable<Item> =>
    this.#read(signal, from === undefined ? undefined : decode(CURSOR, from, 'mix: cursor'));

  readonly counts = (): readonly MixCount[] =>
    this.#options.sources.map(({ weight }, i) => {
      const { items, rounds } = this.#readings[i] ?? { items: 0, rounds: 0 };
      return { name: this.#sources[i]!.name, weight, items, rounds };
    });

  readonly plan = async (): Promise<void> => {
    for (const source of this.#sources) {
      const { plan } = source as { plan?: unknown };
      if (typeof plan === 'function') await plan.call(source);
    }
  };

  readonly fingerprint = async (): Promise<readonly unknown[]> =>
    Promise.all(
      this.#sources.map(async (source) => {
        const { fingerprint } = source as { fingerprint?: () => Promise<unknown> };
        return typeof fingerprint === 'function' ? fingerprint.call(source) : null;
      }),
    );

  readonly summary = (): string =>
    `mixed ${this.counts()
      .map(({ name, items }, i) => `${items} of source ${i} (${name})`)
      .join(', ')}`;

  async *#read(signal: AbortSignal, from?: MixCursor): AsyncGenerator<Item, void, undefined> {
    const { sources, stop, seed } = this.#options;
    const readings = sources.map(({ weight }, i): Reading => {
      const { last, items = 0, rounds = 0 } = from?.sources[i] ?? {};
      const source = this.#sources[i]!;
      const returning = last !== undefined;
      return { source, weight, iterator: undefined, fresh: false, last, returning, items, rounds };
    });
    this.#readings = readings;
    const generator = random(seed);
    let draws = from?.draws ?? 0;
    for (let i = 0; i < draws; i++) generator.uint32();
    const alive = new Set(readings.filter((_, i) => !from?.sources[i]?.ended));
    try {
      while (alive.size > 0) {
        const before: MixCursor = {
          draws: draws++,
          sources: readings.map((reading) => {
            const { last, items, rounds } = reading;
            return { ...(last === undefined ? {} : { last }), items, rounds, ended: !alive.has(reading) };
          }),
        };
        const reading = draw(alive, generator);
        let item = await next(reading, signal, readings.indexOf(reading));
        if (!item) {
          if (stop === 'first') return;
          if (stop === 'longest' && readings.every(({ rounds }) => rounds > 0)) return;
          if (stop === 'longest') item = await next(reading, signal, readings.indexOf(reading));
          else alive.delete(reading);
        }
        if (!item) continue;
        reading.items += 1;
        reading.last = item.cursor;
        // Where a source has no cursors, neither has the mix: it is read again up to where it stood.
        const known = readings.every(
          (each) => each.last !== undefined || each.items === 0 || !alive.has(each),
        );
        const { cursor: _own, ...rest } = item;
        yield known ? { ...rest, cursor: before } : rest;
      }
    } finally {
      for (const { iterator } of readings) await iterator?.return?.();
    }
  }
}

/** The next item of a source, which is opened where it is not open; undefined at its end.
 *  @throws {DataError} when it ends without any */
async function next(reading: Reading, signal: AbortSignal, index: number): Promise<Item | undefined> {
  if (!reading.iterator) {
    const { source, returning, last } = reading;
    reading.iterator = source.open(signal, returning ? last : undefined)[Symbol.asyncIterator]();
    reading.fresh = !returning;
    if (returning) await reading.iterator.next();
    reading.returning = false;
  }
  const result = await reading.iterator.next();
  if (!result.done) {
    reading.fresh = false;
    return result.value;
  }
  if (reading.fresh) {
    throw new DataError({
      where: `mix: source ${index} (${reading.source.name})`,
      expected: 'at least one item',
      received: 'none',
      remedy: 'leave it out, or check what it reads',
    });
  }
  reading.iterator = undefined;
  reading.last = undefined;
  reading.rounds += 1;
  return undefined;
}

/** One of them, by weight. */
function draw(alive: ReadonlySet<Reading>, generator: Random): Reading {
  const readings = [...alive];
  const sum = readings.reduce((total, { weight }) => total + weight, 0);
  let left = (generator.uint32() / 2 ** 32) * sum;
  for (const reading of readings) {
    left -= reading.weight;
    if (left < 0) return reading;
  }
  return readings.at(-1)!;
}
