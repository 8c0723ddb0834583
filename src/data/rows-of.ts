// Values of the program itself as a source of rows: an array, anything that can be iterated, or a function that makes
// either. What can be iterated once only cannot begin again: it has one epoch and no resuming.

import { createHash } from 'node:crypto';
import { ConfigError, DataError, messageOf } from '../errors.js';
import type { Cursor } from '../flow/types.js';
import { decode, z } from '../schema.js';
import {
  checkShard,
  defineSource,
  READING,
  type Explode,
  type ReadingOptions,
  type RowSource,
} from './source-part.js';
import { withRow } from './row-again.js';
import { hashValue } from './rows-of-hash.js';
import { satisfiesWhere } from './where.js';
import { explodeRow, readWindows, weigh, type Item, type LoadedChunk } from './windows.js';

type Values<R> = Iterable<R> | AsyncIterable<R>;

export interface RowsOptions extends Omit<ReadingOptions, 'shuffle'> {
  /** Names the source in origins, messages and the mix's counts; "rows" by default. */
  readonly name?: string;
  /** Of arrays alone: all rows are permuted together, in another order each epoch. */
  readonly shuffle?: { readonly seed: number };
}

/** What is known before a run: the number of rows of an array. */
export interface RowsPlan {
  readonly numRows?: number;
}

export type RowsSource<T> = RowSource<T, RowsPlan>;

type Given = readonly unknown[] | Values<unknown> | (() => Values<unknown> | Promise<Values<unknown>>);

const OPTIONS = z
  .strictObject({
    rows: z.custom<Given>(
      (value) => typeof value === 'function' || isIterable(value),
      'expected an array, an iterable, or a function that makes one',
    ),
    name: z.string().min(1).default('rows'),
    ...READING,
    shuffle: z.strictObject({ seed: z.int().min(0) }).optional(),
  })
  .superRefine(checkShard)
  .superRefine(({ rows, shuffle, bucket, epochs }, context) => {
    if (bucket && !Array.isArray(rows)) {
      const message = 'expected no bucket but of an array: it sorts rows that are there';
      context.addIssue({ code: 'custom', path: ['bucket'], message, input: bucket });
    }
    if (shuffle && !Array.isArray(rows)) {
      const message =
        'expected no shuffle but of an array: rows that come one by one are in the order that they come in';
      context.addIssue({ code: 'custom', path: ['shuffle'], message, input: shuffle });
    }
    if (epochs > 1 && typeof rows !== 'function' && isIterable(rows) && isOnce(rows)) {
      const message = 'expected 1 for what can be iterated once: give a function that makes it anew';
      context.addIssue({ code: 'custom', path: ['epochs'], message, input: epochs });
    }
  });

type Options = z.output<typeof OPTIONS>;

const build = defineSource('rows', OPTIONS, {
  read: (options, signal, from) =>
    Array.isArray(options.rows) ? readArray(options, signal, from) : readValues(options, signal, from),
  plan: async ({ rows, name }): Promise<RowsPlan> => {
    if (!Array.isArray(rows)) return {};
    assertSome(rows.length, name);
    return { numRows: rows.length };
  },
  fingerprint: async ({ rows, name }) => {
    const hash = createHash('sha256').update(`${name}\n`);
    if (Array.isArray(rows)) hashValue(hash, rows);
    else if (typeof rows === 'function') hash.update(String(rows)); // its text, which is all that stays the same
    return hash.digest('hex');
  },
});

/** A source of plain values. They are passed on as they are, and not copied.
 *  @param rows of a string or bytes nothing is made: give them in an array
 *  Opening throws {ConfigError} on wrong options, and on opening again what can be iterated once; {DataError} when there is
 *  no row. What the iteration throws ends the run.
 *  @example rows(questions.map(({ q, a }) => chat(user(q), assistant(a))), { shuffle: { seed: 1 }, epochs: 3 })
 *  @example rows(async function* () { yield* await database.rows() }, { name: 'questions' }) */
export function rows<T, R>(
  given: Values<R> | (() => Values<R> | Promise<Values<R>>),
  options: RowsOptions & Explode<R, T>,
): RowsSource<T>;
export function rows<R>(
  given: Values<R> | (() => Values<R> | Promise<Values<R>>),
  options?: RowsOptions,
): RowsSource<R>;
export function rows(
  given: unknown,
  options: RowsOptions & Partial<Explode<never, unknown>> = {},
): RowsSource<unknown> {
  return build({ rows: given, ...options });
}

async function* readArray(options: Options, signal: AbortSignal, from?: Cursor): AsyncGenerator<Item, void> {
  const values = options.rows as readonly unknown[];
  assertSome(values.length, options.name);
  const chunk: LoadedChunk = {
    // A promise among them is awaited, as it is when a generator gives one.
    rowAt: (row) => values[row],
    originOf: (row) => ({ file: options.name, rowGroup: 0, row }),
    describe: (row) => `${options.name}, row ${row}`,
  };
  const { shuffle, maxItemBytes = Infinity } = options;
  const windows = {
    ...options,
    shuffle: shuffle && { ...shuffle, windowBytes: Infinity },
    maxItemBytes,
    readAhead: false,
    asTheyAre: true,
  };
  const chunks = [{ numRows: values.length, bytes: 0 }];
  yield* readWindows('rows', chunks, windows, { load: async () => chunk }, signal, from);
}

/** Where an item is: the epoch, its row in it, the item's number among those made of the row. */
const CURSOR = z.strictObject({
  epoch: z.int().min(0),
  row: z.int().min(0),
  part: z.int().min(0),
  /** Items of the stream before the row, of all epochs and shards. */
  before: z.int().min(0),
});

async function* readValues(options: Options, signal: AbortSignal, from?: Cursor): AsyncGenerator<Item, void> {
  const { name, epochs, shardIndex, numShards } = options;
  const start = from === undefined ? undefined : decode(CURSOR, from, 'rows: cursor');
  const isStart = !start || (start.epoch === 0 && start.row === 0 && start.part === 0);
  let before = start?.before ?? 0;
  const first = before + (start?.part ?? 0);
  for (let epoch = start?.epoch ?? 0; epoch < epochs; epoch++) {
    const here = epoch === start?.epoch ? start : undefined;
    let row = 0;
    for await (const value of iterate(options, signal, isStart)) {
      if (row >= (here?.row ?? 0)) {
        const parts = itemsOf(value, row, options);
        for (const [part, item] of parts.entries()) {
          if (before + part < first) continue;
          if ((before + part) % numShards !== shardIndex) continue;
          yield { ...item, cursor: { epoch, row, part, before } };
        }
        before += parts.length;
      }
      row++;
    }
    assertSome(row, name);
  }
}

/** A value up to here stays with its sample while that is on its way: it cannot be read again. */
const KEPT_BYTES = 2 ** 16;

function itemsOf(value: unknown, row: number, options: Options): Item[] {
  const { name, explode, where: conditions, maxItemBytes = Infinity } = options;
  const cells = Object(value) as Record<string, unknown>;
  if (conditions && !satisfiesWhere(conditions, (key) => (Object.hasOwn(cells, key) ? cells[key] : null)))
    return [];
  const origin = { file: name, rowGroup: 0, row };
  const where = () => `${name}, row ${row}`;
  const itemOf = (made: unknown): Item => {
    try {
      const bytes = weigh(made, maxItemBytes, where);
      return { value: made, bytes, origin: bytes > KEPT_BYTES ? origin : withRow(origin, () => made) };
    } catch (error) {
      return { error, bytes: 0, origin };
    }
  };
  if (!explode) return [itemOf(value)];
  try {
    return explodeRow(value, origin, explode, where).map(itemOf);
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    return [{ error, bytes: 0, origin }];
  }
}

/** Iterators that have been read: they do not begin again. */
const spent = new WeakSet<object>();

async function* iterate(
  { rows: given, name }: Options,
  signal: AbortSignal,
  isStart: boolean,
): AsyncGenerator<unknown, void> {
  const values: unknown = typeof given === 'function' ? await given() : given;
  if (!isIterable(values)) {
    throw new ConfigError({
      where: `rows "${name}"`,
      expected: 'a function that makes something to iterate',
      received: values === null ? 'null' : `a ${typeof values}`,
      remedy: 'return an array or an iterator from it',
    });
  }
  if (isOnce(values)) {
    const used = spent.has(values);
    if (used || (!isStart && typeof given !== 'function')) {
      throw new ConfigError({
        where: `rows "${name}"`,
        expected: 'something that can be iterated again from its beginning',
        received: used
          ? 'an iterator that has been read before'
          : 'an iterator, to go on with where a run had stopped',
        remedy: 'give rows a function that makes it anew: rows(() => ...)',
      });
    }
    spent.add(values);
  }
  const iterator =
    Symbol.asyncIterator in values ? values[Symbol.asyncIterator]() : values[Symbol.iterator]();
  // A race against one promise of the whole stream would keep each row until that promise settles.
  let giveUp: ((reason: unknown) => void) | undefined;
  const onAbort = (): void => giveUp?.(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  let row = 0;
  let waiting = false;
  let done = false;
  try {
    for (;;) {
      signal.throwIfAborted();
      waiting = true;
      const where = `${name}, row ${row}`;
      const next = await new Promise<IteratorResult<unknown>>((resolve, reject) => {
        giveUp = reject;
        advance(iterator, where).then(resolve, reject);
      });
      waiting = false;
      if (next.done) {
        done = true;
        return;
      }
      yield next.value;
      row++;
    }
  } catch (error) {
    done ||= error instanceof DataError && waiting; // it has ended by throwing
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    // An iterator that does not answer would not answer this either.
    if (!done && waiting) void Promise.resolve(iterator.return?.()).catch(() => {});
    else if (!done) await iterator.return?.();
  }
}

async function advance(
  iterator: Iterator<unknown> | AsyncIterator<unknown>,
  where: string,
): Promise<IteratorResult<unknown>> {
  try {
    const next = await iterator.next();
    return next.done ? next : { done: false, value: await next.value };
  } catch (cause) {
    throw new DataError(
      { where, expected: 'the next value', received: messageOf(cause), remedy: 'mend what is iterated' },
      { cause },
    );
  }
}

function assertSome(count: number, name: string): void {
  if (count > 0) return;
  throw new DataError({
    where: `rows "${name}"`,
    expected: 'at least one row',
    received: 'none',
    remedy: 'give values to iterate',
  });
}

function isIterable(value: unknown): value is Values<unknown> & object {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return false;
  return Symbol.iterator in value || Symbol.asyncIterator in value;
}

/** Whether this can be iterated once only: iterators, generators and streams, which are their own iteration. */
function isOnce(values: Values<unknown> & object): boolean {
  if (values instanceof ReadableStream || 'pipe' in values) return true;
  if (Symbol.asyncIterator in values) return 'next' in values;
  return 'next' in values && typeof values.next === 'function';
}
