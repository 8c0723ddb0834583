// How the Hub is reached: the same environment variables, and the same places, as Python's huggingface_hub reads.

import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { HubError } from '../errors.js';

export interface HubSettings {
  /** Where the Hub is, without a slash at the end. */
  readonly endpoint: string;
  /** Holds a folder `models--OWNER--NAME` for each repository. */
  readonly cacheFolder: string;
  readonly isOffline: boolean;
  /** Sent to the endpoint alone, shown nowhere. */
  readonly token: string | undefined;
  readonly retry: RetrySettings;
}

export interface RetrySettings {
  /** Times that a request is tried. A download that got further begins to count anew. */
  readonly attempts: number;
  /** Before the second attempt; each further wait is twice as long, up to half a minute. */
  readonly firstDelayMs: number;
  /** A connection that brings nothing for so long is given up. */
  readonly stallMs: number;
}

export const DEFAULT_RETRY: RetrySettings = { attempts: 5, firstDelayMs: 500, stallMs: 30_000 };

type Env = Readonly<Record<string, string | undefined>>;

/** Reads `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_TOKEN_PATH` and
 *  `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
 *  @throws {HubError} when the endpoint is no URL, or the token cannot be one */
export function hubSettings(env: Env = process.env): HubSettings {
  const home = folderOf(env, env['HF_HOME']) ?? join(cacheHome(env), 'huggingface');
  const cache = env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE'];
  return {
    endpoint: endpointOf(env['HF_ENDPOINT'] || 'https://huggingface.co'),
    cacheFolder: folderOf(env, cache) ?? join(home, 'hub'),
    isOffline: isTrue(env['HF_HUB_OFFLINE'] || env['TRANSFORMERS_OFFLINE']),
    token: isTrue(env['HF_HUB_DISABLE_IMPLICIT_TOKEN']) ? undefined : tokenOf(env, home),
    retry: DEFAULT_RETRY,
  };
}

function cacheHome(env: Env): string {
  return folderOf(env, env['XDG_CACHE_HOME']) ?? join(homeOf(env), '.cache');
}

function homeOf(env: Env): string {
  return env['HOME'] || homedir();
}

/** An absolute folder, `~` and variables in it filled in. */
function folderOf(env: Env, path: string | undefined): string | undefined {
  if (!path) return undefined;
  const filled = path
    .replace(/^~(?=\/|$)/, () => homeOf(env))
    .replace(/\$\{(\w+)\}|\$(\w+)/g, (whole, a?: string, b?: string) => env[a ?? b ?? ''] ?? whole);
  return resolve(filled);
}

function isTrue(value: string | undefined): boolean {
  return /^(1|on|yes|true)$/i.test(value ?? '');
}

function endpointOf(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.password) {
    return `${url.origin}${url.pathname}`.replace(/\/+$/, '');
  }
  throw new HubError({
    where: 'HF_ENDPOINT',
    expected: "a server's address, such as https://huggingface.co",
    received: url ? `one of ${url.protocol}//, or with a user in it` : JSON.stringify(value),
    remedy: 'correct it, or unset it for the Hugging Face Hub',
  });
}

function tokenOf(env: Env, home: string): string | undefined {
  const given = env['HF_TOKEN'] || env['HUGGING_FACE_HUB_TOKEN'];
  const token = (given ?? tokenFile(folderOf(env, env['HF_TOKEN_PATH']) ?? join(home, 'token'))).trim();
  if (token === '') return undefined;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new HubError({
    where: given ? 'HF_TOKEN' : "the Hub's token file",
    expected: 'a token of letters, digits and signs',
    received: 'one with spaces or other characters in it',
    remedy: 'copy it again from https://huggingface.co/settings/tokens',
  });
}

function tokenFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // nobody has logged in here
  }
}
