// The reading behind `folder`: a list of rows first, in stretches that are the chunks of windows; bytes when a row is
// pulled.

import { basename, dirname, join } from 'node:path';
import { DataError, messageOf } from '../errors.js';
import type { Cursor } from '../flow/types.js';
import { fingerprintListing, listFolder, type Listed, type Listing, type MediaKind } from './folder-list.js';
import { readMetadata, type MetadataRow } from './folder-metadata.js';
import { OpenFile } from './open-file.js';
import {
  heldBytes,
  readWindows,
  type Chunk,
  type Item,
  type LoadedChunk,
  type WindowOptions,
} from './windows.js';

/** The options of `folder`, decoded. */
export interface FolderReadOptions extends Omit<WindowOptions, 'maxItemBytes' | 'readAhead'> {
  readonly dir: string;
  readonly media?: MediaKind | undefined;
  readonly maxItemBytes?: number | undefined;
}

/** What reading takes, known from the folder's list and its metadata. */
export interface FolderPlan {
  readonly dir: string;
  readonly numRows: number;
  /** Of the media, encoded. */
  readonly bytes: number;
  /** The most bytes that the source holds at once, beside the flow's pool. */
  readonly heldBytes: number;
  /** Files in the folder that are not read: of other kinds, and captions of nothing. */
  readonly ignored: readonly string[];
}

/** A row before its bytes are read. */
interface FolderRow {
  readonly path: string;
  readonly media?: Listed & { readonly kind: MediaKind };
  readonly caption?: Listed;
  readonly metadata?: MetadataRow;
}

export async function planFolder(options: FolderReadOptions): Promise<FolderPlan> {
  const listing = await listFolder(options.dir, options.media, new AbortController().signal);
  const rows = await rowsOf(listing);
  const captions = new Set(rows.map(({ caption }) => caption?.path));
  return {
    dir: options.dir,
    numRows: rows.length,
    bytes: rows.reduce((sum, { media }) => sum + (media?.stamp.size ?? 0), 0),
    heldBytes: heldBytes(chunksOf(rows, options), { ...options, readAhead: options.explode !== undefined }),
    ignored: [...listing.others, ...[...listing.texts.keys()].filter((path) => !captions.has(path))].sort(),
  };
}

export async function fingerprintFolder({ dir, media }: FolderReadOptions): Promise<string> {
  return fingerprintListing(await listFolder(dir, media, new AbortController().signal));
}

interface FolderChunk extends Chunk {
  readonly rows: readonly FolderRow[];
  readonly first: number;
}

/** Opens the source; see `folder`. */
export async function* readFolder(
  options: FolderReadOptions,
  signal: AbortSignal,
  from?: Cursor,
): AsyncGenerator<Item, void, undefined> {
  const { dir, maxItemBytes = DEFAULT_ITEM_BYTES } = options;
  const rows = await rowsOf(await listFolder(dir, options.media, signal));
  // Without `explode` a chunk is a list alone: there is nothing to read ahead.
  const windows = { ...options, maxItemBytes, readAhead: options.explode !== undefined };
  const load = async ({ rows: some, first }: FolderChunk, stopped: AbortSignal): Promise<LoadedChunk> => ({
    rowAt: (row) => readRow(dir, some[row]!, maxItemBytes, stopped),
    originOf: (row) => ({ file: join(dir, some[row]!.path), rowGroup: 0, row: first + row }),
    describe: (row) => join(dir, some[row]!.path),
  });
  yield* readWindows('folder', chunksOf(rows, options), windows, { load }, signal, from);
}

const DEFAULT_ITEM_BYTES = 2 ** 30;

async function readRow(
  dir: string,
  { path, media, caption, metadata }: FolderRow,
  maxItemBytes: number,
  signal: AbortSignal,
): Promise<Record<string, unknown>> {
  if (metadata?.error) throw metadata.error;
  if (!media) {
    throw new DataError({
      where: `${join(dir, metadata!.file)}, row ${metadata!.row}`,
      expected: `a picture or clip at ${join(dir, path)}`,
      received: 'none',
      remedy: 'the row is left out; put the file there, or correct file_name',
    });
  }
  if (media.stamp.size > maxItemBytes) {
    throw new DataError({
      where: join(dir, path),
      expected: `at most ${maxItemBytes} bytes (maxItemBytes)`,
      received: `${media.stamp.size}`,
      remedy: 'the row is left out; raise the limit to have it',
    });
  }
  signal.throwIfAborted();
  const label = basename(dirname(path));
  return {
    [media.kind]: { bytes: await readListed(dir, media), path },
    ...(caption ? { text: await readCaption(dir, caption) } : {}),
    ...(path.includes('/') ? { label } : {}),
    ...metadata?.cells,
  };
}

async function readListed(dir: string, { path, stamp }: Listed): Promise<Uint8Array> {
  await using file = await OpenFile.open(join(dir, path), 'file');
  file.assertUnchanged(stamp);
  return file.read(0, stamp.size);
}

const MAX_CAPTION_BYTES = 2 ** 24;

/** The text without the line breaks at its end. */
async function readCaption(dir: string, caption: Listed): Promise<string> {
  const where = join(dir, caption.path);
  const fault = (received: string, cause?: unknown): DataError =>
    new DataError(
      {
        where,
        expected: `a caption in UTF-8 of at most ${MAX_CAPTION_BYTES} bytes`,
        received,
        remedy: 'the row is left out; mend the file to have it',
      },
      { cause },
    );
  if (caption.stamp.size > MAX_CAPTION_BYTES) throw fault(`${caption.stamp.size} bytes`);
  const bytes = await readListed(dir, caption);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes).replace(/[\r\n]+$/, '');
  } catch (cause) {
    throw fault(messageOf(cause), cause);
  }
}

/** The rows in the order of their media's paths; of one path, in the order of the metadata. */
async function rowsOf(listing: Listing): Promise<FolderRow[]> {
  const described = new Map<string, MetadataRow[]>();
  for (const listed of listing.metadata) {
    for (const row of await readMetadata(listing.dir, listed)) {
      const before = described.get(row.path);
      if (before) before.push(row);
      else described.set(row.path, [row]);
    }
  }
  const paths = [...new Set([...listing.media.keys(), ...described.keys()])];
  paths.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const rows = paths.flatMap((path): FolderRow[] => {
    const media = listing.media.get(path);
    const caption = media && listing.texts.get(path.replace(/\.[^./]*$/, '.txt'));
    const row = { path, ...(media ? { media } : {}), ...(caption ? { caption } : {}) };
    return described.get(path)?.map((metadata) => ({ ...row, metadata })) ?? [row];
  });
  if (rows.length > 0) return rows;
  throw new DataError({
    where: listing.dir,
    expected: 'at least one picture or clip',
    received: listing.others.length > 0 ? `files such as ${listing.others[0]!}` : 'no files',
    remedy: 'name the folder that the media lie in',
  });
}

const CHUNK_ROWS = 64;
/** Under `explode` a chunk holds its media. */
const CHUNK_BYTES = 2 ** 23;
/** What a row takes beside its bytes. */
const BYTES_A_ROW = 256;

function chunksOf(rows: readonly FolderRow[], { explode }: FolderReadOptions): FolderChunk[] {
  const chunks: { rows: FolderRow[]; first: number; numRows: number; bytes: number }[] = [];
  for (const [i, row] of rows.entries()) {
    const bytes = BYTES_A_ROW + (explode ? (row.media?.stamp.size ?? 0) : 0);
    const last = chunks.at(-1);
    if (last && last.numRows < CHUNK_ROWS && last.bytes + bytes <= CHUNK_BYTES) {
      last.rows.push(row);
      last.numRows++;
      last.bytes += bytes;
    } else {
      chunks.push({ rows: [row], first: i, numRows: 1, bytes });
    }
  }
  return chunks;
}
