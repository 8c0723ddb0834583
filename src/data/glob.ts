// File patterns: `*` and `?` inside a name, `[abc]`, `{a,b}`, and `**` for any depth of folders.
// Node 20 has no glob of its own. Folders reached through symbolic links are not descended by `**`.

import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DataError } from '../errors.js';
import { retry } from '../retry.js';
import { isRemote } from './remote-url.js';

/** The files that the patterns name, as paths that begin as the pattern does: those of the first pattern in
 *  code-unit order, then those of the next; a file named twice comes once. A pattern without `*?[{`, or one that
 *  a file happens to be called, is that file. Addresses (https://...) stand for themselves, but for `{a,b}`.
 *  @throws {DataError} when a pattern matches no file, or names a folder */
export async function expandGlobs(patterns: string | readonly string[]): Promise<string[]> {
  const list = typeof patterns === 'string' ? [patterns] : patterns;
  const files = new Map<string, string>();
  for (const pattern of list) {
    for (const file of await expandGlob(pattern)) {
      const key = isRemote(file) ? file : resolve(file);
      if (!files.has(key)) files.set(key, file);
    }
  }
  if (files.size === 0) {
    throw new DataError({
      where: 'files',
      expected: 'at least one pattern',
      received: 'an empty list',
      remedy: 'name the files to read, such as "data/train-*.parquet"',
    });
  }
  return [...files.values()];
}

async function expandGlob(pattern: string): Promise<string[]> {
  if (isRemote(pattern)) return expandBraces(pattern);
  const literal = await stat(pattern).catch(() => undefined);
  if (literal?.isDirectory()) {
    throw new DataError({
      where: `files "${pattern}"`,
      expected: 'a file or a pattern',
      received: 'a folder',
      remedy: `name the files in it, such as "${join(pattern, '*.parquet')}"`,
    });
  }
  if (literal) return [pattern];
  if (!isPattern(pattern)) {
    throw new DataError({
      where: `file "${pattern}"`,
      expected: 'an existing file',
      received: 'none of that name',
      remedy: `correct the path, which leads to ${resolve(pattern)}`,
    });
  }

  const alternatives = expandBraces(pattern);
  const found = (await Promise.all(alternatives.map(walkPattern))).flat();
  if (found.length === 0) {
    const folder = staticFolder(pattern);
    throw new DataError({
      where: `files "${pattern}"`,
      expected: 'at least one file to match',
      received: await describeFolder(folder),
      remedy: `correct the pattern, or put the files there; it is sought from ${resolve('.')}`,
    });
  }
  return [...new Set(found)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function isPattern(text: string): boolean {
  return /[*?[{]/.test(text);
}

async function walkPattern(pattern: string): Promise<string[]> {
  const parts = pattern.split('/').filter((part, i) => part !== '' || i === 0);
  const absolute = parts[0] === '';
  return walk(absolute ? '/' : '', absolute ? parts.slice(1) : parts);
}

/** Files below `folder` ('' is the working folder) whose path matches `parts`. */
async function walk(folder: string, parts: readonly string[]): Promise<string[]> {
  const [part, ...rest] = parts;
  if (part === undefined) return [];
  if (!isPattern(part)) {
    const path = folder + part;
    const found = await stat(path).catch(() => undefined);
    if (rest.length === 0) return found?.isFile() ? [path] : [];
    return found?.isDirectory() ? walk(`${path}/`, rest) : [];
  }

  const entries = await listing(folder || '.').catch(() => []);
  const found: string[] = [];
  if (part === '**') {
    found.push(...(await walk(folder, rest.length > 0 ? rest : ['*'])));
    for (const entry of entries) {
      if (entry.isDirectory() && !entry.name.startsWith('.')) {
        found.push(...(await walk(`${folder}${entry.name}/`, parts)));
      }
    }
    return found;
  }
  const matcher = nameMatcher(part);
  for (const entry of entries) {
    if (entry.name.startsWith('.') && !part.startsWith('.')) continue;
    if (!matcher.test(entry.name)) continue;
    const path = folder + entry.name;
    const target = entry.isSymbolicLink() ? await stat(path).catch(() => undefined) : entry;
    if (rest.length === 0 && target?.isFile()) found.push(path);
    if (rest.length > 0 && target?.isDirectory()) found.push(...(await walk(`${path}/`, rest)));
  }
  return found;
}

function nameMatcher(part: string): RegExp {
  const source = part.replace(/\[!?[^\]]*\]|[\s\S]/g, (piece) => {
    if (piece === '*') return '[^/]*';
    if (piece === '?') return '[^/]';
    if (piece.length > 1) {
      const negated = piece.startsWith('[!');
      const members = piece.slice(negated ? 2 : 1, -1).replace(/[\\\]^]/g, '\\$&');
      return members === '' ? '(?!)' : `[${negated ? '^' : ''}${members}]`;
    }
    return piece.replace(/[.+^$(){}|[\]\\/]/g, '\\$&');
  });
  try {
    return new RegExp(`^${source}$`, 'su');
  } catch {
    return /(?!)/; // a range written backwards, as in [z-a], holds no character
  }
}

/** `a{b,c}` as `ab` and `ac`; an unclosed brace stands for itself. */
function expandBraces(pattern: string): string[] {
  const match = /^(.*?)\{([^{}]*)\}(.*)$/s.exec(pattern);
  if (!match) return [pattern];
  const [, before = '', choices = '', after = ''] = match;
  return choices.split(',').flatMap((choice) => expandBraces(before + choice + after));
}

/** The longest leading folder of a pattern that holds no wildcard. */
function staticFolder(pattern: string): string {
  const parts = pattern.split('/');
  const first = parts.findIndex(isPattern);
  const folder = parts.slice(0, first).join('/');
  return folder === '' ? (pattern.startsWith('/') ? '/' : '.') : folder;
}

async function describeFolder(folder: string): Promise<string> {
  try {
    const names = (await listing(folder)).map(({ name }) => name);
    if (names.length === 0) return `none: the folder ${folder} is empty`;
    const shown = names.sort().slice(0, 5).join(', ');
    return `none among the ${names.length} entries of ${folder} (${shown}${names.length > 5 ? ', ...' : ''})`;
  } catch {
    return `none: there is no folder ${folder} to read`;
  }
}

function listing(folder: string): Promise<Dirent[]> {
  return retry(() => readdir(folder, { withFileTypes: true }), { where: folder });
}
