// What lies in a folder of pictures or clips: media in sorted order, captions beside them, metadata files.

import { createHash } from 'node:crypto';
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { extname, join, relative, sep } from 'node:path';
import { ConfigError, DataError, messageOf } from '../errors.js';
import { retry } from '../retry.js';
import type { Stamp } from './open-file.js';

export type MediaKind = 'image' | 'audio';

/** A file of the folder. */
export interface Listed {
  /** From the folder, with forward slashes. */
  readonly path: string;
  readonly stamp: Stamp;
}

export interface Listing {
  readonly dir: string;
  /** In code-unit order of their paths, as the others. */
  readonly media: ReadonlyMap<string, Listed & { readonly kind: MediaKind }>;
  /** Texts, by path. */
  readonly texts: ReadonlyMap<string, Listed>;
  /** metadata.jsonl and metadata.csv. */
  readonly metadata: readonly Listed[];
  /** Files that are none of these. */
  readonly others: readonly string[];
}

const EXTENSIONS: Readonly<Record<MediaKind, readonly string[]>> = {
  image: ['avif', 'bmp', 'gif', 'heic', 'jfif', 'jpeg', 'jpg', 'png', 'tif', 'tiff', 'webp'],
  audio: ['aac', 'aif', 'aifc', 'aiff', 'flac', 'm4a', 'mp3', 'oga', 'ogg', 'opus', 'wav', 'weba', 'wma'],
};
const KINDS = new Map(
  (['image', 'audio'] as const).flatMap((kind) => EXTENSIONS[kind].map((extension) => [extension, kind])),
);

/** Lists the folder and those in it. Names that begin with a dot are passed over, and so are links to folders in it, whose
 *  files are listed where they lie.
 *  @param only the kind of media to take, both by default
 *  @throws {ConfigError} when it is no folder
 *  @throws {DataError} on a link that leads out of it, or nowhere, and on a folder that cannot be read */
export async function listFolder(
  dir: string,
  only: MediaKind | undefined,
  signal: AbortSignal,
): Promise<Listing> {
  const root = await realpath(dir).catch(() => undefined);
  if (root === undefined || !(await stat(root)).isDirectory()) {
    throw new ConfigError({
      where: `folder "${dir}"`,
      expected: 'a folder',
      received: root === undefined ? 'nothing of that name' : 'a file',
      remedy: 'name the folder that the media lie in',
    });
  }
  const found: string[] = [];
  await walk(dir, root, '', found, signal);
  found.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));

  const media = new Map<string, Listed & { readonly kind: MediaKind }>();
  const texts = new Map<string, Listed>();
  const metadata: Listed[] = [];
  const others: string[] = [];
  for (const path of found) {
    signal.throwIfAborted();
    const extension = extname(path).slice(1).toLowerCase();
    const kind = KINDS.get(extension);
    const isMetadata = /(^|\/)metadata\.(jsonl|csv|parquet)$/.test(path);
    if (!isMetadata && extension !== 'txt' && (!kind || (only && kind !== only))) {
      others.push(path);
      continue;
    }
    const { size, mtimeMs } = await retry(() => stat(join(dir, path)), { where: join(dir, path), signal });
    const listed = { path, stamp: { size, mtimeMs } };
    if (isMetadata) metadata.push(listed);
    else if (kind) media.set(path, { ...listed, kind });
    else texts.set(path, listed);
  }
  return { dir, media, texts, metadata, others };
}

async function walk(
  dir: string,
  root: string,
  below: string,
  found: string[],
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const entries = await retry(() => readdir(join(dir, below), { withFileTypes: true }), {
    where: join(dir, below),
    signal,
  }).catch((cause: unknown) => {
    throw new DataError(
      {
        where: join(dir, below),
        expected: 'a folder that can be read',
        received: messageOf(cause),
        remedy: 'make it readable, or move it away',
      },
      { cause },
    );
  });
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const path = below === '' ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) await walk(dir, root, path, found, signal);
    else if (entry.isFile() || (entry.isSymbolicLink() && (await linkedFile(dir, root, path))))
      found.push(path);
  }
}

/** Whether a link leads to a file of the folder, and not to a folder of it. */
async function linkedFile(dir: string, root: string, path: string): Promise<boolean> {
  const target = await realpath(join(dir, path)).catch(() => undefined);
  if (target !== undefined && (target + sep).startsWith(root + sep)) return (await stat(target)).isFile();
  throw new DataError({
    where: join(dir, path),
    expected: 'a link that stays in the folder',
    received: target === undefined ? 'one that leads nowhere' : `one to ${target}`,
    remedy: 'put the file itself there, or remove the link',
  });
}

/** Tells folders apart by the paths and sizes of all files, and by what captions and metadata say. */
export async function fingerprintListing({ dir, media, texts, metadata }: Listing): Promise<string> {
  const hash = createHash('sha256');
  for (const { path, stamp } of media.values()) hash.update(`${path} ${stamp.size}\n`);
  for (const { path, stamp } of [...texts.values(), ...metadata]) {
    hash.update(`${path} ${stamp.size}\n`).update(await readFile(join(dir, path)));
  }
  return hash.digest('hex');
}

/** `path` of a metadata file's `file_name`, from the folder.
 *  @returns undefined where it leads out of it */
export function pathBeside(metadata: string, fileName: string): string | undefined {
  const at = metadata.lastIndexOf('/');
  const path = relative('/', join('/', at < 0 ? '' : metadata.slice(0, at), fileName)).replaceAll(sep, '/');
  const depth = at < 0 ? 0 : metadata.slice(0, at).split('/').length;
  const climbs = fileName.split(/[\\/]/).reduce(
    ({ level, lowest }, step) => {
      const next = level + (step === '..' ? -1 : step === '' || step === '.' ? 0 : 1);
      return { level: next, lowest: Math.min(lowest, next) };
    },
    { level: depth, lowest: depth },
  );
  return fileName.startsWith('/') || climbs.lowest < 0 || path === '' ? undefined : path;
}
