// A folder of segments that several processes share. Each writes files of its own, under a lock that keeps all together
// below the bound; a whole record counts, or none of it.
//
// What is in use is not pushed out by what comes later: in epochs each sample is wanted as often as any other, so that
// the least recently used would be the one that is wanted next. When the folder is full, segments of other stages that
// nobody has used for a while go, then those that nobody has used for a day; without any, nothing more is admitted.

import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../errors.js';
import { withLockFile } from '../lock.js';
import { type Record, valueOf } from './cache-record.js';
import {
  type Extent,
  INDEX_ENTRY_BYTES,
  indexBytes,
  readFully,
  readIndex,
  TRAILER_BYTES,
} from './cache-segment.js';

export interface CacheStoreOptions {
  readonly dir: string;
  /** Digest of what the samples are made by: 32 hexadecimal digits. */
  readonly stages: string;
  /** Bound on the bytes of all files of the folder. */
  readonly maxBytes: number;
  /** Is told once each of what goes wrong, and of a folder that is full. */
  readonly onTrouble: (message: string) => void;
}

const SEGMENT_BYTES = 64 * 2 ** 20;
/** Open files, of segments that are read. */
const MOST_OPEN = 64;
/** A segment that is used says so as often. */
const TOUCH_MS = 60_000;
/** Unused for so long, segments of other stages may go, and then those of these. */
const OTHERS_IDLE_MS = 600_000;
const OWN_IDLE_MS = 86_400_000;
/** A segment that its process has not written to for so long holds no more than it has. */
const ABANDONED_MS = 600_000;
/** Records beyond are not admitted: their keys would take too much memory. */
const MOST_RECORDS = 4_000_000;
/** stages-process.seg; while it is written, stages-process.RESERVED.open */
const NAME = /^([0-9a-f]{32})-[\w-]+\.(?:seg|(\d+)\.open)$/;

interface Segment {
  path: string;
  file: Promise<fs.FileHandle> | undefined;
  readers: number;
  touchedAt: number;
}

interface Place extends Extent {
  readonly segment: Segment;
}

/** The segment that this process writes. */
interface Writing {
  readonly segment: Segment;
  readonly file: fs.FileHandle;
  readonly extents: Map<string, Extent>;
  readonly reserved: number;
  end: number;
  writtenAt: number;
}

export class CacheStore {
  readonly #options: CacheStoreOptions;
  readonly #places = new Map<string, Place>();
  readonly #open = new Set<Segment>();
  readonly #told = new Set<string>();
  #writing: Writing | undefined;
  /** Records of so many bytes found no room. */
  #fullAt = Infinity;
  #failed = false;
  /** Whatever is being written: one after another. */
  #tail: Promise<void> = Promise.resolve();

  private constructor(options: CacheStoreOptions) {
    this.#options = options;
  }

  /** A folder that cannot be read or made has no records, and takes none. */
  static async open(options: CacheStoreOptions): Promise<CacheStore> {
    const store = new CacheStore(options);
    await store.#load().catch((error: unknown) => store.#fail(`cannot use ${options.dir}`, error));
    return store;
  }

  /** Number of records that can be read. */
  get size(): number {
    return this.#places.size;
  }

  has(key: string): boolean {
    return this.#places.has(key);
  }

  /** The value of a key; undefined where there is none, or none that is as it was written. */
  async get(key: string): Promise<unknown> {
    const place = this.#places.get(key);
    if (!place) return undefined;
    try {
      const bytes = await this.#read(place);
      if (!bytes) throw new Error('it is cut short');
      const value = valueOf(bytes, key);
      this.#touch(place.segment);
      return value;
    } catch (error) {
      this.#places.delete(key);
      // Another process may have made room.
      const isGone = (error as NodeJS.ErrnoException).code === 'ENOENT';
      if (!isGone)
        this.#tell(
          'unread',
          `${place.segment.path}: an entry cannot be read (${messageOf(error)}): its sample, and others like it, are made anew`,
        );
      return undefined;
    }
  }

  /** Whether a record of so many bytes may be admitted. */
  takes(bytes: number): boolean {
    return !this.#failed && bytes < this.#fullAt && this.#places.size < MOST_RECORDS;
  }

  /** Writes a record, if there is room for it. Its buffers must stay as they are until then. Never rejects. */
  put(record: Record): Promise<void> {
    const written = this.#tail.then(async () => {
      if (!this.takes(record.bytes) || this.has(record.key)) return;
      await this.#append(record).catch((error: unknown) => this.#fail('cannot write', error));
    });
    this.#tail = written;
    return written;
  }

  /** Ends the segment that is being written, and closes all files. */
  async close(): Promise<void> {
    await this.#tail;
    await this.#seal().catch((error: unknown) => this.#fail('cannot write', error));
    for (const segment of this.#open) await closed(segment);
    this.#open.clear();
  }

  async #load(): Promise<void> {
    const { dir, stages } = this.#options;
    await fs.mkdir(dir, { recursive: true });
    for (const name of await fs.readdir(dir)) {
      if (NAME.exec(name)?.[1] !== stages) continue;
      const segment: Segment = { path: join(dir, name), file: undefined, readers: 0, touchedAt: 0 };
      await this.#index(segment).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return; // gone, or renamed: it is found next time
        this.#tell('foreign', `${segment.path} cannot be read (${messageOf(error)}): it is left alone`);
      });
    }
  }

  async #index(segment: Segment): Promise<void> {
    if (!(await fs.lstat(segment.path)).isFile()) throw new Error('it is no file');
    await using file = await fs.open(segment.path, 'r');
    const extents = await readIndex(file, (await file.stat()).size);
    if (!extents) throw new Error('it is none of the cache');
    for (const [key, extent] of extents) this.#places.set(key, { ...extent, segment });
  }

  async #read({ segment, ...extent }: Place): Promise<Buffer | undefined> {
    segment.readers += 1;
    try {
      if (!segment.file) {
        for (const other of this.#open) {
          if (this.#open.size < MOST_OPEN) break;
          if (other.readers > 0 || other === this.#writing?.segment) continue;
          this.#open.delete(other);
          await closed(other);
        }
        segment.file ??= fs.open(segment.path, 'r');
        segment.file.catch(() => (segment.file = undefined));
        this.#open.add(segment);
      }
      return await readFully(await segment.file, extent);
    } finally {
      segment.readers -= 1;
    }
  }

  #touch(segment: Segment): void {
    const now = Date.now();
    if (now - segment.touchedAt < TOUCH_MS) return;
    segment.touchedAt = now;
    const date = new Date(now);
    fs.utimes(segment.path, date, date).catch(() => undefined); // a folder that can only be read
  }

  async #append(record: Record): Promise<void> {
    const needed = record.bytes + INDEX_ENTRY_BYTES;
    const now = Date.now();
    const isStale = (this.#writing?.writtenAt ?? now) < now - ABANDONED_MS / 2;
    if (this.#writing && (isStale || roomIn(this.#writing) < needed)) await this.#seal();
    this.#writing ??= await this.#begin(needed + TRAILER_BYTES);
    if (!this.#writing) {
      this.#fullAt = Math.min(this.#fullAt, record.bytes);
      const { dir, maxBytes } = this.#options;
      this.#tell(
        'full',
        `${dir} is full (maxBytes: ${maxBytes}): what finds no room in it is made anew each time`,
      );
      return;
    }
    const writing = this.#writing;
    const { segment, file, extents, end } = writing;
    try {
      await writeFully(file, record.buffers, end);
    } catch (error) {
      await file.truncate(end).catch(() => undefined); // readers would stop at a torn record, and find none behind it
      throw error;
    }
    const extent = { at: end, bytes: record.bytes };
    writing.end += record.bytes;
    writing.writtenAt = now;
    extents.set(record.key, extent);
    this.#places.set(record.key, { ...extent, segment });
  }

  /** A new segment with room for so many bytes at least; undefined where the folder has none. */
  async #begin(needed: number): Promise<Writing | undefined> {
    const { dir, stages, maxBytes } = this.#options;
    const wanted = Math.max(
      needed,
      Math.min(SEGMENT_BYTES, Math.ceil(maxBytes / 16)),
      Math.ceil(maxBytes / 512),
    );
    return withLockFile(join(dir, 'lock'), async () => {
      const left = maxBytes - (await this.#usedBytes(wanted));
      if (left < needed) return undefined;
      const reserved = Math.min(wanted, left);
      const path = join(dir, `${stages}-${process.pid}-${randomUUID().slice(0, 8)}.${reserved}.open`);
      const file = await fs.open(path, 'wx+');
      const segment: Segment = { path, file: Promise.resolve(file), readers: 0, touchedAt: Date.now() };
      this.#open.add(segment);
      return { segment, file, extents: new Map(), reserved, end: 0, writtenAt: Date.now() };
    });
  }

  /** Bytes of all segments, after those were removed that have to go for `wanted` more. */
  async #usedBytes(wanted: number): Promise<number> {
    const { dir, stages, maxBytes } = this.#options;
    const now = Date.now();
    const found: { path: string; bytes: number; usedAt: number; isOwn: boolean; isIdle: boolean }[] = [];
    for (const name of await fs.readdir(dir)) {
      const match = NAME.exec(name);
      const path = join(dir, name);
      const stat = match && (await fs.lstat(path).catch(() => undefined));
      if (!match || !stat?.isFile()) continue;
      const usedAt = stat.mtimeMs;
      const isOwn = match[1] === stages;
      const isWritten = match[2] !== undefined && now - usedAt < ABANDONED_MS;
      const bytes = isWritten ? Math.max(Number(match[2]), stat.size) : stat.size;
      const isIdle = !isWritten && now - usedAt > (isOwn ? OWN_IDLE_MS : OTHERS_IDLE_MS);
      found.push({ path, bytes, usedAt, isOwn, isIdle });
    }
    let used = found.reduce((sum, { bytes }) => sum + bytes, 0);
    const idle = found.filter(({ isIdle }) => isIdle);
    idle.sort((a, b) => Number(a.isOwn) - Number(b.isOwn) || a.usedAt - b.usedAt);
    for (const { path, bytes } of idle) {
      if (used + wanted <= maxBytes) break;
      await fs.rm(path, { force: true });
      for (const [key, { segment }] of this.#places) if (segment.path === path) this.#places.delete(key);
      used -= bytes;
    }
    return used;
  }

  async #seal(): Promise<void> {
    const writing = this.#writing;
    if (!writing) return;
    this.#writing = undefined;
    const { segment, file, extents, end } = writing;
    if (extents.size === 0) {
      await fs.rm(segment.path, { force: true });
      return;
    }
    await writeFully(file, [indexBytes(extents)], end).catch(async (error: unknown) => {
      await file.truncate(end).catch(() => undefined);
      throw error;
    });
    const path = segment.path.replace(/\.\d+\.open$/, '.seg');
    await fs.rename(segment.path, path);
    segment.path = path;
  }

  #fail(what: string, error: unknown): void {
    this.#failed = true;
    this.#tell(
      'failed',
      `${this.#options.dir}: ${what} (${messageOf(error)}): no more samples are kept, and the run goes on without`,
    );
  }

  #tell(what: string, message: string): void {
    if (this.#told.has(what)) return;
    this.#told.add(what);
    this.#options.onTrouble(message);
  }
}

function roomIn({ reserved, extents, end }: Writing): number {
  return reserved - end - extents.size * INDEX_ENTRY_BYTES - TRAILER_BYTES;
}

async function closed(segment: Segment): Promise<void> {
  const { file } = segment;
  segment.file = undefined;
  await (await file?.catch(() => undefined))?.close().catch(() => undefined);
}

async function writeFully(file: fs.FileHandle, buffers: readonly Uint8Array[], at: number): Promise<void> {
  const wanted = buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const { bytesWritten } = await file.writev(buffers, at);
  if (bytesWritten === wanted) return;
  // A disk that fills writes a part first, and says why when it is asked for the rest.
  const rest = Buffer.concat(buffers).subarray(bytesWritten);
  for (let done = 0; done < rest.length;) {
    const more = await file.write(rest, done, rest.length - done, at + bytesWritten + done);
    if (more.bytesWritten === 0) throw new Error('the disk takes no more');
    done += more.bytesWritten;
  }
}
