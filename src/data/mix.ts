// One source of several: each next item comes from a source drawn by weight. The order is a function of the seed, the
// weights and the sources' own orders.

import { DataError } from '../errors.js';
import type { Source, SourceFault, SourceItem } from '../flow/types.js';
import { type Part, definePart, isPart, make, part } from '../parts.js';
import { decode, z } from '../schema.js';
import { type Random, random } from './random.js';

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
  };

/** What entries of these types give. */
type ItemOf<E> = E extends { readonly source: Source<infer T> | Part<'source', undefined, Source<infer T>> }
  ? T
  : never;

const partOfSource = part('source');
const sourceSlot = z.unknown().transform((value, context): Source<unknown> | Part<'source'> => {
  if (isPart(value)) {
    const result = partOfSource.safeParse(value, { reportInput: true });
    if (result.success) return result.data;
    for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
    return z.NEVER;
  }
  if (typeof (value as Partial<Source<unknown>> | null)?.open === 'function') return value as Source<unknown>;
  context.addIssue({ code: 'custom', message: 'expected a source, such as parquet(...)', input: value });
  return z.NEVER;
});

const OPTIONS = z.strictObject({
  sources: z.array(z.strictObject({ source: sourceSlot, weight: z.number().positive().default(1) })).min(1),
  stop: z.enum(['first', 'all', 'longest']).default('all'),
  seed: z.int().nonnegative().default(0),
});

type Decoded = z.output<typeof OPTIONS>;

type Made = Source<unknown> & Pick<MixSource<unknown>, 'counts' | 'plan' | 'summary'>;

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
    open: { value: (signal: AbortSignal) => itself().open(signal) },
    counts: { value: () => itself().counts() },
    summary: { value: () => itself().summary() },
    plan: { value: async () => itself().plan() },
  }) as unknown as MixSource<ItemOf<E[number]>>;
}

type Item = SourceItem<unknown> | SourceFault;

/** One source while it is read. */
interface Reading {
  readonly source: Source<unknown>;
  readonly weight: number;
  iterator: AsyncIterator<Item> | undefined;
  /** Since it was opened. */
  fresh: boolean;
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
    this.#sources = options.sources.map(
      ({ source }) =>
        (isPart(source)
          ? make(source as Part<'source', undefined, unknown>, undefined)
          : source) as Source<unknown>,
    );
    const most = this.#sources.map(({ maxItemBytes }) => maxItemBytes ?? Infinity);
    if (Number.isFinite(Math.max(...most))) this.maxItemBytes = Math.max(...most);
  }

  readonly open = (signal: AbortSignal): AsyncIterable<Item> => this.#read(signal);

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

  readonly summary = (): string =>
    `mixed ${this.counts()
      .map(({ name, items }, i) => `${items} of source ${i} (${name})`)
      .join(', ')}`;

  async *#read(signal: AbortSignal): AsyncGenerator<Item, void, undefined> {
    const { sources, stop, seed } = this.#options;
    const readings = sources.map(({ weight }, i): Reading => ({
      source: this.#sources[i]!,
      weight,
      iterator: undefined,
      fresh: false,
      items: 0,
      rounds: 0,
    }));
    this.#readings = readings;
    const generator = random(seed);
    const alive = new Set(readings);
    try {
      while (alive.size > 0) {
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
        // A source's cursor says nothing of where the mix is.
        const { bytes, origin } = item;
        yield 'error' in item ? { error: item.error, bytes, origin } : { value: item.value, bytes, origin };
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
    reading.iterator = reading.source.open(signal)[Symbol.asyncIterator]();
    reading.fresh = true;
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
