// What a model was loaded from: an adapter's files name it, so that whoever loads them finds it.

import { basename } from 'node:path';
import type { Gemma3n } from './model.js';

export interface BaseModel {
  /** A repository, 'owner/name', or a folder's path. */
  readonly path: string;
  /** Of a repository. */
  readonly revision?: string | undefined;
}

const ofModels = new WeakMap<Gemma3n, BaseModel>();

/** Sets down where a model is from. */
export function setBase(model: Gemma3n, base: BaseModel): void {
  ofModels.set(model, base);
}

/** Where a model is from; undefined where it was drawn. */
export function baseOf(model: Gemma3n): BaseModel | undefined {
  return ofModels.get(model);
}

/** Whether two names may be of the same model: a folder may be a copy of a repository. */
export function mayBeSame(one: string, other: string): boolean {
  return lastPart(one) === lastPart(other);
}

/** Of a snapshot in the Hub's cache, the repository's name: models--owner--name/snapshots/COMMIT. */
function lastPart(path: string): string {
  const [, repository] = /models--(?:.+--)?([^/\\]+)[/\\]snapshots[/\\]/.exec(path) ?? [];
  return (repository ?? basename(path.replace(/[/\\]+$/, ''))).toLowerCase();
}
