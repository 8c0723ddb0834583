// What servers answer instead of a range of a file, in words. Names of files hold no secrets (see `RemoteUrl`).

import { DataError } from '../errors.js';
import { PassingFault, retryAfterMs } from '../hub/faults.js';
import type { Stamp } from './stamp.js';

/** A response's first and last byte, and the length of the whole file. */
export interface ContentRange {
  readonly start: number;
  readonly end: number;
  /** Undefined where the server does not say. */
  readonly size: number | undefined;
}

/** @returns undefined where the header is missing or says no bytes */
export function contentRange(response: Response): ContentRange | undefined {
  const found = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '');
  if (!found) return undefined;
  return {
    start: Number(found[1]),
    end: Number(found[2]),
    size: found[3] === '*' ? undefined : Number(found[3]),
  };
}

/** The validators of a response. */
export function stampOf({ headers }: Response, size: number): Stamp {
  const etag = headers.get('etag') ?? undefined;
  const mtimeMs = Date.parse(headers.get('last-modified') ?? '');
  return { size, mtimeMs: Number.isNaN(mtimeMs) ? 0 : mtimeMs, ...(etag === undefined ? {} : { etag }) };
}

/** The error of a status that is neither 200 nor 206: passing for 408, 425, 429 and 5xx. */
export function refused(name: string, { status, headers }: Response): DataError | PassingFault {
  const received = `HTTP ${status}`;
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    return new PassingFault(received, retryAfterMs(headers.get('retry-after')));
  }
  const remedy =
    status === 401 || status === 403
      ? 'check that it may be read: an address of the Hub needs HF_TOKEN where it is private, and a signed one runs out'
      : 'correct the address';
  return new DataError({ where: name, expected: 'a file to read', received, remedy });
}

/** The server gives whole files only. */
export function withoutRanges(name: string): DataError {
  return new DataError({
    where: name,
    expected: 'a server that answers range requests (HTTP 206)',
    received: 'HTTP 200 with the whole file',
    remedy: 'download it first and name the copy, or put it on a server that supports ranges',
  });
}

/** The file is another than the one that the run began with. */
export function changed(name: string, before: Stamp, now: string): DataError {
  return new DataError({
    where: name,
    expected: `the file that the run began with, of ${stampText(before)}`,
    received: now,
    remedy: 'leave data files alone while a run reads them, and start it again',
  });
}

export function stampText({ size, mtimeMs, etag }: Stamp): string {
  const time = mtimeMs > 0 ? [`last modified ${new Date(mtimeMs).toISOString()}`] : [];
  return [`${size} bytes`, ...(etag === undefined ? time : [`ETag ${etag.slice(0, 100)}`])].join(', ');
}

/** A server that breaks the protocol. */
export function brokenAnswer(name: string, expected: string, received: string): DataError {
  const remedy = 'do not trust this server or the proxy in between: download the file, and name the copy';
  return new DataError({ where: name, expected, received, remedy });
}

/** What could not be read after all attempts. */
export function unanswered(name: string, fault: PassingFault, attempts: number): DataError {
  return new DataError(
    {
      where: name,
      expected: 'an answer of its server',
      received: `${fault.message}, ${attempts} times`,
      remedy: 'check the connection and the server; a run that has stopped goes on with --resume',
    },
    { cause: fault },
  );
}
