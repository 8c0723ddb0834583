// Doing again what failed for a reason that passes: a disk or a share that does not answer just now.
//
// The waits are drawn from a generator of their own, never from a run's seed: what a run draws must not hang on how
// often its disk was busy.

import { channel } from 'node:diagnostics_channel';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from './errors.js';

/** Codes of input and output that may be gone in a moment. ENOENT, EACCES and the like are answers. */
const PASSING = new Set([
  'EIO',
  'EAGAIN',
  'EBUSY',
  'EINTR',
  'EMFILE',
  'ENFILE',
  'ENOBUFS',
  'ENOMEM',
  'ENETDOWN',
  'ENETRESET',
  'ENETUNREACH',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ETIMEDOUT',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'EREMOTEIO',
  'ESTALE',
]);

/** Linux's ESTALE, which Node has no name for. */
const PASSING_NUMBERS = new Set([-116, -121]);

export interface RetryOptions {
  /** What is done, for who is told: a path. */
  readonly where: string;
  /** In all; 5 by default. */
  readonly attempts?: number;
  /** Before the second attempt, milliseconds; each further wait is twice as long. 100 by default. */
  readonly firstMs?: number;
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined;
  readonly isPassing?: (error: unknown) => boolean;
  /** In [0, 1): a wait is drawn from its upper half. */
  readonly random?: () => number;
}

/** An attempt that failed and is made again. */
export interface Retried {
  readonly where: string;
  /** The number of the one that failed, from 1. */
  readonly attempt: number;
  readonly attempts: number;
  readonly waitMs: number;
  readonly error: unknown;
}

const retries = channel('sluice.retry');

/** Calls `told` at each attempt of this process that is made again.
 *  @returns ends it */
export function onRetry(told: (retried: Retried) => void): () => void {
  const listener = (message: unknown): void => told(message as Retried);
  retries.subscribe(listener);
  return () => void retries.unsubscribe(listener);
}

/** Whether an error of the system may be gone in a moment. */
export function isPassing(error: unknown): boolean {
  const { code, errno } = (error ?? {}) as { code?: unknown; errno?: unknown };
  return PASSING.has(String(code)) || (typeof errno === 'number' && PASSING_NUMBERS.has(errno));
}

/** Does `work`, and again where what it throws may pass: by default 5 times within about 1.5 s.
 *  @throws what the last attempt threw, or the first one that will not pass; the signal's reason when it is aborted
 *  @example await retry(() => handle.read(bytes, 0, length, start), { where: path, signal }) */
export async function retry<T>(work: () => T | Promise<T>, options: RetryOptions): Promise<T> {
  const { where, attempts = 5, firstMs = 100, signal, random = jitter } = options;
  const passes = options.isPassing ?? isPassing;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= attempts || !passes(error)) throw error;
      signal?.throwIfAborted();
      const waitMs = firstMs * 2 ** (attempt - 1) * (0.5 + random() / 2);
      retries.publish({ where, attempt, attempts, waitMs, error } satisfies Retried);
      await delay(waitMs, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted());
    }
  }
}

/** A retried attempt in words. */
export function describeRetry({ attempt, attempts, waitMs, error }: Retried): string {
  return `${messageOf(error)}: tried again after ${(waitMs / 1000).toFixed(2)} s (attempt ${attempt + 1} of ${attempts})`;
}

let state = (process.pid * 0x9e3779b1) >>> 0;

/** A small generator (mulberry32) of the process's own. */
function jitter(): number {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
