// A folder of pictures or clips as a source of rows, one a file: its bytes, the caption beside it (cat.jpg, cat.txt), the
// name of the folder in the folder that it lies in as its label, and the columns of metadata.jsonl or metadata.csv.
//
// Memory. The list of files, and what the metadata say. A file is read when its row is pulled; under `explode` files are
// read a window at a time, as `parquet` reads row groups.

import { z } from '../schema.js';
import type { MediaKind } from './folder-list.js';
import { fingerprintFolder, planFolder, readFolder, type FolderPlan } from './folder-rows.js';
import {
  checkShard,
  defineSource,
  READING,
  type Explode,
  type ReadingOptions,
  type RowSource,
} from './source-part.js';

export type { FolderPlan } from './folder-rows.js';

/** A file as it lies in the folder. */
export interface MediaFile {
  readonly bytes: Uint8Array;
  /** From the folder, with forward slashes. */
  readonly path: string;
}

/** A row of a folder; the columns of its metadata stand beside these, and above `text` and `label`. */
export interface FolderRow {
  readonly image?: MediaFile;
  readonly audio?: MediaFile;
  /** The caption, where there is one. */
  readonly text?: string;
  /** The name of the nearest folder, where the file does not lie in `dir` itself. */
  readonly label?: string;
  readonly [column: string]: unknown;
}

export interface FolderOptions extends ReadingOptions {
  /** The media to read where a folder holds both; all by default. */
  readonly media?: MediaKind;
}

export type FolderSource<T> = RowSource<T, FolderPlan>;

const OPTIONS = z
  .strictObject({ dir: z.string().min(1), media: z.enum(['image', 'audio']).optional(), ...READING })
  .superRefine(checkShard);

const build = defineSource('folder', OPTIONS, {
  read: readFolder,
  plan: planFolder,
  fingerprint: fingerprintFolder,
});

/** A source of the pictures and clips in a folder and those in it, in the order of their paths.
 *
 *  Metadata files name their media by `file_name`, a path from the folder that they lie in; a file that they name twice
 *  comes twice, and one that they do not name comes without their columns. The cells of metadata.csv are text.
 *
 *  Opening throws {ConfigError} on wrong options and a folder that is none, and {DataError} on links that lead out of it
 *  and when there is no row. Media that metadata name and that are missing, captions that are no UTF-8, and files that have
 *  changed since come as faults.
 *  @example folder('pets', { shuffle: { seed: 42 } })  // pets/cat/1.jpg -> { image: { bytes, path }, label: 'cat' } */
export function folder<T, R = FolderRow>(
  dir: string,
  options: FolderOptions & Explode<R, T>,
): FolderSource<T>;
export function folder<R = FolderRow>(dir: string, options?: FolderOptions): FolderSource<R>;
export function folder(
  dir: string,
  options: FolderOptions & Partial<Explode<never, unknown>> = {},
): FolderSource<unknown> {
  return build({ dir, ...options });
}
