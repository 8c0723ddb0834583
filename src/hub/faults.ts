// What the Hub refuses, in words. Its own messages are shown cut and without the token, should it repeat that.

import { HubError, messageOf } from '../errors.js';

/** Something that may well work when it is tried again: a lost connection, a server that is busy. */
export class PassingFault extends Error {
  constructor(
    message: string,
    /** What the server asks to wait. */
    readonly waitMs = 0,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** A name, and what the server said of it. */
interface Refusal {
  /** 'owner/name' or 'owner/name at v2', or a file of it. */
  readonly what: string;
  readonly repository: string;
  readonly endpoint: string;
  readonly token: string | undefined;
}

/** The error for a response that is none of 2xx: passing for 408, 429 and 5xx. */
export async function refusal(response: Response, about: Refusal): Promise<HubError | PassingFault> {
  const { status } = response;
  const code = response.headers.get('x-error-code') ?? '';
  const said = cleaned(response.headers.get('x-error-message') ?? (await errorText(response)), about.token);
  const received = `HTTP ${status}${said === '' ? '' : ` (${said})`}`;
  if (status === 408 || status === 429 || status >= 500) {
    return new PassingFault(received, retryAfterMs(response.headers.get('retry-after')));
  }
  const { what, repository, endpoint, token } = about;
  const page = `${endpoint}/${repository}`;
  const fault = (expected: string, remedy: string): HubError =>
    new HubError({ where: what, expected, received, remedy });

  if (code === 'GatedRepo' || (status === 403 && code === '')) {
    return fault(
      'leave to read it: the model is gated',
      token === undefined
        ? `accept its licence at ${page}, then set HF_TOKEN to a token of that account`
        : `accept its licence at ${page} with the account of your HF_TOKEN, and give that token read access to gated models`,
    );
  }
  if (status === 401 || status === 403) {
    return token === undefined
      ? fault(
          'a public model of that name',
          'check the name and the path: no folder of that name is here either; if the model is private or gated, set HF_TOKEN',
        )
      : fault(
          'a model that your HF_TOKEN may read',
          'check the name, and that the token is valid and may read it',
        );
  }
  if (code === 'RevisionNotFound') {
    return fault('a branch, tag or commit of that name', `choose one of those at ${page}/tree/main`);
  }
  if (status === 404 && code === 'EntryNotFound') {
    return fault('a file of that name', `look at the files at ${page}/tree/main`);
  }
  if (status === 404) {
    return fault(
      'a model of that name',
      'check the name and the path: no folder of that name is here either; if the model is private, set HF_TOKEN',
    );
  }
  return fault(
    'a response with what was asked for',
    `see whether ${endpoint} works, and what HF_ENDPOINT says`,
  );
}

/** What the Hub sent that no Hub would send. */
export function malformed(where: string, expected: string, received: string): HubError {
  return new HubError({
    where,
    expected,
    received,
    remedy: 'do not trust this server: see what HF_ENDPOINT says, and whether a proxy is in between',
  });
}

/** What could not be done after all attempts. */
export function givenUp(where: string, fault: PassingFault, attempts: number, endpoint: string): HubError {
  return new HubError(
    {
      where,
      expected: `an answer of ${endpoint}`,
      received: `${fault.message}, ${attempts} times`,
      remedy:
        'check the connection and try again: what was downloaded is kept; HF_HUB_OFFLINE=1 takes what the cache has',
    },
    { cause: fault },
  );
}

/** What the disk refuses. */
export function diskFault(path: string, cause: unknown): HubError {
  const { code = '' } = cause as NodeJS.ErrnoException;
  const isFull = code === 'ENOSPC' || code === 'EDQUOT';
  return new HubError(
    {
      where: path,
      expected: "to write into the Hub's cache",
      received: messageOf(cause),
      remedy: isFull
        ? 'free space on that disk, or set HF_HUB_CACHE to a folder on another; what was downloaded is kept'
        : 'allow writing there, or set HF_HUB_CACHE to another folder',
    },
    { cause },
  );
}

/** One line of at most 200 characters. */
export function cleaned(text: string, token: string | undefined): string {
  const line = text.replace(/[^\x20-\x7e\u00a0-\uffff]+/g, ' ').trim();
  const hidden = token === undefined ? line : line.replaceAll(token, '***');
  return hidden.length > 200 ? `${hidden.slice(0, 197)}...` : hidden;
}

/** The message in an error's body: JSON with `error`, or nothing. */
async function errorText(response: Response): Promise<string> {
  if (!response.headers.get('content-type')?.includes('json')) {
    await response.body?.cancel();
    return '';
  }
  try {
    const body = (await response.json()) as { error?: unknown } | null;
    return typeof body?.error === 'string' ? body.error : '';
  } catch {
    return '';
  }
}

/** What a `Retry-After` header asks to wait: a minute at most. */
export function retryAfterMs(header: string | null): number {
  if (header === null) return 0;
  const seconds = Number(header);
  const ms = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : seconds * 1000;
  return Number.isFinite(ms) && ms > 0 ? Math.min(ms, 60_000) : 0;
}
