// Rows in a deterministic order, from chunks that are loaded whole (row groups, record batches, stretches of lines):
// one window of chunks is held, and the next one loads meanwhile. What the sources of files share.

import { DataError } from '../errors.js';
import type { Cursor, SourceFault, SourceItem } from '../flow/types.js';
import { decode, z } from '../schema.js';
import { bucketed, lengthOf } from './bucket.js';
import { bytesOf, cleanCells } from './cells.js';
import { permutation, random } from './random.js';
import { withRow } from './row-again.js';
import type { Origin } from './types.js';
import { satisfiesWhere, type Conditions } from './where.js';

/** Rows that are loaded together. */
export interface Chunk {
  readonly numRows: number;
  /** About what it takes in memory once it is loaded. */
  readonly bytes: number;
}

/** A chunk in memory. */
export interface LoadedChunk {
  /** Row `row` of the chunk, or a promise of it; it may be a view of the chunk's memory. What it throws makes the row a
   *  fault, and the reading goes on. */
  readonly rowAt: (row: number) => unknown;
  /** Whether row `row` is wanted, where not all are; what it throws makes the row a fault. */
  readonly matches?: (row: number) => boolean;
  readonly originOf: (row: number) => Origin;
  /** Names the row in messages. */
  readonly describe: (row: number) => string;
}

export interface ChunkLoader<C extends Chunk> {
  /** Called for one chunk at a time. What it throws ends the reading. */
  readonly load: (chunk: C, signal: AbortSignal) => Promise<LoadedChunk>;
  /** Called once, when nothing loads any more. */
  readonly close?: () => Promise<void>;
}

/** What `readWindows` reads of a source's decoded options; `ParquetOptions` tells what they mean. */
export interface WindowOptions {
  readonly shuffle?: { readonly seed: number; readonly windowBytes: number } | undefined;
  readonly epochs: number;
  readonly shardIndex: number;
  readonly numShards: number;
  readonly readAhead: boolean;
  readonly maxItemBytes: number;
  readonly explode?: ((row: unknown, origin: Origin) => Iterable<unknown>) | undefined;
  /** Rows that do not satisfy it are no items at all; chunks that have `matches` tell by themselves. */
  readonly where?: Conditions | undefined;
  readonly bucket?: { readonly by: (item: never) => number; readonly size: number } | undefined;
  /** Values are not the source's own: they are passed on uncopied. */
  readonly asTheyAre?: boolean;
}

export type Item = SourceItem<unknown> | SourceFault;

/** Where an item is: the epoch, the window in it, and the item's number in that window's order. */
interface WindowCursor {
  readonly epoch: number;
  readonly window: number;
  readonly index: number;
  /** Items of the stream in the windows before, of all epochs and shards. */
  readonly before: number;
  /** Under `bucket`: those of them that could be read. */
  readonly read?: number | undefined;
}

const CURSOR = z.strictObject({
  epoch: z.int().min(0),
  window: z.int().min(0),
  index: z.int().min(0),
  before: z.int().min(0),
  read: z.int().min(0).optional(),
});

/** All items of the chunks, in the order that the options ask for.
 *  @param name of the source, for messages
 *  @param from the cursor of an item: that item comes first, and then all as before */
export async function* readWindows<C extends Chunk>(
  name: string,
  chunks: readonly C[],
  options: WindowOptions,
  loader: ChunkLoader<C>,
  signal: AbortSignal,
  from?: Cursor,
): AsyncGenerator<Item, void, undefined> {
  const start = from === undefined ? undefined : decode(CURSOR, from, `${name}: cursor`);
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  const windows = windowsOf(chunks, options, start);
  const advance = (): Promise<LoadedWindow | undefined> => {
    const { value } = windows.next();
    const loading = value ? loadWindow(value, chunks, options, loader, stopped) : Promise.resolve(undefined);
    loading.catch(() => {}); // whoever awaits it hears of it
    return loading;
  };

  let next = advance();
  try {
    for (;;) {
      const window = await next;
      if (!window) return;
      if (options.readAhead) next = advance();
      for (const made of window.items()) {
        signal.throwIfAborted();
        const item = made instanceof Promise ? await made : made;
        signal.throwIfAborted();
        yield item;
      }
      if (!options.readAhead) next = advance();
    }
  } finally {
    stop.abort();
    await next.catch(() => {}); // its descriptor is closed then
    await loader.close?.();
  }
}

/** The most bytes of loaded chunks that are held at once. */
export function heldBytes(
  chunks: readonly Chunk[],
  { shuffle, readAhead }: Pick<WindowOptions, 'shuffle' | 'readAhead'>,
): number {
  let largest = 0;
  let all = 0;
  for (const { bytes } of chunks) {
    largest = Math.max(largest, bytes);
    all += bytes;
  }
  const window = shuffle ? Math.min(all, Math.max(largest, shuffle.windowBytes)) : largest;
  return (readAhead ? 2 : 1) * window;
}

/** Chunks that are held together, and the generator that mixes their rows. */
interface Window {
  /** Numbers of its chunks, in the order of the epoch. */
  readonly members: readonly number[];
  readonly epoch: number;
  readonly number: number;
  /** Items in the windows before this one are counted on; `skip` of this one's were done by other shards. */
  readonly position: { count: number; read: number; skip: number };
  /** The first item that is wanted. */
  readonly firstIndex: number;
  readonly keys?: readonly number[];
}

function* windowsOf(
  chunks: readonly Chunk[],
  { shuffle, epochs }: WindowOptions,
  start?: WindowCursor,
): Generator<Window, undefined> {
  // Counted over all epochs, so that a step's batches of all shards are the same items, however many shards there are.
  const position = { count: start?.before ?? 0, read: start?.read ?? 0, skip: 0 };
  for (let epoch = start?.epoch ?? 0; epoch < epochs; epoch++) {
    const here = epoch === start?.epoch ? start : undefined;
    const windows = shuffle
      ? pack(chunks, permutation(chunks.length, random(shuffle.seed, epoch)), shuffle.windowBytes)
      : chunks.map((_, i) => [i]);
    for (const [number, members] of windows.entries()) {
      if (number < (here?.window ?? 0)) continue;
      const firstIndex = number === here?.window ? here.index : 0;
      const keys = shuffle ? { keys: [shuffle.seed, epoch, number] } : {};
      yield { members, epoch, number, position, firstIndex, ...keys };
    }
  }
  return undefined;
}

function pack(chunks: readonly Chunk[], order: Iterable<number>, windowBytes: number): number[][] {
  const windows: number[][] = [];
  let room = 0;
  for (const i of order) {
    const { bytes } = chunks[i]!;
    const last = windows.at(-1);
    if (last && bytes <= room) last.push(i);
    else {
      windows.push([i]);
      room = windowBytes;
    }
    room -= bytes;
  }
  return windows;
}

/** A loaded window's items, in order. */
interface LoadedWindow {
  readonly items: () => Iterable<Item | Promise<Item>>;
}

/** An item before its bytes are copied: a row, one of the values that it was exploded into, or a fault. */
interface Entry {
  readonly chunk: LoadedChunk;
  readonly row: number;
  readonly made?: { readonly value: unknown } | { readonly error: Error };
}

async function loadWindow<C extends Chunk>(
  window: Window,
  chunks: readonly C[],
  options: WindowOptions,
  loader: ChunkLoader<C>,
  signal: AbortSignal,
): Promise<LoadedWindow> {
  const loaded = new Map<number, LoadedChunk>();
  // In the order of the files, which spares a source that reads on from going back.
  for (const i of [...window.members].sort((a, b) => a - b)) {
    signal.throwIfAborted();
    loaded.set(i, await loader.load(chunks[i]!, signal));
  }
  const entries: Entry[] = [];
  for (const i of window.members) {
    const chunk = loaded.get(i)!;
    for (let row = 0; row < chunks[i]!.numRows; row++) {
      const kept =
        options.where || chunk.matches ? await whereEntry(chunk, row, options.where) : { chunk, row };
      if (!kept) continue;
      if (options.explode && !kept.made) entries.push(...(await explodedEntries(chunk, row, options)));
      else entries.push(kept);
    }
  }
  const permuted = window.keys && permutation(entries.length, random(...window.keys, 1));
  const lengths = options.bucket && (await lengthsOf(entries, options));
  const { shardIndex, numShards } = options;
  const { epoch, number, position, firstIndex } = window;
  // Weakly: a sample on its way keeps no window alive that is done with.
  const held = new WeakRef(entries);
  return {
    *items() {
      const before = position.count;
      const read = options.bucket ? { read: position.read } : {};
      position.count += entries.length;
      const order = lengths
        ? bucketed(permuted ?? entries.keys(), lengths, {
            size: options.bucket.size,
            phase: position.read,
            keys: [...(window.keys ?? [0, epoch, number]), 2],
          })
        : permuted;
      if (lengths) position.read += lengths.reduce((sum, length) => sum + Number(!Number.isNaN(length)), 0);
      const first = firstIndex + position.skip;
      position.skip = Math.max(0, first - entries.length);
      for (let index = first; index < entries.length; index++) {
        if ((before + index) % numShards !== shardIndex) continue;
        const place = order ? order[index]! : index;
        const cursor = { epoch, window: number, index, before, ...read };
        yield itemOf(entries[place]!, options, cursor, rowAgain(held, place));
      }
    },
  };
}

/** The row as an entry; undefined where it is none of those that are wanted. */
async function whereEntry(
  chunk: LoadedChunk,
  row: number,
  where: Conditions | undefined,
): Promise<Entry | undefined> {
  try {
    if (chunk.matches) return chunk.matches(row) ? { chunk, row } : undefined;
    const value = chunk.rowAt(row);
    const cells = Object(value instanceof Promise ? await value : value) as Record<string, unknown>;
    const wanted = satisfiesWhere(where!, (name) => (Object.hasOwn(cells, name) ? cells[name] : null));
    return wanted ? { chunk, row } : undefined;
  } catch (thrown) {
    return { chunk, row, made: { error: errorOf(thrown) } };
  }
}

/** The lengths of the items, NaN for faults. Those of which there is none become faults. */
async function lengthsOf(entries: Entry[], { bucket, asTheyAre }: WindowOptions): Promise<Float64Array> {
  const lengths = new Float64Array(entries.length);
  for (const [i, entry] of entries.entries()) {
    const { chunk, row } = entry;
    const where = () => chunk.describe(row);
    try {
      if (entry.made && 'error' in entry.made) throw entry.made.error;
      const value = rowOf(entry);
      const given: unknown = value instanceof Promise ? await value : value;
      lengths[i] = lengthOf(
        asTheyAre || entry.made ? given : cleanCells(given, 'view', where),
        bucket!.by,
        where,
      );
    } catch (thrown) {
      lengths[i] = NaN;
      entries[i] = { chunk, row, made: { error: errorOf(thrown) } };
    }
  }
  return lengths;
}

async function explodedEntries(
  chunk: LoadedChunk,
  row: number,
  { explode, asTheyAre }: WindowOptions,
): Promise<Entry[]> {
  try {
    const where = () => chunk.describe(row);
    const value = chunk.rowAt(row);
    const given: unknown = value instanceof Promise ? await value : value;
    const cells = asTheyAre ? given : cleanCells(given, 'view', where);
    const values = explodeRow(cells, chunk.originOf(row), explode!, where);
    return values.map((part) => ({ chunk, row, made: { value: part } }));
  } catch (thrown) {
    return [{ chunk, row, made: { error: errorOf(thrown) } }];
  }
}

/** What `explode` makes of a row.
 *  @throws {DataError} when that is nothing, and what `explode` throws */
export function explodeRow(
  row: unknown,
  origin: Origin,
  explode: NonNullable<WindowOptions['explode']>,
  where: () => string,
): unknown[] {
  const values: unknown[] = [...explode(row, origin)];
  if (values.length > 0) return values;
  throw new DataError({
    where: where(),
    expected: 'at least one item from explode',
    received: 'none',
    remedy: 'make one of each row, and leave items out by a filter in the flow, which counts them',
  });
}

function itemOf(
  entry: Entry,
  { maxItemBytes, asTheyAre }: WindowOptions,
  cursor: WindowCursor,
  again: () => unknown,
): Item | Promise<Item> {
  const { chunk, row, made } = entry;
  const origin = withRow(chunk.originOf(row), again);
  const fault = (error: unknown): Item => ({ error: errorOf(error), bytes: 0, origin, cursor });
  const finish = (value: unknown): Item => {
    try {
      const where = () => chunk.describe(row);
      const bytes = weigh(value, maxItemBytes, where);
      return { value: asTheyAre ? value : cleanCells(value, 'copy', where), bytes, origin, cursor };
    } catch (error) {
      return fault(error);
    }
  };
  if (made) return 'error' in made ? fault(made.error) : finish(made.value);
  try {
    const value = chunk.rowAt(row);
    return value instanceof Promise ? value.then(finish, fault) : finish(value);
  } catch (error) {
    return fault(error);
  }
}

/** Made out here: a closure holds all variables of the function it is written in, and with them the window. */
function rowAgain(held: WeakRef<Entry[]>, place: number): () => unknown {
  return () => rowOf(held.deref()?.[place]);
}

/** What an entry was made of; what it was exploded into, where it was. Views of the chunk's memory. */
function rowOf(entry: Entry | undefined): unknown {
  if (!entry) return undefined;
  return entry.made && 'value' in entry.made ? entry.made.value : entry.chunk.rowAt(entry.row);
}

/** The bytes of an item. @throws {DataError} when it is heavier than allowed */
export function weigh(value: unknown, maxItemBytes: number, where: () => string): number {
  const bytes = bytesOf(value);
  if (bytes <= maxItemBytes) return bytes;
  throw new DataError({
    where: where(),
    expected: `at most ${maxItemBytes} bytes (maxItemBytes)`,
    received: `${bytes}`,
    remedy: 'the row is left out; raise the limit to have it',
  });
}

function errorOf(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
